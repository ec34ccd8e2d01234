// Changes instead of records, at the acceptor and in its journal, against what each ballot's value is:
// whatever is lost, torn, full or compacted, a register holds after a restart the very value of a ballot
// that is no older than the newest one that it has told of.

import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { admitAll } from '../../../test/support/register-cluster.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import {
  epoch,
  hostId,
  incarnation,
  type ObjectId,
  objectId,
  revision,
  vmId,
} from '../../model/ids.ts';
import { defaultPolicy } from '../../model/policy.ts';
import type { NamespaceRecord, ObjectRecord, Voter } from '../../model/record.ts';
import { DiskError } from '../../ports/disk.ts';
import { noProbe } from '../../ports/probe.ts';
import { type JournalBounds, openJournal } from '../journal/journal.ts';
import { type Acceptor, createAcceptor } from './acceptor.ts';
import { type Change, changeText, decodeChanges, encodeChanges } from './change-batch.ts';
import type { AcceptorAnswer } from './messages.ts';
import { difference, type Patch } from './patch.ts';

const host = hostId('a');
const other = hostId('b');
const run = incarnation(1);

class Bench {
  readonly clock = new VirtualClock();
  readonly disk = new MemoryDisk(this.clock);
  readonly random: SeededRandom;
  readonly objects: readonly ObjectId[];
  /** The one value of each ballot that was ever proposed. */
  readonly values = new Map<string, ObjectRecord>();
  /** The newest that this voter has told of, per object. */
  readonly told = new Map<ObjectId, { promised: Ballot | null; accepted: Ballot | null }>();
  readonly counts = new Map<string, number>();
  acceptor!: Acceptor;
  voter!: Voter;
  #process = this.clock.process();
  #counter = 0;
  #runs = 0;
  readonly #bounds: Partial<JournalBounds>;

  constructor(seed: number | string, bounds: Partial<JournalBounds> = {}, objects = 4) {
    this.random = new SeededRandom(seed);
    this.#bounds = bounds;
    this.objects = Array.from({ length: objects }, (_, index) => objectId(`object-${index}`));
  }

  async start(): Promise<void> {
    this.#process.kill();
    this.#process = this.clock.process();
    this.#runs += 1;
    const log = new SilentLog();
    const journal = await this.clock.wait(
      openJournal({
        disk: this.disk.attach(),
        folder: 'registers',
        host,
        random: new SeededRandom(this.#runs),
        log,
        clock: this.#process,
        bounds: this.#bounds,
      }),
    );
    this.acceptor = createAcceptor({
      self: host,
      journal,
      log,
      probe: noProbe,
      admission: admitAll,
      onOpen: () => {},
    });
    if (this.acceptor.store === null) throw new Error('no store');
    this.voter = { host, store: this.acceptor.store, joined: 1 };
  }

  ballot(of = other): Ballot {
    this.#counter += 1;
    return { counter: this.#counter, host: of, incarnation: run };
  }

  state(object: ObjectId) {
    return this.acceptor.state(object)?.accepted ?? null;
  }

  record(object: ObjectId, text: string): NamespaceRecord {
    return {
      kind: 'namespace',
      id: object,
      vm: vmId(object),
      revision: revision(1),
      policy: defaultPolicy,
      voters: [this.voter],
      name: object,
      lifecycle: 'ready',
      lock: { holder: null, epoch: epoch(1) },
      metadata: { a: { text }, b: { text: 'x'.repeat(100) } },
      files: {},
      disks: [],
    };
  }

  create(object: ObjectId): void {
    const ballot = this.ballot();
    const voting = { voters: [this.voter] };
    const request = { object, voter: this.voter, ballot, create: true, voting };
    this.acceptor.prepare(other, request, (error) => {
      if (error === null) this.#tell(object, { promised: ballot });
    });
    this.whole(object, ballot);
  }

  whole(object: ObjectId, ballot = this.ballot()): void {
    const record = this.record(object, `whole ${ballot.counter}`);
    this.values.set(formatBallot(ballot), record);
    const nextBallot = this.ballot();
    const request = { object, voter: this.voter, ballot, record, history: [ballot], nextBallot };
    this.acceptor.accept(other, request, (error, answer) => {
      if (error === null) this.#count(answer as AcceptorAnswer, object, ballot, nextBallot);
    });
  }

  prepare(object: ObjectId): void {
    const ballot = this.ballot();
    const voting = { voters: [this.voter] };
    const request = { object, voter: this.voter, ballot, create: false, voting };
    this.acceptor.prepare(other, request, (error, answer) => {
      if (error === null && answer?.answer === 'promised')
        this.#tell(object, { promised: ballot, accepted: answer.ballot });
    });
  }

  /** A change of what is accepted, or of something else. */
  changeOf(
    object: ObjectId,
    base: Ballot | null = this.state(object)?.ballot ?? null,
  ): Change | null {
    const from = base === null ? undefined : this.values.get(formatBallot(base));
    if (base === null || from === undefined) return null;
    const ballot = this.ballot();
    const keeps = this.random.chance(0.1);
    const text = `change ${ballot.counter}`;
    const of = from as NamespaceRecord;
    const record = keeps ? of : { ...of, metadata: { ...of.metadata, a: { text } } };
    this.values.set(formatBallot(ballot), record);
    const patch = keeps ? null : difference(from, record);
    return { object, ballot, nextBallot: this.ballot(), base, patch };
  }

  send(changes: readonly Change[]): void {
    const head = { voter: this.voter, incarnation: run };
    const bytes = encodeChanges(
      changes.map((change) => changeText(change, JSON.stringify(change.patch))),
    );
    const read = decodeChanges(bytes, other, run);
    expect(read).toEqual(changes);
    this.acceptor.acceptChanges(other, head, read, bytes, (error, answers) => {
      if (error !== null) return this.#note(error.code);
      const refused = new Map(answers);
      for (const [place, { object, ballot, nextBallot }] of changes.entries()) {
        const answer = refused.get(place) ?? { answer: 'accepted' };
        this.#count(answer, object, ballot, nextBallot);
      }
    });
  }

  /** What must be true at any time of a voter that keeps its word. */
  verify(): void {
    for (const object of this.objects) {
      const told = this.told.get(object);
      const state = this.acceptor.state(object);
      const accepted = state?.accepted ?? null;
      const { promised = null } = state ?? {};
      const at = accepted?.ballot ?? null;
      const wanted = told ?? { promised: null, accepted: null };
      const what = `${object} holds ${formatBallot(at)}`;
      const isKept =
        compareBallots(at, wanted.accepted) >= 0 && compareBallots(promised, wanted.promised) >= 0;
      expect(isKept, `${what}, promised ${formatBallot(promised)}`).toBe(true);
      if (accepted === null) continue;
      expect(accepted.record, `${what}`).toEqual(this.values.get(formatBallot(accepted.ballot)));
    }
  }

  #count(answer: AcceptorAnswer, object: ObjectId, ballot: Ballot, next: Ballot): void {
    this.#note(answer.answer);
    if (answer.answer === 'accepted') this.#tell(object, { promised: next, accepted: ballot });
  }

  #tell(object: ObjectId, what: { promised?: Ballot; accepted?: Ballot | null }): void {
    const before = this.told.get(object) ?? { promised: null, accepted: null };
    const later = (a: Ballot | null, b: Ballot | null) => (compareBallots(a, b) > 0 ? a : b);
    this.told.set(object, {
      promised: later(what.promised ?? null, before.promised),
      accepted: later(what.accepted ?? null, before.accepted),
    });
  }

