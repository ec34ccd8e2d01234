// Hosts with the production store and clocks that run at different rates, and guests that obey
// nothing but the deadlines that their guards were given. A VM without disks is enough: what counts
// is how many of its instances run at the same instant of true time.

import { HoldfastError } from '../../src/model/errors.ts';
import {
  type Epoch,
  epoch,
  type HostId,
  hostId,
  incarnation,
  type VmId,
} from '../../src/model/ids.ts';
import type { JsonValue } from '../../src/model/json.ts';
import { timings } from '../../src/model/limits.ts';
import type { NamespaceRecord } from '../../src/model/record.ts';
import { createPeer, type Peer } from '../../src/peer/peer.ts';
import type { Clock } from '../../src/ports/clock.ts';
import { noProbe } from '../../src/ports/probe.ts';
import { createProposer } from '../../src/storage/register/proposer.ts';
import { createStore, type Store } from '../../src/storage/store.ts';
import { MemoryDisk } from './memory-disk.ts';
import { MemoryNetwork } from './memory-network.ts';
import { MemoryStreams } from './memory-streams.ts';
import { SeededRandom } from './seeded-random.ts';
import { SilentLog } from './silent-log.ts';
import { VirtualClock } from './virtual-clock.ts';

interface Guest {
  readonly vm: VmId;
  readonly epoch: Epoch;
  /** By the clock of its host. */
  deadlineMs: number;
  paused: boolean;
}

/** A clock that runs `rate` times as fast as true time. */
function drifting(clock: Clock & { kill(): void }, rate: number): Clock & { kill(): void } {
  return {
    now: () => clock.now() * rate,
    wallTime: () => clock.wallTime(),
    after: (delayMs, callback) => clock.after(delayMs / rate, callback),
    defer: (callback) => clock.defer(callback),
    kill: () => clock.kill(),
  };
}

export class LeaseHost {
  readonly name: HostId;
  readonly disk: MemoryDisk;
  readonly rate: number;
  guest: Guest | null = null;
  store: Store | null = null;
  peer: (Peer & { start(): void }) | null = null;
  clock: (Clock & { kill(): void }) | null = null;
  isBusy = false;
  readonly #world: LeaseWorld;
  #runs = 0;

  constructor(world: LeaseWorld, name: HostId, rate: number) {
    this.#world = world;
    this.name = name;
    this.rate = rate;
    this.disk = new MemoryDisk(world.clock);
  }

  get isRunning(): boolean {
    const { guest } = this;
    return (
      guest !== null && !guest.paused && this.#world.clock.now() * this.rate < guest.deadlineMs
    );
  }

  /** Starts the daemon; a guest that is still under its guard is adopted. */
  async boot(): Promise<void> {
    const world = this.#world;
    this.#runs += 1;
    const run = this.#runs;
    const clock = drifting(world.clock.process(), this.rate);
    const random = new SeededRandom(`${world.seed} ${this.name} ${run}`);
    const transport = world.network.attach(this.name);
    const peer = createPeer({
      self: this.name,
      network: 'storage',
      transport,
      clock,
      log: world.log,
    });
    this.clock = clock;
    const store = await world.clock.wait(
      createStore({
        peer,
        clock,
        random,
        log: world.log,
        probe: noProbe,
        cluster: 'leases',
        disk: this.disk.attach(),
        streams: new MemoryStreams(world.clock).attach(),
        timings,
        members: () => world.hosts.map(({ name }) => ({ host: name, kind: 'full' })),
        socketPath: (vm, disk) => `${vm}/${disk}`,
        capacityBytes: null,
        emit: () => {},
      }),
    );
    if (this.#runs !== run || this.clock !== clock) return;
    this.store = store;
    this.peer = peer;
    store.onLease({
      extended: (vm, deadlineMs) => this.#extend(vm, deadlineMs),
      lapsed: (vm, stoodStill) => {
        if (this.guest?.vm === vm) this.guest.paused = true;
        stoodStill();
      },
      regained: (vm, deadlineMs) => this.#extend(vm, deadlineMs),
      lost: (vm) => {
        world.note(`${this.name} has lost its lock`);
        if (this.guest?.vm === vm) this.guest = null;
      },
    });
    peer.start();
    const others = world.hosts.filter((other) => other !== this).map(({ name }) => name);
    transport.setPeers(new Map(others.map((name) => [name, ''])));
    if (this.guest !== null) store.adopt(this.guest.vm, this.guest.epoch);
    store.start();
    store.releaseForgotten();
  }

  #extend(vm: VmId, deadlineMs: number): void {
    const { guest } = this;
    if (guest === null || guest.vm !== vm) return;
    // A guard does not resume of itself; the daemon does, with a deadline that is valid now.
    if (guest.paused || !this.isRunning) this.#world.note(`${this.name} resumes`);
    guest.paused = false;
    guest.deadlineMs = Math.max(guest.deadlineMs, deadlineMs);
  }

  run(vm: VmId, held: Epoch): void {
    const deadlineMs = this.store?.leaseDeadline(vm) ?? null;
    if (deadlineMs === null) return;
    this.#world.note(`${this.name} runs it with epoch ${held}`);
    this.guest = { vm, epoch: held, deadlineMs, paused: false };
  }

