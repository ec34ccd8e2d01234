// A cluster of HA modules on virtual time, with an object store and VM runners that are nothing but
// the test's word: what is accessible to whom, whose lease lasts how long, how a start ends.

import type { Ha, RunningVm, StartOptions, VmRunner } from '../../src/ha/api.ts';
import { createHa } from '../../src/ha/ha.ts';
import { type ErrorCode, HoldfastError } from '../../src/model/errors.ts';
import type { ClusterEvent } from '../../src/model/events.ts';
import {
  type Epoch,
  epoch,
  type HostId,
  hostId,
  objectId,
  type VmId,
  vmId,
} from '../../src/model/ids.ts';
import type { JsonValue } from '../../src/model/json.ts';
import { timings } from '../../src/model/limits.ts';
import { protectionKey, readProtection } from '../../src/model/protection.ts';
import { attemptsKey, type ProofOfDeath } from '../../src/model/restart.ts';
import type { RestartPriority } from '../../src/model/vm.ts';
import { createPeer, type Peer } from '../../src/peer/peer.ts';
import type { Log } from '../../src/ports/log.ts';
import { noProbe } from '../../src/ports/probe.ts';
import type { Accessibility, Storage, ValueOfVm, VmView } from '../../src/storage/api.ts';
import { MemoryNetwork } from './memory-network.ts';
import { SeededRandom } from './seeded-random.ts';
import { VirtualClock } from './virtual-clock.ts';

const MiB = 2 ** 20;

interface FakeVm {
  readonly vm: VmId;
  readonly name: string;
  readonly memoryBytes: number;
  readonly isProtected: boolean;
  readonly priority: RestartPriority;
  dataHosts: HostId[];
  holder: HostId | null;
  epoch: number;
  protection: JsonValue | undefined;
  attempts: JsonValue | undefined;
  /** Of the last start by HA. */
  proof: ProofOfDeath | null;
  /** Hosts that can not reach all its objects. */
  readonly hiddenFrom: Set<HostId>;
  revision: number;
}

interface Watcher {
  readonly host: HostId;
  readonly access: ((vms: readonly VmId[]) => void)[];
  readonly metadata: ((vms: readonly VmId[]) => void)[];
}

export interface FakeHost {
  readonly host: HostId;
  ha: Ha & { start(): void; stop(): void };
  readonly runner: FakeRunner;
  readonly peer: Peer;
  readonly events: ClusterEvent[];
  kill(): void;
  clock: ReturnType<VirtualClock['process']> & { frozen: boolean };
}

/** Runs what it is told to, after a delay, unless the test has other plans for its next starts. */
export class FakeRunner implements VmRunner {
  readonly host: HostId;
  startDelayMs = 100;
  readyDelayMs = 500;
  memoryBytes = 8192 * MiB;
  /** How the next starts end; `hang` never answers. */
  plans: (ErrorCode | 'hang')[] = [];
  starts: VmId[] = [];
  /** Guests that were ended because they hung. */
  ended: VmId[] = [];
  inFlight = new Map<VmId, number>();
  mostInFlight = 0;
  readonly vms = new Map<VmId, RunningVm>();
  readonly #cluster: HaCluster;
  readonly #listeners: (() => void)[] = [];

  constructor(host: HostId, cluster: HaCluster) {
    this.host = host;
    this.#cluster = cluster;
  }

  async start(vm: VmId, options: StartOptions): Promise<Epoch> {
    const fake = this.#cluster.vm(vm);
    this.starts.push(vm);
    const flying = (this.inFlight.get(vm) ?? 0) + 1;
    this.inFlight.set(vm, flying);
    this.mostInFlight = Math.max(
      this.mostInFlight,
      [...this.inFlight.values()].reduce((a, b) => a + b, 0),
    );
    if (flying > 1 && options.byHa)
      this.#cluster.violations.push(`two starts of ${vm} on ${this.host}`);
    try {
      await this.#cluster.sleep(this.startDelayMs / 2);
      const plan = this.plans.shift();
      if (plan === 'hang') await new Promise(() => {});
      if (plan !== undefined)
        throw new HoldfastError(plan as ErrorCode, `${this.host} says ${plan}`);
      if (fake.hiddenFrom.has(this.host)) throw new HoldfastError('inaccessible', 'no majority');
      if (this.#cluster.remainingMs(fake) > 0)
        throw new HoldfastError('lock-held', `${fake.holder} holds it`);
      if (options.byHa && readProtection(fake.protection)?.protected !== true) {
        throw new HoldfastError('not-protected', 'switched off');
      }
      fake.holder = this.host;
      fake.epoch += 1;
      fake.revision += 1;
      if (options.proof !== undefined) fake.proof = options.proof;
      const at = epoch(fake.epoch);
      this.#set({ ...this.#row(fake, at), state: 'starting' });
      await this.#cluster.sleep(this.startDelayMs / 2);
      if (this.#cluster.isDown(this.host)) throw new HoldfastError('stopped', 'dead');
      this.#set({ ...this.#row(fake, at), state: 'running' });
      void this.#cluster.sleep(this.readyDelayMs).then(() => {
        const now = this.vms.get(vm);
        if (now?.epoch === at) this.#set({ ...now, ready: true });
      });
      return at;
    } finally {
      this.inFlight.set(vm, (this.inFlight.get(vm) ?? 1) - 1);
    }
  }

