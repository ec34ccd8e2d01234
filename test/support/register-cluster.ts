// Hosts that have nothing but registers, on virtual time, network and disks. The register under test
// holds a text (the record's `name`); an operation appends its own letter, so that a text tells which
// operations took effect, in which order, and whether one did so twice.

import { type Ballot, compareBallots, formatBallot } from '../../src/model/ballot.ts';
import { HoldfastError } from '../../src/model/errors.ts';
import { epoch, type HostId, hostId, objectId, revision, vmId } from '../../src/model/ids.ts';
import { timings } from '../../src/model/limits.ts';
import { defaultPolicy } from '../../src/model/policy.ts';
import {
  type Lock,
  type NamespaceRecord,
  type ObjectRecord,
  type Voter,
  votingOf,
} from '../../src/model/record.ts';
import { createPeer, type Peer } from '../../src/peer/peer.ts';
import type { Clock } from '../../src/ports/clock.ts';
import { noProbe } from '../../src/ports/probe.ts';
import {
  type Journal,
  type JournalBounds,
  openJournal,
} from '../../src/storage/journal/journal.ts';
import type { Admission } from '../../src/storage/register/admission.ts';
import type { ChangeOptions, Outcome } from '../../src/storage/register/outcome.ts';
import { createRegisters, type Registers } from '../../src/storage/register/registers.ts';
import type { Operation } from './linearizability.ts';
import { MemoryDisk } from './memory-disk.ts';
import { MemoryNetwork, type NetworkFaults } from './memory-network.ts';
import { SeededRandom } from './seeded-random.ts';
import { SilentLog } from './silent-log.ts';
import { VirtualClock } from './virtual-clock.ts';

export const object = objectId('object-1');

export const admitAll: Admission = { admit: () => 0, learned: () => {} };

export interface ClusterOptions {
  readonly seed: number | string;
  readonly hosts?: number;
  /** The first so many hosts vote. */
  readonly voters?: number;
  readonly network?: Partial<NetworkFaults>;
  readonly bounds?: Partial<JournalBounds>;
  readonly admission?: (host: HostId) => Admission;
  /** Puts a deliberate mistake between a host and its journal. */
  readonly journal?: (journal: Journal) => Journal;
}

interface Running {
  readonly clock: Clock & { kill(): void };
  readonly peer: Peer & { start(): void };
  readonly journal: Journal;
  readonly registers: Registers;
}

