// A whole cluster of the production hosts on virtual time: machines with a disk, guests under guards
// and a daemon that can be killed alone or with everything else; two networks; and a witness who
// notes, at every change, how many instances of each VM are running.

import { createHost, type Host } from '../../src/host/create-host.ts';
import type { Member } from '../../src/host/members.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import type { ClusterEvent } from '../../src/model/events.ts';
import { type HostId, hostId, type VmId } from '../../src/model/ids.ts';
import { timings } from '../../src/model/limits.ts';
import type { Guest, GuestDriver, GuestEvent, GuestLaunch } from '../../src/ports/guests.ts';
import type { Log } from '../../src/ports/log.ts';
import { noProbe } from '../../src/ports/probe.ts';
import { MemoryDisk } from './memory-disk.ts';
import { MemoryNetwork } from './memory-network.ts';
import { MemoryStreams } from './memory-streams.ts';
import { NbdGuest, type Report } from './nbd-guest.ts';
import { SeededRandom } from './seeded-random.ts';
import { VirtualClock } from './virtual-clock.ts';

const GiB = 2 ** 30;
const spawnMs = 100;

export class Cluster {
  readonly clock = new VirtualClock();
  readonly random: SeededRandom;
  readonly storageNetwork: MemoryNetwork;
  readonly haNetwork: MemoryNetwork;
  readonly machines: Machine[];
  readonly log: string[] = [];
  /** The most instances of any VM that ever ran at the same time. */
  mostInstances = 0;
  readonly reports = new Map<string, (Report & { readonly host: HostId })[]>();

  constructor(options: {
    readonly hosts: number;
    readonly seed?: number;
    readonly witnesses?: number;
  }) {
    this.random = new SeededRandom(options.seed ?? 1);
    this.storageNetwork = new MemoryNetwork(
      this.clock,
      new SeededRandom(`${options.seed} storage`),
      {
        detectMs: 2000,
      },
    );
    this.haNetwork = new MemoryNetwork(this.clock, new SeededRandom(`${options.seed} ha`), {
      detectMs: 2000,
    });
    const names = Array.from({ length: options.hosts }, (_, index) => hostId(`host-${index + 1}`));
    const members = names.map(
      (name, index): Member => ({
        name,
        kind: index >= options.hosts - (options.witnesses ?? 0) ? 'witness' : 'full',
        storageAddress: `${name}:1`,
        haAddress: `${name}:2`,
      }),
    );
    this.machines = members.map((member) => new Machine(this, member, members));
  }