  /** As the user's power-off: the lock is given back and the protection cleared in one change. */
  powerOff(vm: VmId): void {
    const fake = this.#cluster.vm(vm);
    this.#cluster.hosts.get(this.host)?.ha.poweredOff(vm, epoch(fake.epoch));
    fake.holder = null;
    fake.revision += 1;
    fake.protection = {
      protected: false,
      epoch: fake.epoch,
      priority: 'medium',
      memoryBytes: 1,
      cpus: 1,
    };
    this.vms.delete(vm);
    this.#cluster.notifyMetadata(vm);
    this.changed();
  }

  /** The guest's process ends; the lock is given back, the protection stays. */
  guestExits(vm: VmId): void {
    const fake = this.#cluster.vm(vm);
    if (this.vms.delete(vm)) fake.holder = null;
    this.changed();
  }

  /** The guest hangs, or is heard again. */
  hangs(vm: VmId, hung: boolean): void {
    const row = this.vms.get(vm);
    if (row !== undefined) this.#set({ ...row, hung });
  }

  async endHung(vm: VmId, at: Epoch): Promise<void> {
    const row = this.vms.get(vm);
    if (row?.hung !== true || row.epoch !== at) {
      throw new HoldfastError('conflict', `${vm} does not hang here`);
    }
    this.ended.push(vm);
    this.guestExits(vm);
  }

  /** The guest stands for want of a lease, or goes on. */
  stands(vm: VmId, isPaused: boolean): void {
    const row = this.vms.get(vm);
    if (row !== undefined) this.#set({ ...row, state: isPaused ? 'paused' : 'running' });
  }

  running = (): RunningVm[] => [...this.vms.values()];
  capacity = () => ({ cpus: 4, memoryBytes: this.memoryBytes });
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  #row(fake: FakeVm, at: Epoch): RunningVm {
    const { vm, name, memoryBytes } = fake;
    return {
      vm,
      name,
      epoch: at,
      state: 'starting',
      ready: false,
      hung: false,
      cpus: 1,
      memoryBytes,
    };
  }

  #set(row: RunningVm): void {
    this.vms.set(row.vm, row);
    this.changed();
  }
}

export class HaCluster {
  readonly clock = new VirtualClock();
  readonly random: SeededRandom;
  readonly network: MemoryNetwork;
  readonly hosts = new Map<HostId, FakeHost>();
  readonly violations: string[] = [];
  readonly log: string[] = [];
  /** Hosts that the storage network separates, by group; hosts of no group reach everybody. */
  storageGroups: HostId[][] = [];
  leaseMs = 4000;
  /** How the next SETs end. */
  setPlans: (ErrorCode | number)[] = [];
  sets: string[] = [];
  /** VMs of which a voter has a change that nobody has decided: that its user switches it off. */
  readonly halfOff = new Set<VmId>();
  gets = 0;
  readonly #vms = new Map<VmId, FakeVm>();
  readonly #watchers = new Map<HostId, Watcher>();
  readonly #diedAt = new Map<HostId, number>();
  /** Hosts that live and can not renew their leases, and since when. */
  readonly #cutOffAt = new Map<HostId, number>();
  readonly #names: HostId[];
  readonly #witnesses: ReadonlySet<HostId>;

  constructor(
    names: readonly string[],
    options: { seed?: number; witnesses?: readonly string[] } = {},
  ) {
    this.random = new SeededRandom(options.seed ?? 1);
    this.network = new MemoryNetwork(this.clock, this.random.stream('network'));
    this.#names = names.map(hostId);
    this.#witnesses = new Set((options.witnesses ?? []).map(hostId));
  }

  host(name: string): FakeHost {
    const host = this.hosts.get(hostId(name));
    if (host === undefined) throw new Error(`no host ${name}`);
    return host;
  }