export class RegisterCluster {
  readonly clock = new VirtualClock();
  readonly random: SeededRandom;
  readonly network: MemoryNetwork;
  readonly log = new SilentLog();
  readonly hosts: HostId[];
  readonly disks = new Map<HostId, MemoryDisk>();
  readonly running = new Map<HostId, Running>();
  /** What was announced as committed anywhere. */
  readonly committed: { readonly record: ObjectRecord; readonly ballot: Ballot }[] = [];
  readonly history: Operation<string>[] = [];
  readonly outcomes = new Map<string, number>();
  voters: Voter[] = [];
  readonly #options: ClusterOptions;
  readonly #knowledge: SeededRandom;
  #isToldNewest = false;
  #runs = 0;
  #letters = 0;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.random = new SeededRandom(options.seed);
    this.#knowledge = this.random.stream('knowledge');
    this.network = new MemoryNetwork(this.clock, this.random.stream('network'), options.network);
    this.hosts = Array.from({ length: options.hosts ?? 3 }, (_, index) =>
      hostId(`host-${index + 1}`),
    );
  }

  async start(): Promise<void> {
    for (const host of this.hosts) {
      this.disks.set(host, new MemoryDisk(this.clock));
      await this.startHost(host);
    }
    this.voters = this.hosts.slice(0, this.#options.voters ?? 3).map((host) => {
      const store = this.registers(host).store;
      if (store === null) throw new Error('no store');
      return { host, store, joined: 1 };
    });
    await this.clock.run(5);
  }

  async startHost(host: HostId): Promise<void> {
    const clock = this.clock.process();
    this.#runs += 1;
    const random = new SeededRandom(`${this.#options.seed}/${host}/${this.#runs}`);
    const journal = await this.clock.wait(
      openJournal({
        disk: this.disk(host).attach(),
        folder: 'registers',
        host,
        random,
        log: this.log,
        clock,
        bounds: this.#options.bounds ?? {},
      }),
    );
    const transport = this.network.attach(host);
    const peer = createPeer({ self: host, network: 'storage', transport, clock, log: this.log });
    const registers = createRegisters({
      peer,
      clock,
      random,
      log: this.log,
      probe: noProbe,
      journal: this.#options.journal?.(journal) ?? journal,
      admission: this.#options.admission?.(host) ?? admitAll,
      timings,
      onCommitted: (record, ballot) => this.committed.push({ record, ballot }),
      onLearned: (record, ballot) => this.committed.push({ record, ballot }),
      // As the directories do it: the answer comes later, if the host is still there.
      onMissed: (of) => {
        const known = this.committed.findLast(({ ballot }) => ballot.host === of);
        this.#note('missed');
        if (known === undefined) return;
        clock.after(this.#knowledge.next() * 20, () => registers.learn(known.record, known.ballot));
      },
    });
    this.running.set(host, { clock, peer, journal, registers });
    peer.start();
    transport.setPeers(
      new Map(this.hosts.filter((other) => other !== host).map((other) => [other, ''])),
    );
    registers.start();
  }

  /** The host stops at once; `power`: and loses un-synced writes. */
  crash(host: HostId, power = true): void {
    this.running.get(host)?.clock.kill();
    this.running.delete(host);
    this.network.detach(host);
    if (power) this.disk(host).cutPower(this.random.stream('disk'));
    else this.disk(host).kill(this.random.stream('disk'));
  }

  disk(host: HostId): MemoryDisk {
    return this.disks.get(host) as MemoryDisk;
  }

  registers(host: HostId): Registers {
    const running = this.running.get(host);
    if (running === undefined) throw new Error(`${host} is not running`);
    return running.registers;
  }

  /** As a directory would have it, which may lag behind by any number of changes. */
  get target() {
    const lag = this.#isToldNewest ? 0 : this.#knowledge.below(20);
    const known = this.committed.at(-1 - lag)?.record;
    return { object, voting: known === undefined ? { voters: this.voters } : votingOf(known) };
  }

  record(name: string, lock: Lock = { holder: null, epoch: epoch(0) }, at = 1): NamespaceRecord {
    return {
      kind: 'namespace',
      id: object,
      vm: vmId('vm-1'),
      revision: revision(at),
      policy: defaultPolicy,
      voters: this.voters,
      name,
      lifecycle: 'ready',
      lock,
      metadata: {},
      files: {},
      disks: [],
    };
  }

  /** Creates the register with an empty text. */
  async create(host = this.hosts[0] as HostId): Promise<void> {
    const outcome = await this.clock.wait(
      this.registers(host).changed({ ...this.target, create: true }, (current) =>
        current === null
          ? { write: this.record('') }
          : { refuse: new HoldfastError('conflict', 'it is there already') },
      ),
    );
    if (outcome.status !== 'committed') throw new Error(`not created: ${JSON.stringify(outcome)}`);
  }

  change(
    host: HostId,
    edit: (current: NamespaceRecord) => NamespaceRecord | null,
    options: ChangeOptions = {},
  ): Promise<Outcome> {
    const decide = (current: ObjectRecord | null) => {
      const edited = current?.kind === 'namespace' ? edit(current) : null;
      if (edited === null) return { refuse: new HoldfastError('conflict', 'not as it should be') };
      return { write: { ...edited, revision: revision(edited.revision + 1) } };
    };
    return this.registers(host).changed(this.target, decide, options);
  }

  /** Takes the next step of a change of voters: ends the one under way, or begins to replace one of
   * them by a host that is none. The text stays, so the history does not hear of it. */
  changeVoters(host: HostId): void {
    const joining = this.#knowledge.pick(this.hosts);
    const leaving = this.#knowledge.below(this.voters.length);
    const store = this.running.get(joining)?.registers.store;
    const change = this.change(host, (current) => {
      const { nextVoters, ...rest } = current;
      if (nextVoters !== undefined) return { ...rest, voters: nextVoters };
      if (!store || current.voters.some((voter) => voter.host === joining)) return null;
      const joined = 1 + Math.max(...current.voters.map((voter) => voter.joined));
      const added = { host: joining, store, joined };
      return { ...rest, nextVoters: current.voters.with(leaving, added) };
    });
    void change.then((outcome) => this.#note(`voters ${outcome.status}`));
  }

  /** Appends a letter of its own, and notes in the history what came of it; `picky`: only to a text
   * of even length; `prefer`: see `ChangeOptions`. */
  append(host: HostId, picky = false, options: ChangeOptions = {}): void {
    const letter = String.fromCodePoint(0x100 + this.#letters++);
    const invokedAt = this.clock.now();
    const apply = (expected: string | null) => (state: string) => {
      const next = state + letter;
      return expected === null || expected === next ? next : null;
    };
    const name = `${host} appends ${letter}`;
    // Until something better is known: it may happen at any time, as when its host crashes.
    let entry: Operation<string> = {
      name,
      invokedAt,
      returnedAt: Number.POSITIVE_INFINITY,
      apply: apply(null),
    };
    this.history.push(entry);
    const edit = (current: NamespaceRecord) =>
      picky && current.name.length % 2 === 1 ? null : { ...current, name: current.name + letter };
    void this.change(host, edit, options).then((outcome) => {
      this.#count(outcome);
      const index = this.history.indexOf(entry);
      if (outcome.status === 'committed') {
        const result = (outcome.record as NamespaceRecord).name;
        entry = {
          ...entry,
          name: `${name} -> ${result}`,
          returnedAt: this.clock.now(),
          apply: apply(result),
        };
        this.history[index] = entry;
      } else if (outcome.status === 'refused' && outcome.record?.kind === 'namespace') {
        // As good as a read of what it was refused for.
        const text = outcome.record.name;
        const apply = (state: string) => (state === text ? state : null);
        this.history[index] = {
          name: `${name} refused at ${text}`,
          invokedAt,
          returnedAt: this.clock.now(),
          apply,
        };
      } else if (outcome.status === 'refused' || outcome.error.code !== 'outcome-unknown') {
        // It did not happen and never will: if its letter is found all the same, nothing explains it.
        this.history.splice(index, 1);
      }
    });
  }

  read(host: HostId): void {
    const invokedAt = this.clock.now();
    this.registers(host).read(this.target, (error, record) => {
      this.#note(`read ${error?.code ?? 'done'}`);
      if (error !== null) return;
      const text = record?.kind === 'namespace' ? record.name : '?';
      this.history.push({
        name: `${host} reads ${text}`,
        invokedAt,
        returnedAt: this.clock.now(),
        apply: (state) => (state === text ? state : null),
      });
    });
  }

  /** As directories do when hosts meet again. */
  tellNewest(): void {
    const newest = this.committed.reduce((a, b) =>
      compareBallots(b.ballot, a.ballot) > 0 ? b : a,
    );
    this.committed.push(newest);
    this.#isToldNewest = true;
    for (const { registers } of this.running.values()) {
      registers.learn(newest.record, newest.ballot);
    }
  }

  /** What was announced as committed must be one history in the order of the ballots. */
  checkCommitted(): string | null {
    const sorted = [...this.committed].sort((a, b) => compareBallots(a.ballot, b.ballot));
    for (let index = 1; index < sorted.length; index += 1) {
      const before = sorted[index - 1] as (typeof sorted)[number];
      const after = sorted[index] as (typeof sorted)[number];
      const [a, b] = [nameOf(before.record), nameOf(after.record)];
      const isSame = compareBallots(before.ballot, after.ballot) === 0;
      if (isSame ? a === b : b.startsWith(a)) continue;
      return `${formatBallot(after.ballot)} "${b}" does not follow ${formatBallot(before.ballot)} "${a}"`;
    }
    return null;
  }

  #count(outcome: Outcome): void {
    this.#note(outcome.status === 'failed' ? outcome.error.code : outcome.status);
  }

  #note(what: string): void {
    this.outcomes.set(what, (this.outcomes.get(what) ?? 0) + 1);
  }
}

function nameOf(record: ObjectRecord): string {
  return record.kind === 'namespace' ? record.name : '';
}