  machine(name: string): Machine {
    const found = this.machines.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no machine ${name}`);
    return found;
  }

  async start(): Promise<void> {
    await Promise.all(this.machines.map((machine) => machine.boot()));
    await this.until(
      () => this.machines.every((one) => one.manager.status().master !== null),
      15_000,
    );
  }

  wait<T>(promise: Promise<T>, limitMs?: number): Promise<T> {
    return this.clock.wait(promise, limitMs);
  }

  /** Runs until the condition holds; looks every 10 ms, because looking may itself set off events. */
  async until(condition: () => boolean, limitMs: number): Promise<void> {
    const end = this.clock.now() + limitMs;
    while (!condition()) {
      if (this.clock.now() >= end)
        throw new Error(`still not so after ${limitMs} ms of virtual time`);
      await this.clock.run(10);
    }
  }

  /** Cuts both networks between the groups. */
  partition(...groups: string[][]): void {
    const named = groups.map((group) => group.map((name) => hostId(name)));
    this.storageNetwork.partition(...named);
    this.haNetwork.partition(...named);
  }

  heal(): void {
    this.storageNetwork.healAll();
    this.haNetwork.healAll();
  }

  /** Where instances of a VM run (not paused) now. */
  running(name: string): HostId[] {
    return this.machines.flatMap((machine) => (machine.isRunning(name) ? [machine.name] : []));
  }

  lastReport(name: string): number {
    const reports = this.reports.get(name) ?? [];
    return Math.max(0, ...reports.filter((one) => one.kind === 'wrote').map((one) => one.number));
  }

  note(): void {
    const counts = new Map<VmId, number>();
    for (const machine of this.machines) {
      for (const guest of machine.guests.values()) {
        if (guest.state === 'running') counts.set(guest.vm, (counts.get(guest.vm) ?? 0) + 1);
      }
    }
    this.mostInstances = Math.max(this.mostInstances, ...counts.values());
  }

  /** Every number that a guest read at a boot was at least the last that it had reported. */
  assertNothingLost(): void {
    for (const [name, reports] of this.reports) {
      let acknowledged = 0;
      for (const report of reports) {
        if (report.kind === 'read' && report.number < acknowledged) {
          throw new Error(`${name} read ${report.number} after it had reported ${acknowledged}`);
        }
        if (report.kind === 'wrote') acknowledged = report.number;
      }
    }
  }
}

class TestGuest implements Guest {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: GuestLaunch['epoch'];
  state: 'running' | 'paused' | 'exited' = 'running';
  readonly program: NbdGuest;
  ignoresPower = false;
  onEvent: (event: GuestEvent) => void = () => {};
  readonly #machine: Machine;
  #deadlineMs: number;

  constructor(machine: Machine, launch: GuestLaunch) {
    this.vm = launch.vm;
    this.name = launch.name;
    this.epoch = launch.epoch;
    this.#machine = machine;
    this.#deadlineMs = launch.deadlineMs;
    const { cluster } = machine;
    const path = launch.disks[0]?.socket ?? '';
    this.program = new NbdGuest(cluster.clock, machine.streams, path, 200, (report) => {
      const all = cluster.reports.get(this.name) ?? [];
      cluster.reports.set(this.name, [...all, { ...report, host: machine.name }]);
      this.onEvent({ type: 'heartbeat', line: `${report.kind} ${report.number}` });
    });
    this.#arm();
    this.program.boot();
  }

  #arm(): void {
    const { clock } = this.#machine.cluster;
    clock.after(this.#deadlineMs - clock.now(), () => {
      if (this.state !== 'running') return;
      if (this.#deadlineMs - clock.now() > 0.5) return this.#arm();
      this.#stand();
      this.onEvent({ type: 'paused' });
    });
  }

  #stand(): void {
    if (this.state !== 'running') return;
    this.state = 'paused';
    this.program.isPaused = true;
  }

  extend(deadlineMs: number): void {
    this.#deadlineMs = Math.max(this.#deadlineMs, deadlineMs);
  }

  async pause(): Promise<void> {
    this.#stand();
  }

  async resume(deadlineMs: number): Promise<void> {
    if (this.state !== 'paused' || deadlineMs <= this.#machine.cluster.clock.now()) return;
    this.state = 'running';
    this.#deadlineMs = deadlineMs;
    this.#arm();
    this.program.resume();
    this.#machine.cluster.note();
  }

  async powerDown(): Promise<void> {
    if (this.ignoresPower) return;
    this.#machine.cluster.clock.after(300, () => this.exit(true, 'the guest switched itself off'));
  }

  async reset(): Promise<void> {
    this.program.boot();
  }

  async kill(): Promise<void> {
    this.exit(false, 'killed', false);
  }

  exit(clean: boolean, detail: string, tell = true): void {
    if (this.state === 'exited') return;
    this.state = 'exited';
    this.program.end();
    this.#machine.guests.delete(this.vm);
    if (tell) this.onEvent({ type: 'exited', clean, detail });
  }

  handle(onEvent: (event: GuestEvent) => void): void {
    this.onEvent = onEvent;
  }

  detach(): void {
    this.onEvent = () => {};
  }
}

export class Machine {
  readonly cluster: Cluster;
  readonly member: Member;
  readonly disk: MemoryDisk;
  readonly streams: MemoryStreams;
  readonly guests = new Map<VmId, TestGuest>();
  readonly events: ClusterEvent[] = [];
  memoryBytes = 8 * GiB;
  startFailure: HoldfastError | null = null;
  host: Host | null = null;
  readonly #members: readonly Member[];
  #process: ReturnType<VirtualClock['process']> | null = null;
  #runs = 0;

  constructor(cluster: Cluster, member: Member, members: readonly Member[]) {
    this.cluster = cluster;
    this.member = member;
    this.#members = members;
    this.disk = new MemoryDisk(cluster.clock);
    this.disk.capacityBytes = 64 * GiB;
    this.streams = new MemoryStreams(cluster.clock);
  }

  get name(): HostId {
    return this.member.name;
  }

  get manager() {
    if (this.host === null) throw new Error(`${this.name} is down`);
    return this.host.manager;
  }

  isRunning(name: string): boolean {
    return [...this.guests.values()].some(
      (guest) => guest.name === name && guest.state === 'running',
    );
  }

  guest(name: string): TestGuest {
    const found = [...this.guests.values()].find((guest) => guest.name === name);
    if (found === undefined) throw new Error(`${name} is not on ${this.name}`);
    return found;
  }

  /** Starts the daemon; guests that are under their guards are found again. */
  async boot(): Promise<void> {
    const { cluster } = this;
    this.#runs += 1;
    const process = cluster.clock.process();
    this.#process = process;
    const random = new SeededRandom(`${this.name} ${this.#runs} ${cluster.random.next()}`);
    const starting = createHost(
      {
        clock: process,
        random,
        log: this.#log(''),
        storageNetwork: cluster.storageNetwork.attach(this.name),
        haNetwork: cluster.haNetwork.attach(this.name),
        disk: this.disk.attach(),
        streams: this.streams.attach(),
        guests: this.#driver(),
        probe: noProbe,
      },
      {
        cluster: 'test',
        name: this.name,
        kind: this.member.kind,
        members: { list: () => this.#members, tell: async () => false },
        timings,
        socketPath: (vm, disk) => `${vm}/${disk}`,
        capacityBytes: null,
      },
    );
    const host = await cluster.wait(starting);
    if (this.#process !== process) return; // killed while it started
    this.host = host;
    host.manager.onEvent((event) => this.events.push(event));
  }

  /** kill -9 of the daemon: the guests go on until their deadlines. */
  killDaemon(): void {
    this.#process?.kill();
    this.#process = null;
    this.host = null;
    this.cluster.storageNetwork.detach(this.name);
    this.cluster.haNetwork.detach(this.name);
    this.streams.kill();
    this.disk.kill();
    for (const guest of this.guests.values()) guest.detach();
  }

  /** Power off: daemon, guards, guests, and what was not synced. */
  crash(): void {
    this.killDaemon();
    for (const guest of [...this.guests.values()]) guest.exit(false, 'power', false);
    this.disk.cutPower(this.cluster.random);
  }

  #driver(): GuestDriver {
    return {
      accelerator: 'none',
      capacity: () => ({ cpus: 8, memoryBytes: this.memoryBytes }),
      recover: async () => [...this.guests.values()],
      start: async (launch) => {
        await new Promise<void>((resolve) => this.cluster.clock.after(spawnMs, resolve));
        if (this.startFailure !== null) throw this.startFailure;
        if (this.host === null) throw new HoldfastError('stopped', 'the machine is down');
        const guest = new TestGuest(this, launch);
        this.guests.set(launch.vm, guest);
        this.cluster.note();
        return guest;
      },
    };
  }

  #log(room: string): Log {
    const write = (level: string) => (message: string) => {
      const at = (this.cluster.clock.now() / 1000).toFixed(3);
      this.cluster.log.push(`${at}s ${this.name}/${room} ${level} ${message}`);
    };
    return {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: (name) => this.#log(name),
    };
  }
}
