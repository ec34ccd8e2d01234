// The virtual world as tests use it: small clusters of like hosts, calls that wait, and a summary of what
// an outsider saw. All invariants of the simulator are checked along the way.

import type { Host } from '../../src/host/create-host.ts';
import type { VmRequest } from '../../src/manager/api.ts';
import type { HostId } from '../../src/model/ids.ts';
import { type Timings, timings } from '../../src/model/limits.ts';
import { isPathDisk } from '../../src/model/vm.ts';
import { inOwnTurn, settlePromises } from '../../src/platform/promises.ts';
import type { Point } from '../../src/ports/probe.ts';
import { Invariants } from '../../src/simulator/checkers/invariants.ts';
import type { DeviceSize } from '../../src/simulator/world/devices.ts';
import type { VirtualGuest } from '../../src/simulator/world/guest.ts';
import type { Machine as VirtualMachine } from '../../src/simulator/world/machine.ts';
import { World } from '../../src/simulator/world/world.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
/** Of each disk on storage that all hosts see. */
const sharedDiskBytes = 4 * MiB;

export class Cluster {
  readonly world: World;
  readonly machines: readonly Machine[];
  readonly log: string[] = [];
  readonly points: Point[] = [];
  readonly #invariants: Invariants;
  readonly #writes = new Map<string, number>();
  readonly #boots = new Map<string, number>();
  readonly #known = new Set<VirtualGuest>();

  constructor(options: {
    readonly hosts: number;
    readonly seed?: number;
    /** Where each host is. */
    readonly sites?: readonly string[];
    /** Of each host, beside its main one. */
    readonly devices?: readonly DeviceSize[];
    readonly timings?: Partial<Timings>;
  }) {
    this.world = new World({
      seed: options.seed ?? 1,
      hosts: Array.from({ length: options.hosts }, (_, index) => ({
        name: `host-${index + 1}`,
        kind: 'full' as const,
        site: options.sites?.[index] ?? null,
        drift: 0,
        cpus: 8,
        memoryBytes: 8 * GiB,
        diskBytes: 64 * GiB,
        devices: options.devices ?? [],
      })),
      networks: 'separate',
      loss: { storage: 0, ha: 0 },
      timings: { ...timings, ...options.timings },
      workload: { intervalMs: 200, blocks: 4 },
      settle: settlePromises(),
      log: (line) => this.log.push(line),
    });
    this.machines = this.world.machines.map((machine) => new Machine(this, machine));
    this.#invariants = new Invariants(this.world);
    this.world.begin();
    this.world.observe({
      reached: (_, point) => this.points.push(point),
      told: (machine, { type, vmName }) => {
        if (type !== 'vm.created' || vmName === undefined) return;
        const disks = machine.host?.manager.vm(vmName).spec.disks ?? [];
        this.world.addVm(
          vmName,
          disks.map((disk) => (isPathDisk(disk) ? sharedDiskBytes : disk.sizeBytes)),
        );
      },
      acknowledged: (_, guest) => count(this.#writes, guest.name),
      guestChanged: (_, guest) => {
        if (this.#known.has(guest)) return;
        this.#known.add(guest);
        count(this.#boots, guest.name);
      },
    });
  }

  machine(name: string): Machine {
    const found = this.machines.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no machine ${name}`);
    return found;
  }

  /** Makes the VM `web` with these disks, on the first three hosts if it is not said; all have heard of it then. */
  async makeWeb(request: Pick<VmRequest, 'disks'> & Partial<VmRequest>): Promise<void> {
    const { manager } = this.machine('host-1');
    const hosts = this.machines.slice(0, 3).map(({ name }) => name);
    await this.wait(manager.createVm({ name: 'web', memoryBytes: 96 * MiB, hosts, ...request }));
    await this.run(1000);
  }

  /** The same, and its guest writes on host-1. */
  async runWeb(request: Parameters<Cluster['makeWeb']>[0]): Promise<void> {
    await this.makeWeb(request);
    const { manager, name } = this.machine('host-1');
    await this.wait(manager.startVm('web', { on: name }));
    await this.run(3000);
  }

  now(): number {
    return this.world.nowMs();
  }

  async start(): Promise<void> {
    for (const machine of this.machines) machine.virtual.powerOn();
    await this.until(
      () => this.machines.every((one) => one.host?.manager.status().master != null),
      15_000,
    );
  }

  /** Lets time pass. */
  run(ms: number): Promise<void> {
    return inOwnTurn(() => this.world.time.advance(ms));
  }

  wait<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => undefined); // it may be rejected before anybody waits for it
    return inOwnTurn(() => this.world.time.await(promise));
  }

  async until(condition: () => boolean, limitMs: number): Promise<void> {
    const isSo = await inOwnTurn(() => this.world.time.advanceUntil(condition, limitMs));
    if (!isSo) throw new Error(`still not so after ${limitMs} ms of virtual time`);
  }

  /** Where instances of a VM run (not paused) now. */
  running(name: string): HostId[] {
    return this.machines.flatMap((machine) => (machine.isRunning(name) ? [machine.name] : []));
  }

  /** Writes of the VM's guests that were acknowledged. */
  writes(name: string): number {
    return this.#writes.get(name) ?? 0;
  }

  /** Guests of the VM that were started. */
  boots(name: string): number {
    return this.#boots.get(name) ?? 0;
  }

  /** No invariant was broken so far. */
  assertSafe(): void {
    const [first] = this.#invariants.violations;
    if (first !== undefined) throw new Error(`${first.invariant}: ${first.text}`);
  }
}

/** One machine of the world, with calls that wait. */
export class Machine {
  readonly virtual: VirtualMachine;
  readonly events: { readonly text: string }[] = [];
  readonly #cluster: Cluster;

  constructor(cluster: Cluster, virtual: VirtualMachine) {
    this.#cluster = cluster;
    this.virtual = virtual;
    cluster.world.observe({
      told: (machine, event) => {
        if (machine === virtual) this.events.push(event);
      },
    });
  }

  get name(): HostId {
    return this.virtual.name;
  }

  get disk() {
    return this.virtual.disk;
  }

  get guests() {
    return this.virtual.guests;
  }

  get host(): Host | null {
    return this.virtual.host;
  }

  get manager() {
    if (this.host === null) throw new Error(`${this.name} is down`);
    return this.host.manager;
  }

  isRunning(name: string): boolean {
    return this.virtual.guest(name)?.state === 'running';
  }

  guest(name: string): VirtualGuest {
    const guest = this.virtual.guest(name);
    if (guest === null) throw new Error(`${name} is not on ${this.name}`);
    return guest;
  }

  /** Switches the machine on, or starts its daemon, and waits until that is up. */
  async boot(): Promise<void> {
    this.virtual.powerOn();
    this.virtual.startDaemon();
    await this.#cluster.until(() => this.host !== null, 10_000);
  }

  /** kill -9 of the daemon: the guests go on until their deadlines. */
  killDaemon(): void {
    this.virtual.killDaemon();
  }

  /** Power off: daemon, guards, guests, and what was not synced. */
  crash(): void {
    this.virtual.cutPower();
  }
}

function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}
