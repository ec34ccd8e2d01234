// One machine: its clock since its boot, its disk, its guests under their guards, and a daemon that
// can be killed, frozen and started again alone, or with everything else when the power fails.

import { createHost, type Host, type HostParts } from '../../host/create-host.ts';
import type { Member } from '../../host/members.ts';
import type { DeviceClass } from '../../model/device.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { ClusterEvent } from '../../model/events.ts';
import type { HostId, VmId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import type { GuestDriver } from '../../ports/guests.ts';
import type { Log, LogFields } from '../../ports/log.ts';
import type { Point } from '../../ports/probe.ts';
import { type DeviceSize, VirtualDevice, virtualCluster } from './devices.ts';
import { VirtualDisk } from './disk.ts';
import type { DiskTruth, Stamp } from './disk-truth.ts';
import { VirtualGuest, type Workload } from './guest.ts';
import { GuestHandle } from './guest-handle.ts';
import type { VirtualNetwork } from './network.ts';
import { MachineClock, Process } from './process.ts';
import type { SeededRandom } from './random.ts';
import type { SharedDisk } from './shared-disk.ts';
import { isTold } from './story.ts';
import { LocalStreams } from './streams.ts';
import type { VirtualTime } from './time.ts';

/** What a machine finds around it. */
export interface Surroundings {
  readonly time: VirtualTime;
  readonly random: SeededRandom;
  readonly storageNetwork: VirtualNetwork;
  readonly haNetwork: VirtualNetwork;
  readonly members: readonly Member[];
  readonly options: {
    readonly timings: Timings;
    readonly workload: Workload;
    readonly log: ((line: string) => void) | null;
    readonly crc32?: (bytes: Uint8Array) => number;
    readonly parts?: (machine: Machine, process: Process) => HostParts;
  };
  /** What belongs to a VM wherever its guest runs. */
  vm(name: string): {
    readonly truth: DiskTruth;
    readonly random: SeededRandom;
    readonly diskBytes: readonly number[];
  };
  /** By its path; made when it is first asked for. */
  sharedDisk(path: string): SharedDisk;
  reached(machine: Machine, point: Point): void;
  guestChanged(machine: Machine, guest: VirtualGuest): void;
  misread(machine: Machine, guest: VirtualGuest, problem: string): void;
  acknowledged(machine: Machine, guest: VirtualGuest, stamp: Stamp, isDurable: boolean): void;
  told(machine: Machine, event: ClusterEvent): void;
  logged(machine: Machine, room: string, message: string): void;
  tell(message: string): void;
}

export interface MachineSize {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly diskClass?: DeviceClass;
  readonly devices?: readonly DeviceSize[];
}

/** From the order to a process that runs. */
const spawnMs = 100;
/** A daemon that could not start is started again, as a service manager does. */
const restartMs = 5000;

export class Machine {
  readonly member: Member;
  /** The main device. */
  readonly disk: VirtualDisk;
  readonly devices: readonly VirtualDevice[];
  readonly guests = new Map<VmId, VirtualGuest>();
  /** The daemon, once it is up. */
  host: Host | null = null;
  isPowered = false;
  /** Memory for guests; a test may take some away. */
  memoryBytes: number;
  /** Why no guest can be started here; null: they can. */
  startFailure: HoldfastError | null = null;
  /** Why it can not use the storage that all hosts see; null: it can. */
  sharedStorageProblem: string | null = null;
  /** What its file of policies holds. */
  #policies: string | null = null;
  readonly #world: Surroundings;
  readonly #cpus: number;
  readonly #diskClass: DeviceClass | undefined;
  readonly #drift: number;
  readonly #random: SeededRandom;
  readonly #streams: LocalStreams;
  #clock: MachineClock;
  #process: Process | null = null;

  constructor(world: Surroundings, member: Member, size: MachineSize, drift: number) {
    this.#world = world;
    this.member = member;
    this.#cpus = size.cpus;
    this.memoryBytes = size.memoryBytes;
    this.#drift = drift;
    this.#random = world.random.stream(`machine ${member.name}`);
    const disk = this.#random.stream('disk');
    const { crc32 } = world.options;
    this.disk = new VirtualDisk(world.time, disk, size.diskBytes, crc32);
    this.#diskClass = size.diskClass;
    this.devices = (size.devices ?? []).map((one) => {
      const random = this.#random.stream(`device ${one.name}`);
      return new VirtualDevice(world.time, random, member.name, one, crc32);
    });
    this.#streams = new LocalStreams(world.time);
    this.#clock = new MachineClock(world.time, drift);
  }

  get name(): HostId {
    return this.member.name;
  }

  /** Of all devices, the main one first. */
  get disks(): readonly VirtualDisk[] {
    return [this.disk, ...this.devices.map(({ disk }) => disk)];
  }

  device(name: string): VirtualDevice {
    const found = this.devices.find((one) => one.name === name);
    if (found === undefined) throw new Error(`${this.name} has no device ${name}`);
    return found;
  }

  /** Null: none of the devices has a file of this name. */
  diskWith(file: string): VirtualDisk | null {
    return this.disks.find(({ files }) => files.has(file)) ?? null;
  }

  /** The one with this file, or else the one in the place of that which had it. */
  diskThatHad(file: string): VirtualDisk | null {
    return this.diskWith(file) ?? this.disks.find((disk) => disk.hasLost(file)) ?? null;
  }

  get hasDaemon(): boolean {
    return this.#process !== null;
  }

  get isFrozen(): boolean {
    return this.#process?.isFrozen === true;
  }

  powerOn(): void {
    if (this.isPowered) return;
    this.isPowered = true;
    this.#clock = new MachineClock(this.#world.time, this.#drift);
    this.startDaemon();
  }

  /** Power off: daemon, guards, guests, and what was not synced. */
  cutPower(): void {
    if (!this.isPowered) return;
    this.isPowered = false;
    this.#endDaemon(true);
    for (const guest of [...this.guests.values()]) guest.exit(false, 'power');
    this.guests.clear();
    for (const disk of this.disks) disk.cutPower();
  }

  /** Starts the daemon; guests that are under their guards are found again. */
  startDaemon(): void {
    if (!this.isPowered || this.#process !== null) return;
    const { time } = this.#world;
    const process = new Process(time, this.#clock);
    this.#process = process;
    this.#start(process).then(
      (host) => {
        if (!process.isAlive) return;
        this.host = host;
        host.manager.onEvent((event) => this.#world.told(this, event));
      },
      (error: unknown) => {
        if (!process.isAlive) return;
        this.#world.tell(`the daemon of ${this.name} does not start: ${String(error)}`);
        this.#endDaemon(false);
        time.after(restartMs, () => this.startDaemon());
      },
    );
  }

  /** kill -9: the guests go on until their deadlines. */
  killDaemon(): void {
    this.#endDaemon(false);
  }

  freezeDaemon(): void {
    this.#process?.freeze();
  }

  thawDaemon(): void {
    this.#process?.thaw();
  }

  /** The main device is replaced by an empty one; the daemon does not survive that. */
  replaceDisk(): void {
    this.#endDaemon(false);
    this.disk.replace();
    this.startDaemon();
  }

  guest(name: string): VirtualGuest | null {
    return [...this.guests.values()].find((guest) => guest.name === name) ?? null;
  }

  #restartDaemon(process: Process, reason: string): void {
    const { time } = this.#world;
    this.#world.tell(`${this.name} restarts itself: ${reason}`);
    time.after(0, () => {
      if (this.#process !== process) return;
      this.#endDaemon(false);
      this.startDaemon();
    });
  }

  #endDaemon(isSilent: boolean): void {
    const process = this.#process;
    if (process === null) return;
    const world = this.#world;
    process.kill();
    this.#process = null;
    this.host = null;
    world.storageNetwork.detach(this.name, isSilent);
    world.haNetwork.detach(this.name, isSilent);
    this.#streams.kill();
    if (!isSilent) for (const disk of this.disks) disk.kill();
    for (const guest of this.guests.values()) guest.detach();
  }

  #start(process: Process): Promise<Host> {
    const world = this.#world;
    const { name, kind } = this.member;
    const parts: HostParts = world.options.parts?.(this, process) ?? {};
    return createHost(
      {
        clock: process,
        random: this.#random.stream('daemon').stream(String(this.#random.next())),
        log: this.#log(process, ''),
        probe: { reached: (point) => this.#reached(process, point) },
        storageNetwork: world.storageNetwork.attach(name, process),
        haNetwork: world.haNetwork.attach(name, process),
        disk: this.disk.attach(process),
        devices: this.devices.map((device) => device.port(process)),
        streams: this.#streams.attach(process),
        guests: this.#driver(process),
        restart: (reason) => {
          if (process.isAlive) this.#restartDaemon(process, reason);
        },
      },
      {
        cluster: virtualCluster,
        name,
        kind,
        members: {
          list: () => world.members,
          all: () => [],
          remove: async () => {},
          tell: async () => false,
        },
        policyFile: {
          read: async () => this.#policies,
          write: async (content) => {
            this.#policies = content;
          },
        },
        timings: world.options.timings,
        socketPath: (vm, disk) => `${vm}/${disk}`,
        ...(this.#diskClass === undefined ? {} : { diskClass: this.#diskClass }),
        capacityBytes: null,
      },
      parts,
    );
  }

  #reached(process: Process, point: Point): void {
    // What a dead daemon still does on its way out has no effect, and is not looked at.
    if (process.isAlive) this.#world.reached(this, point);
  }

  #driver(process: Process): GuestDriver {
    const world = this.#world;
    const cpus = this.#cpus;
    return {
      accelerator: 'none',
      capacity: () => ({ cpus, memoryBytes: this.memoryBytes }),
      recover: async () =>
        [...this.guests.values()].map((guest) => new GuestHandle(guest, process)),
      pathProblem: async () => this.sharedStorageProblem,
      start: (launch) =>
        new Promise((resolve, reject) => {
          world.time.after(
            spawnMs,
            () => {
              const refuse = (why: string) =>
                reject(new HoldfastError('guest-failed', `${launch.name} ${why}`));
              if (this.startFailure !== null) return reject(this.startFailure);
              if (this.guests.has(launch.vm)) return refuse('has a guest here already');
              // The guard refuses what it would have to stop at once.
              if (launch.deadlineMs <= this.#clock.now()) return refuse('is past its deadline');
              const guest = new VirtualGuest(this.#surroundings(launch.name), launch);
              this.guests.set(launch.vm, guest);
              world.guestChanged(this, guest);
              resolve(new GuestHandle(guest, process));
            },
            process,
          );
        }),
    };
  }

  #surroundings(name: string) {
    const world = this.#world;
    const { truth, random, diskBytes } = world.vm(name);
    return {
      time: world.time,
      clock: this.#clock,
      streams: this.#streams,
      truth,
      random,
      diskBytes,
      sharedDisk: (path: string) => world.sharedDisk(path),
      workload: world.options.workload,
      changed: (guest: VirtualGuest) => this.#guestChanged(guest),
      misread: (guest: VirtualGuest, problem: string) => world.misread(this, guest, problem),
      acknowledged: (guest: VirtualGuest, stamp: Stamp, isDurable: boolean) =>
        world.acknowledged(this, guest, stamp, isDurable),
    };
  }

  #guestChanged(guest: VirtualGuest): void {
    // One that ended while nobody looked is still found by the next daemon.
    if (guest.isEndKnown) this.guests.delete(guest.vm);
    this.#world.guestChanged(this, guest);
  }

  #log(process: Process, room: string): Log {
    const world = this.#world;
    const write = (message: string, fields?: LogFields) => {
      if (process.isAlive && isTold(room, fields)) world.logged(this, room, message);
    };
    const silent = () => {};
    const isOn = world.options.log !== null;
    const line = isOn ? write : silent;
    return {
      debug: silent,
      info: line,
      warn: line,
      error: line,
      child: (name) => (isOn ? this.#log(process, name) : this.#silentLog()),
    };
  }

  #silentLog(): Log {
    const silent = () => {};
    const log: Log = { debug: silent, info: silent, warn: silent, error: silent, child: () => log };
    return log;
  }
}