  #note(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }
}

describe('changes of records', () => {
  it('are taken where the base is what is accepted, and move nothing where it is not', async () => {
    const bench = new Bench(1);
    await bench.start();
    for (const object of bench.objects) bench.create(object);
    bench.clock.advance(5);
    const [first, second, third] = bench.objects as [ObjectId, ObjectId, ObjectId];
    const stale = bench.state(first)?.ballot as Ballot;
    bench.whole(first);
    const before = bench.acceptor.state(first);
    const changes = [bench.changeOf(first, stale), bench.changeOf(second), bench.changeOf(third)];
    bench.clock.advance(5);
    bench.counts.clear();
    bench.send(changes as Change[]);
    bench.clock.advance(5);
    expect([...bench.counts]).toEqual([
      ['behind', 1],
      ['accepted', 2],
    ]);
    expect(bench.acceptor.state(first)).toBe(before);
    bench.verify();
    // The same message once more, as the network may double it.
    bench.send(changes as Change[]);
    bench.clock.advance(5);
    expect(bench.counts.get('accepted')).toBe(4);
    await bench.start();
    bench.verify();
  });

  it('have the history of their base with their own ballot in front', async () => {
    const bench = new Bench(2);
    await bench.start();
    const [object] = bench.objects as [ObjectId];
    bench.create(object);
    const written: Ballot[] = [bench.state(object)?.ballot as Ballot];
    for (let count = 0; count < 8; count += 1) {
      const change = { ...bench.changeOf(object), patch: { name: [`n${count}`] } } as Change;
      bench.send([change]);
      written.unshift(change.ballot);
    }
    expect(bench.state(object)?.history).toEqual(written.slice(0, 6));
    const kept = { ...bench.changeOf(object), patch: null } as Change;
    bench.send([kept]);
    expect(bench.state(object)).toMatchObject({
      ballot: kept.ballot,
      history: written.slice(0, 6),
    });
    bench.clock.advance(20);
    await bench.start();
    expect(bench.state(object)).toMatchObject({
      ballot: kept.ballot,
      history: written.slice(0, 6),
    });
  });

  it('wait for the disk as records do', async () => {
    const bench = new Bench(3);
    await bench.start();
    const [object] = bench.objects as [ObjectId];
    bench.create(object);
    bench.clock.advance(5);
    bench.counts.clear();
    const change = bench.changeOf(object) as Change;
    bench.send([change]);
    bench.send([change]);
    bench.clock.advance(0.4);
    expect(bench.counts.size).toBe(0);
    bench.clock.advance(1);
    expect(bench.counts.get('accepted')).toBe(2);
    expect(bench.acceptor.chosen(object, change.ballot)).toBe(bench.state(object)?.record);
    expect(bench.acceptor.chosen(object, { ...change.ballot, counter: 1 })).toBe('newer');
    expect(bench.acceptor.chosen(object, bench.ballot())).toBe(null);
    expect(bench.acceptor.chosen(objectId('unknown'), change.ballot)).toBe(null);
    // The hint goes with the next entry that somebody waits for.
    bench.prepare(object);
    bench.clock.advance(5);
    await bench.start();
    expect(bench.acceptor.state(object)?.committed).toBe(true);
  });

  it('go as whole states where an append has failed, and what is queued behind it too', async () => {
    const bench = new Bench(4);
    await bench.start();
    const [object] = bench.objects as [ObjectId];
    bench.create(object);
    bench.clock.advance(5);
    let failures = 1;
    bench.disk.fault = ({ kind }) =>
      kind === 'write' && failures-- > 0 ? new DiskError('full', 'no space') : null;
    bench.counts.clear();
    bench.send([bench.changeOf(object) as Change]);
    // Made from what is about to fail, and written when there is space again.
    bench.send([bench.changeOf(object) as Change]);
    bench.clock.advance(5);
    expect([...bench.counts]).toEqual([
      ['disk-full', 1],
      ['accepted', 1],
    ]);
    await bench.start();
    bench.verify();
  });

  it.each(['small files', 'large files'])(
    'keep each promise through crashes, full disks and compaction (%s)',
    async (kind) => {
      const small = { checkpointBytes: 2048, checkpointFactor: 1, batchBytes: 1024 };
      const counts = new Map<string, number>();
      for (let seed = 0; seed < Number(process.env['SEEDS'] ?? 150); seed += 1) {
        const bench = new Bench(`${kind} ${seed}`, kind === 'small files' ? small : {});
        await live(bench);
        for (const [what, count] of bench.counts) counts.set(what, (counts.get(what) ?? 0) + count);
      }
      expect(counts.get('accepted')).toBeGreaterThan(1000);
      expect(counts.get('behind')).toBeGreaterThan(100);
      expect(counts.get('disk-full')).toBeGreaterThan(100);
    },
    120_000,
  );

  async function live(bench: Bench): Promise<void> {
    const { random, clock, disk, objects } = bench;
    await bench.start();
    for (const object of objects) bench.create(object);
    const late: Change[][] = [];
    let bases = objects.flatMap((one) => bench.state(one)?.ballot ?? []);
    for (let step = 0; step < 60; step += 1) {
      const object = random.pick(objects);
      const dice = random.next();
      if (dice < 0.55) {
        const some = objects.filter(() => random.chance(0.6));
        const changes = some.flatMap((one) => {
          const base = random.chance(0.1) ? random.pick(bases) : undefined;
          return bench.changeOf(one, base) ?? [];
        });
        bases = objects.flatMap((one) => bench.state(one)?.ballot ?? []);
        // Some overtake each other, and some are doubled.
        if (random.chance(0.25)) late.push(changes);
        else bench.send(changes);
        if (random.chance(0.1)) bench.send(changes);
      } else if (dice < 0.65) {
        bench.send(late.splice(random.below(late.length), 1)[0] ?? []);
      } else if (dice < 0.72) {
        bench.whole(object);
      } else if (dice < 0.8) {
        bench.prepare(object);
      } else if (dice < 0.86) {
        const { ballot } = bench.state(object) ?? {};
        if (ballot !== undefined) bench.acceptor.chosen(object, ballot);
      } else if (dice < 0.92) {
        disk.capacityBytes = random.chance(0.5)
          ? disk.usedBytes() + random.below(3000)
          : Number.POSITIVE_INFINITY;
      } else {
        disk.capacityBytes = Number.POSITIVE_INFINITY;
        if (random.chance(0.7)) disk.cutPower(random.stream(`disk ${step}`));
        else disk.kill(random.stream(`disk ${step}`));
        await bench.start();
        bench.verify();
        for (const one of objects) if (bench.state(one) === null) bench.create(one);
      }
      bench.verify();
      await clock.run(random.next() * random.pick([0.2, 1, 4]));
    }
    disk.capacityBytes = Number.POSITIVE_INFINITY;
    await clock.run(20);
    disk.cutPower(random.stream('end'));
    await bench.start();
    bench.verify();
  }
});

describe('the check itself', () => {
  it('sees a change that was made of another base', async () => {
    const bench = new Bench(5);
    await bench.start();
    const [object] = bench.objects as [ObjectId];
    bench.create(object);
    const change = bench.changeOf(object) as Change;
    const wrong: Patch = { name: ['another'] };
    bench.send([{ ...change, patch: wrong }]);
    expect(() => bench.verify()).toThrow('object-0 holds');
  });
});