  /** `power`: the whole machine; else the daemon alone, and the guest goes on under its guard. */
  crash(power: boolean): void {
    this.#world.note(`${power ? 'cut power of' : 'kill daemon of'} ${this.name}`);
    this.clock?.kill();
    this.clock = null;
    this.store = null;
    this.peer = null;
    this.isBusy = false;
    this.#world.network.detach(this.name);
    if (!power) return this.disk.kill(this.#world.random);
    this.guest = null;
    this.disk.cutPower(this.#world.random);
  }

  take(): void {
    const { store } = this;
    if (store === null || this.isBusy || this.guest !== null) return;
    this.#during(async () => {
      const { vm } = this.#world;
      const held = await store.lock(vm);
      if (this.store !== store) return;
      this.run(vm, held);
      if (this.guest === null) await store.unlock(vm, held);
    });
  }

  release(): void {
    const { store, guest } = this;
    if (store === null || guest === null || this.isBusy) return;
    this.#world.note(`${this.name} releases`);
    this.guest = null;
    this.#during(() => store.unlock(guest.vm, guest.epoch));
  }

  /** Proposes itself as the holder without asking anybody about leases first. */
  takeRudely(): void {
    const { store, peer, clock } = this;
    if (store === null || peer === null || clock === null || this.isBusy || this.guest !== null)
      return;
    const { vm, random, voters, object } = this.#world;
    this.#runs += 1;
    const proposer = createProposer({
      peer,
      clock,
      random,
      probe: noProbe,
      timings,
      incarnation: incarnation(1_000_000 + this.#runs),
      onCommitted: (record, ballot) => {
        const entries = [{ record, ballot }] as unknown as JsonValue;
        for (const host of peer.connected()) peer.send(host, 'directory.announce', entries);
      },
    });
    this.#world.note(`${this.name} takes it rudely`);
    this.#during(async () => {
      let wanted: Epoch = epoch(0);
      try {
        const outcome = await new Promise<Parameters<Parameters<typeof proposer.change>[3]>[0]>(
          (resolve) =>
            proposer.change(
              { object, voting: { voters } },
              (current) => {
                if (current?.kind !== 'namespace')
                  return { refuse: new HoldfastError('conflict', 'gone') };
                wanted = epoch(current.lock.epoch + 1);
                return { write: { ...current, lock: { holder: this.name, epoch: wanted } } };
              },
              {},
              resolve,
            ),
        );
        if (this.store !== store) return;
        if (outcome.status === 'committed') {
          wanted = (outcome.record as NamespaceRecord).lock.epoch;
          this.#world.note(`${this.name} has taken it with epoch ${wanted}`);
          store.adopt(vm, wanted);
          for (let tries = 0; tries < 100 && this.store === store; tries += 1) {
            if (store.leaseDeadline(vm) !== null) return this.run(vm, wanted);
            await new Promise<void>((resolve) => clock.after(20, resolve));
          }
        }
      } finally {
        proposer.stop();
        if (this.store === store && this.guest === null) await store.unlock(vm, wanted);
      }
    });
  }

  #during(step: () => Promise<void>): void {
    const { store } = this;
    this.isBusy = true;
    step()
      .catch((error: unknown) => this.#world.note(`${this.name}: ${String(error)}`))
      .finally(() => {
        if (this.store === store) this.isBusy = false;
      });
  }
}

export class LeaseWorld {
  readonly clock = new VirtualClock();
  readonly seed: number | string;
  readonly random: SeededRandom;
  readonly network: MemoryNetwork;
  readonly log = new SilentLog();
  readonly hosts: LeaseHost[];
  readonly trace: string[] = [];
  problem: string | null = null;
  vm!: VmId;
  object!: NamespaceRecord['id'];
  voters: NamespaceRecord['voters'] = [];

  constructor(options: { readonly seed: number | string; readonly hosts: number }) {
    this.seed = options.seed;
    this.random = new SeededRandom(options.seed);
    this.network = new MemoryNetwork(this.clock, this.random.stream('network'), {
      maxDelayMs: 5,
      detectMs: 100,
    });
    this.hosts = Array.from(
      { length: options.hosts },
      (_, index) =>
        new LeaseHost(this, hostId(`host-${index + 1}`), 0.99 + 0.02 * this.random.next()),
    );
  }

  /** Boots the hosts, and lets them hear of each other. */
  async boot(): Promise<void> {
    for (const host of this.hosts) {
      host.disk.capacityBytes = 2 ** 30;
      await host.boot();
    }
    await this.clock.run(1500);
  }

  /** Boots the hosts and makes the VM with as many voters as its policy asks for. */
  async start(voters: number): Promise<void> {
    await this.boot();
    const store = this.hosts[0]?.store as Store;
    const failuresToTolerate = (voters - 1) / 2;
    const creating = store.createVm({
      name: 'vm',
      cpus: 1,
      memoryBytes: 0,
      boot: 'none',
      disks: [{ name: 'disk0', sizeBytes: 4096, policy: { failuresToTolerate, stripes: 1 } }],
      protected: false,
      priority: 'medium',
    });
    this.vm = await this.clock.wait(creating);
    const entries = store.knowledge(this.vm) as unknown as { record: NamespaceRecord }[];
    const { record } = entries[0] as { record: NamespaceRecord };
    this.object = record.id;
    this.voters = record.voters;
    await this.clock.run(6000);
  }

  note(text: string): void {
    this.trace.push(`${this.clock.now().toFixed(1)} ${text}`);
  }

  /** Runs, looking after every event whether two instances run. */
  async run(ms: number): Promise<void> {
    const untilMs = this.clock.now() + ms;
    do {
      await new Promise((resolve) => setImmediate(resolve));
      const running = this.hosts.filter((host) => host.isRunning).map(({ name }) => name);
      if (running.length > 1) {
        this.problem ??= `at ${this.clock.now()} it runs on ${running.join(' and ')}`;
      }
    } while (this.problem === null && this.clock.step(untilMs));
  }
}