  boot(...names: string[]): void {
    for (const name of names.length === 0 ? this.#names : names.map(hostId)) this.#boot(name);
  }

  #boot(host: HostId): void {
    this.#diedAt.delete(host);
    for (const fake of this.#vms.values()) {
      if (fake.holder === host) fake.holder = null; // as a host releases what it does not run
    }
    const process = this.clock.process();
    const clock = freezable(process);
    const log = this.#logOf(host);
    const transport = this.network.attach(host);
    const peer = createPeer({ self: host, network: 'ha', transport, clock, log });
    const runner = new FakeRunner(host, this);
    const events: ClusterEvent[] = [];
    this.#watchers.set(host, { host, access: [], metadata: [] });
    const ha = createHa({
      self: host,
      kind: this.#witnesses.has(host) ? 'witness' : 'full',
      members: () => this.#names,
      peer,
      clock,
      random: this.random.stream(`${host}/${this.clock.now()}`),
      log,
      probe: noProbe,
      timings,
      storage: this.#storageOf(host),
      runner,
      emit: (event) => void events.push(event),
    });
    peer.start();
    transport.setPeers(new Map(this.#names.filter((it) => it !== host).map((it) => [it, it])));
    ha.start();
    const kill = () => {
      process.kill();
      this.network.detach(host);
      this.#watchers.delete(host);
      this.#diedAt.set(host, this.clock.now());
      runner.vms.clear();
      this.hosts.delete(host);
    };
    this.hosts.set(host, { host, ha, runner, peer, events, kill, clock });
  }

  addVm(
    name: string,
    options: {
      memoryMiB?: number;
      isProtected?: boolean;
      priority?: RestartPriority;
      data?: string[];
    } = {},
  ): VmId {
    const vm = vmId(name);
    this.#vms.set(vm, {
      vm,
      name,
      memoryBytes: (options.memoryMiB ?? 1024) * MiB,
      isProtected: options.isProtected ?? true,
      priority: options.priority ?? 'medium',
      dataHosts: (options.data ?? []).map(hostId),
      holder: null,
      epoch: 0,
      protection: undefined,
      attempts: undefined,
      proof: null,
      hiddenFrom: new Set(),
      revision: 1,
    });
    return vm;
  }

  vm(vm: VmId): FakeVm {
    const fake = this.#vms.get(vm);
    if (fake === undefined) throw new Error(`no VM ${vm}`);
    return fake;
  }

  /** A user's power-on on that host. */
  async powerOn(vm: VmId, on: string): Promise<void> {
    const { runner, ha } = this.host(on);
    ha.poweredOn(vm, await this.clock.wait(runner.start(vm, { byHa: false })));
  }

  /** Makes a VM's objects inaccessible to these hosts, or (without) accessible to all. */
  hide(vm: VmId, from: readonly string[]): void {
    const fake = this.vm(vm);
    const before = new Set(fake.hiddenFrom);
    fake.hiddenFrom.clear();
    for (const host of from) fake.hiddenFrom.add(hostId(host));
    for (const host of before) {
      if (fake.hiddenFrom.has(host)) continue;
      for (const listener of this.#watchers.get(host)?.access ?? []) listener([vm]);
    }
  }

  runsOn(vm: VmId): string[] {
    return [...this.hosts.values()].filter((it) => it.runner.vms.has(vm)).map((it) => it.host);
  }

  masters(): string[] {
    return [...this.hosts.values()]
      .filter((it) => it.ha.master() === it.host)
      .map((it) => it.host)
      .sort();
  }

  run(ms: number): Promise<void> {
    return this.clock.run(ms);
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.clock.after(ms, resolve));
  }

  isDown(host: HostId): boolean {
    return this.#diedAt.has(host);
  }

  errors(): string[] {
    return this.log.filter((line) => line.includes(' error '));
  }

  remainingMs(fake: FakeVm): number {
    if (fake.holder === null) return 0;
    const diedAt = this.#diedAt.get(fake.holder) ?? this.#cutOffAt.get(fake.holder);
    if (diedAt === undefined) return this.hosts.has(fake.holder) ? this.leaseMs : 0;
    return Math.max(0, diedAt + this.leaseMs - this.clock.now());
  }

  /** From now on the host renews no lease. */
  leaseEnds(host: HostId): void {
    this.#cutOffAt.set(host, this.clock.now());
  }

  notifyMetadata(vm: VmId): void {
    for (const watcher of this.#watchers.values()) {
      if (this.vm(vm).hiddenFrom.has(watcher.host)) continue;
      this.clock.after(1, () => {
        for (const listener of watcher.metadata) listener([vm]);
      });
    }
  }

  reaches(a: HostId, b: HostId): boolean {
    if (a === b) return true;
    if (!this.hosts.has(b)) {
      const diedAt = this.#diedAt.get(b);
      return diedAt !== undefined && this.clock.now() - diedAt < timings.failAfterMs;
    }
    const group = this.storageGroups.find((it) => it.includes(a));
    return (
      group === undefined || group.includes(b) || !this.storageGroups.some((it) => it.includes(b))
    );
  }

