// The virtual world: machines with the production hosts on them, two networks between them, and true
// time. Everything that happens in it follows from its options and its seed. Observers see what a
// god would see; they may look, and they may strike, but the hosts do not know of them.

import type { HostParts } from '../../host/create-host.ts';
import type { Member } from '../../host/members.ts';
import type { Manager } from '../../manager/api.ts';
import type { ClusterEvent } from '../../model/events.ts';
import { type HostId, hostId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import type { Point } from '../../ports/probe.ts';
import { DiskTruth, type Stamp } from './disk-truth.ts';
import type { VirtualGuest, Workload } from './guest.ts';
import { Machine, type MachineSize, type Surroundings } from './machine.ts';
import { VirtualNetwork } from './network.ts';
import type { Process } from './process.ts';
import { SeededRandom } from './random.ts';
import { SharedDisk } from './shared-disk.ts';
import { Names } from './story.ts';
import { VirtualTime } from './time.ts';

export interface WorldHost extends MachineSize {
  readonly name: string;
  readonly kind: 'full' | 'witness';
  readonly site?: string | null;
  /** How much faster its clock runs, as a fraction. */
  readonly drift: number;
}

export interface WorldOptions {
  readonly seed: number;
  readonly hosts: readonly WorldHost[];
  /** `shared`: what befalls one network befalls the other. */
  readonly networks: 'separate' | 'shared';
  readonly loss: { readonly storage: number; readonly ha: number };
  readonly timings: Timings;
  readonly workload: Workload;
  /** Runs all promise reactions that are due. */
  readonly settle: () => void;
  /** Of the machine that this runs on; without it the model's, which takes longer. */
  readonly crc32?: (bytes: Uint8Array) => number;
  /** A line of the story; null: nobody reads it, and it is not written. */
  readonly log: ((line: string) => void) | null;
  readonly parts?: (machine: Machine, process: Process) => HostParts;
}

/** Sees everything, at once. */
export interface Observer {
  reached?(machine: Machine, point: Point): void;
  guestChanged?(machine: Machine, guest: VirtualGuest): void;
  misread?(machine: Machine, guest: VirtualGuest, problem: string): void;
  /** The guest has been told that its write is done; `isDurable`: it was a write through (FUA). */
  acknowledged?(machine: Machine, guest: VirtualGuest, stamp: Stamp, isDurable: boolean): void;
  /** On storage that all hosts see. */
  staleWrite?(path: string, problem: string): void;
  told?(machine: Machine, event: ClusterEvent): void;
  wrote?(machine: Machine, file: string, offset: number, bytes: Uint8Array): void;
}

interface WorldVm {
  readonly truth: DiskTruth;
  readonly random: SeededRandom;
  readonly diskBytes: readonly number[];
}

export class World implements Surroundings {
  readonly options: WorldOptions;
  readonly time: VirtualTime;
  readonly random: SeededRandom;
  readonly storageNetwork: VirtualNetwork;
  readonly haNetwork: VirtualNetwork;
  readonly members: readonly Member[];
  readonly machines: readonly Machine[];
  /** True time that the story counts from; before it there is none. */
  #zeroMs: number | null = null;
  readonly #observers: Observer[] = [];
  readonly #vms = new Map<string, WorldVm>();
  readonly #sharedDisks = new Map<string, SharedDisk>();
  readonly #names = new Names(() => this.machines.flatMap(({ host }) => host?.manager ?? []));

  constructor(options: WorldOptions) {
    this.options = options;
    this.time = new VirtualTime(options.settle);
    this.random = new SeededRandom(options.seed);
    const { loss } = options;
    const stream = (name: string) => this.random.stream(name);
    this.storageNetwork = new VirtualNetwork(this.time, stream('storage network'));
    this.haNetwork = new VirtualNetwork(this.time, stream('HA network'));
    this.storageNetwork.manners.loss = loss.storage;
    this.haNetwork.manners.loss = loss.ha;
    this.members = options.hosts.map(({ name, kind, site = null }) => ({
      name: hostId(name),
      kind,
      storageAddress: `${name}:1`,
      haAddress: `${name}:2`,
      ...(site === null ? {} : { site }),
    }));
    this.machines = options.hosts.map((host, index) => {
      const machine = new Machine(this, this.members[index] as Member, host, host.drift);
      const watcher = {
        wrote: (file: string, offset: number, bytes: Uint8Array) => {
          for (const one of this.#observers) one.wrote?.(machine, file, offset, bytes);
        },
      };
      for (const disk of machine.disks) disk.watcher = watcher;
      return machine;
    });
  }

  observe(observer: Observer): void {
    this.#observers.push(observer);
  }

  machine(name: string): Machine {
    const found = this.machines.find((one) => one.name === name);
    if (found === undefined) throw new Error(`there is no machine ${name}`);
    return found;
  }

  /** A manager to ask: of the named host, or of the first that is up. */
  manager(via: string | null = null): Manager | null {
    const machines = via === null ? this.machines : [this.machine(via)];
    return machines.find((one) => one.host !== null && !one.isFrozen)?.host?.manager ?? null;
  }

  /** The world's side of a VM; guests of that name find it here. */
  addVm(name: string, diskBytes: readonly number[]): void {
    this.#vms.set(name, {
      truth: new DiskTruth(this.#vms.size + 1),
      random: this.random.stream(`guest ${name}`),
      diskBytes,
    });
  }

  vm(name: string): WorldVm {
    const found = this.#vms.get(name);
    if (found === undefined) throw new Error(`there is no VM ${name}`);
    return found;
  }

  sharedDisk(path: string): SharedDisk {
    let disk = this.#sharedDisks.get(path);
    if (disk === undefined) {
      disk = new SharedDisk(this.time, this.random.stream(`shared disk ${path}`), (problem) => {
        for (const one of this.#observers) one.staleWrite?.(path, problem);
      });
      this.#sharedDisks.set(path, disk);
    }
    return disk;
  }

  /** All is as it shall be: the story begins. */
  begin(): void {
    this.#zeroMs = this.time.now();
  }

  /** Milliseconds of the story; before its beginning, of true time. */
  nowMs(): number {
    return this.time.now() - (this.#zeroMs ?? 0);
  }

  /** Lets everything happen that is due up to a time of the story. */
  advanceTo(atMs: number): void {
    this.time.advanceTo(atMs + (this.#zeroMs ?? 0));
  }

  // ---- the networks -------------------------------------------------------------------------------

  networks(choice: 'storage' | 'ha' | 'both'): readonly VirtualNetwork[] {
    const all = [this.storageNetwork, this.haNetwork];
    if (choice === 'both' || this.options.networks === 'shared') return all;
    return choice === 'storage' ? [this.storageNetwork] : [this.haNetwork];
  }

  /** Cuts all links between hosts of different groups, and heals all others. */
  partition(choice: 'storage' | 'ha' | 'both', groups: readonly (readonly string[])[]): void {
    const groupOf = new Map(groups.flatMap((group, index) => group.map((name) => [name, index])));
    for (const network of this.networks(choice)) {
      for (const { name: a } of this.machines) {
        for (const { name: b } of this.machines) {
          if (a === b) continue;
          if (groupOf.get(a) === groupOf.get(b)) network.heal(a, b);
          else network.cut(a, b);
        }
      }
    }
  }

  isolate(choice: 'storage' | 'ha' | 'both', host: string): void {
    for (const { name } of this.machines) {
      if (name === host) continue;
      this.block(choice, host, name);
      this.block(choice, name, host);
    }
  }

  /** One direction only. */
  block(choice: 'storage' | 'ha' | 'both', from: string, to: string): void {
    for (const network of this.networks(choice)) network.cut(hostId(from), hostId(to));
  }

  heal(choice: 'storage' | 'ha' | 'both'): void {
    for (const network of this.networks(choice)) network.healAll();
  }

  /** Whether the two hosts hear each other on the network. */
  areLinked(choice: 'storage' | 'ha', a: HostId, b: HostId): boolean {
    const [network] = this.networks(choice);
    return a === b || (network?.isCut(a, b) === false && network.isCut(b, a) === false);
  }

  // ---- what the machines say ----------------------------------------------------------------------

  reached(machine: Machine, point: Point): void {
    for (const one of this.#observers) one.reached?.(machine, point);
  }

  guestChanged(machine: Machine, guest: VirtualGuest): void {
    for (const one of this.#observers) one.guestChanged?.(machine, guest);
  }

  misread(machine: Machine, guest: VirtualGuest, problem: string): void {
    for (const one of this.#observers) one.misread?.(machine, guest, problem);
  }

  acknowledged(machine: Machine, guest: VirtualGuest, stamp: Stamp, isDurable: boolean): void {
    for (const one of this.#observers) one.acknowledged?.(machine, guest, stamp, isDurable);
  }

  told(machine: Machine, event: ClusterEvent): void {
    for (const one of this.#observers) one.told?.(machine, event);
  }

  logged(machine: Machine, room: string, message: string): void {
    this.#line(room === '' ? machine.name : `${machine.name}/${room}`, message);
  }

  /** A line of the story that no host tells. */
  tell(message: string): void {
    this.#line('world', message);
  }

  #line(who: string, message: string): void {
    if (this.#zeroMs !== null)
      this.options.log?.(
        `${(this.nowMs() / 1000).toFixed(3)}s ${who}: ${this.#names.inText(message)}`,
      );
  }
}