  #access(host: HostId, vm: VmId): Accessibility {
    if (!this.vm(vm).hiddenFrom.has(host)) return { accessible: true };
    return {
      accessible: false,
      object: objectId(`${vm}-ns`),
      hosts: [],
      text: `${vm} lacks a majority`,
    };
  }

  #view(host: HostId, fake: FakeVm): VmView {
    const { vm, name, memoryBytes, isProtected, priority, dataHosts, holder } = fake;
    const spec = {
      name,
      cpus: 1,
      memoryBytes,
      boot: 'disk',
      disks: [],
      protected: isProtected,
      priority,
    };
    const lock = { holder, epoch: epoch(fake.epoch) };
    const accessible = this.#access(host, vm);
    const detached: string[] = [];
    return {
      vm,
      name,
      spec,
      lifecycle: 'ready',
      lock,
      repairedBy: null,
      accessible,
      dataHosts,
      detached,
      revision: fake.revision,
    };
  }

  async #set(
    host: HostId,
    vm: VmId,
    key: string,
    value: JsonValue,
    at: number | undefined,
  ): Promise<void> {
    const fake = this.vm(vm);
    const plan = key === protectionKey ? this.setPlans.shift() : undefined;
    if (key === protectionKey) this.sets.push(`${vm} by ${host}`);
    await this.sleep(typeof plan === 'number' ? plan : 5);
    if (typeof plan === 'string') throw new HoldfastError(plan, 'as planned');
    if (fake.hiddenFrom.has(host))
      throw new HoldfastError('inaccessible', `${vm} lacks a majority`);
    if (at !== undefined && (fake.holder === null || fake.epoch !== at)) {
      throw new HoldfastError('conflict', `${vm} is not held at epoch ${at}`);
    }
    if (key === attemptsKey) fake.attempts = value;
    else fake.protection = value;
    fake.revision += 1;
    this.notifyMetadata(vm);
  }

  #storageOf(host: HostId): Storage {
    const unused = () => {
      throw new Error('not used by HA');
    };
    return {
      setDiskPolicy: unused,
      setMetadata: (vm, _service, key, value, condition) =>
        this.#set(host, vm, key, value, condition?.heldAtEpoch),
      getMetadata: (_service, key) => {
        if (key === protectionKey) this.gets += 1;
        const values: ValueOfVm[] = [];
        for (const fake of this.#vms.values()) {
          const value = key === attemptsKey ? fake.attempts : fake.protection;
          if (value !== undefined && !fake.hiddenFrom.has(host))
            values.push({ vm: fake.vm, value });
        }
        return { values, objectReads: 0 };
      },
      accessibility: (vms = [...this.#vms.values()].map(({ vm }) => vm)) =>
        new Map(vms.map((vm) => [vm, this.#access(host, vm)])),
      watchAccessibility: (listener) => void this.#watchers.get(host)?.access.push(listener),
      watchMetadata: (_service, listener) => void this.#watchers.get(host)?.metadata.push(listener),
      reachableHosts: () => this.#names.filter((it) => this.reaches(host, it)),
      hosts: () => [],
      vms: () => [...this.#vms.values()].map((fake) => this.#view(host, fake)),
      vm: (vm) => {
        const fake = this.#vms.get(vm);
        return fake === undefined ? null : this.#view(host, fake);
      },
      lockStatus: async (vm) => {
        const fake = this.vm(vm);
        await this.sleep(2);
        if (fake.hiddenFrom.has(host))
          throw new HoldfastError('inaccessible', `${vm} lacks a majority`);
        return {
          holder: fake.holder,
          epoch: epoch(fake.epoch),
          isProtected: readProtection(fake.protection)?.protected === true && !this.halfOff.has(vm),
          remainingMs: this.remainingMs(fake),
        };
      },
      vmNamed: unused,
      leaseDeadline: () => null,
      hasStore: () => true,
      withhold: unused,
      objects: () => [],
      object: () => null,
      setRequired: async () => {},
      setAllMetadata: async () => [],
      knowledge: unused,
      learn: unused,
      onLease: () => {},
      createVm: unused,
      removeVm: unused,
      lock: unused,
      adopt: unused,
      unlock: unused,
      openDisks: unused,
    };
  }

  #logOf(host: HostId): Log {
    const write = (level: string) => (message: string) => {
      this.log.push(`${(this.clock.now() / 1000).toFixed(3)}s ${host} ${level} ${message}`);
    };
    const log: Log = {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: () => log,
    };
    return log;
  }
}

/** A process clock whose timers stand still while `frozen`, and fire late. */
function freezable(process: ReturnType<VirtualClock['process']>) {
  const clock = {
    ...process,
    frozen: false,
    after(delayMs: number, callback: () => void) {
      const late = (): void => {
        if (clock.frozen) process.after(50, late);
        else callback();
      };
      return process.after(delayMs, late);
    },
    defer: (callback: () => void) => void clock.after(0, callback),
  };
  return clock;
}
