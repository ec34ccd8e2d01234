import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { admitAll } from '../../../test/support/register-cluster.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import type { Ballot } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import {
  epoch,
  type HostId,
  hostId,
  incarnation,
  objectId,
  revision,
  storeId,
  vmId,
} from '../../model/ids.ts';
import { defaultPolicy } from '../../model/policy.ts';
import type { NamespaceRecord, ObjectRecord, Voter } from '../../model/record.ts';
import { DiskError } from '../../ports/disk.ts';
import { noProbe, type Point } from '../../ports/probe.ts';
import { openJournal } from '../journal/journal.ts';
import { type Acceptor, createAcceptor } from './acceptor.ts';
import type { Admission } from './admission.ts';
import type { AcceptorAnswer } from './messages.ts';

const object = objectId('object-1');
const a = hostId('a');
const b = hostId('b');

function ballot(counter: number, host: HostId = a): Ballot {
  return { counter, host, incarnation: incarnation(1) };
}

class Bench {
  readonly points: Point[] = [];
  readonly clock = new VirtualClock();
  readonly disk = new MemoryDisk(this.clock);
  readonly answers: (AcceptorAnswer | HoldfastError)[] = [];
  readonly open = new Set<string>();
  admission: Admission = admitAll;
  acceptor!: Acceptor;
  voter!: Voter;
  #runs = 0;

  async start(): Promise<this> {
    const log = new SilentLog();
    this.#runs += 1;
    this.open.clear();
    const journal = await this.clock.wait(
      openJournal({
        disk: this.disk.attach(),
        folder: 'registers',
        host: a,
        random: new SeededRandom(this.#runs),
        log,
        clock: this.clock,
      }),
    );
    this.acceptor = createAcceptor({
      self: a,
      journal,
      log,
      probe: { reached: (point) => void this.points.push(point) },
      admission: {
        admit: (...of) => this.admission.admit(...of),
        learned: (...of) => this.admission.learned(...of),
      },
      onOpen: (which, isOpen) => (isOpen ? this.open.add(which) : this.open.delete(which)),
    });
    this.voter = { host: a, store: this.acceptor.store ?? storeId(''), joined: 1 };
    return this;
  }

  record(name: string, holder: HostId | null = null): NamespaceRecord {
    return {
      kind: 'namespace',
      id: object,
      vm: vmId('vm-1'),
      revision: revision(1),
      policy: defaultPolicy,
      voters: [this.voter],
      name,
      lifecycle: 'ready',
      lock: { holder, epoch: epoch(1) },
      metadata: {},
      files: {},
      disks: [],
    };
  }

  take = (error: HoldfastError | null, answer: AcceptorAnswer | null) =>
    void this.answers.push(error ?? (answer as AcceptorAnswer));

  prepare(at: Ballot, extra: { create?: boolean; voter?: Voter } = {}): void {
    const { create = false, voter = this.voter } = extra;
    const request = { object, voter, ballot: at, create, voting: { voters: [voter] } };
    this.acceptor.prepare(at.host, request, this.take);
  }

  accept(
    at: Ballot,
    name: string,
    next = { ...at, counter: at.counter + 1 },
    from = at.host,
  ): void {
    const request = {
      object,
      voter: this.voter,
      ballot: at,
      record: this.record(name),
      history: [at],
      nextBallot: next,
    };
    this.acceptor.accept(from, request, this.take);
  }

  learn(at: Ballot, record: ObjectRecord | null): void {
    this.acceptor.learn(
      { object, voter: this.voter, ballot: at, record, history: [at] },
      this.take,
    );
  }

  /** The answers since the last call, after so much time. */
  after(ms: number): string[] {
    this.clock.advance(ms);
    return this.answers.splice(0).map((answer) => {
      if (answer instanceof HoldfastError) return answer.code;
      if (answer.answer === 'promised') {
        const name = answer.record?.kind === 'namespace' ? answer.record.name : '-';
        return `promised ${name} ${answer.ballot?.counter ?? 0}${answer.committed ? ' committed' : ''}`;
      }
      if (answer.answer === 'outbid')
        return `outbid ${answer.highest.counter}.${answer.highest.host}`;
      return answer.answer;
    });
  }
}

describe('durable before answered', () => {
  it('answers after the sync, in the order of the decisions, on the newer state', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.accept(ballot(1), 'x');
    bench.prepare(ballot(3, b));
    bench.accept(ballot(2), 'late');
    // Only the refusal needs nothing durable.
    expect(bench.after(0.4)).toEqual(['outbid 3.b']);
    expect(bench.after(0.1)).toEqual(['promised - 0']);
    expect(bench.after(1)).toEqual(['accepted', 'promised x 1']);
  });

  it('keeps after the loss of power what it answered', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.accept(ballot(1), 'x');
    bench.after(5);
    bench.accept(ballot(2), 'never answered');
    expect(bench.acceptor.accepted(object)?.durable).toBe(false);
    bench.disk.cutPower();
    await bench.start();
    expect(bench.acceptor.accepted(object)).toMatchObject({ ballot: ballot(1), durable: true });
    expect(bench.open.has(object)).toBe(true);
    bench.prepare(ballot(1, b));
    expect(bench.after(5)).toEqual(['outbid 2.a']);
  });

  it('answers a repeated accept only when the first one is durable, and takes its promise', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.after(5);
    bench.accept(ballot(1), 'x');
    bench.accept(ballot(1), 'x', ballot(4));
    expect(bench.after(0.3)).toEqual([]);
    expect(bench.after(5)).toEqual(['accepted', 'accepted']);
    bench.prepare(ballot(3, b));
    expect(bench.after(5)).toEqual(['outbid 4.a']);
  });
});

describe('the probe', () => {
  it('is told of an accept when that is durable, before the answer', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.accept(ballot(1), 'x');
    expect(bench.points).toEqual([]);
    expect(bench.after(5)).toEqual(['promised - 0', 'accepted']);
    bench.accept(ballot(0), 'late');
    const { voter } = bench;
    expect(bench.points).toEqual([
      { at: 'acceptor.accepted', object, ballot: ballot(1), record: bench.record('x'), voter },
    ]);
  });
});

describe('what it refuses', () => {
  it('another voter, an unknown object, a ballot of somebody else', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1));
    bench.accept(ballot(1), 'x');
    bench.prepare(ballot(1), { create: true, voter: { ...bench.voter, store: storeId('other') } });
    bench.prepare(ballot(1), { create: true, voter: { ...bench.voter, host: b } });
    expect(bench.after(5)).toEqual(['notVoter', 'notVoter', 'notVoter', 'notVoter']);
    bench.prepare(ballot(1), { create: true });
    bench.prepare(ballot(2), { voter: { ...bench.voter, joined: 0 } });
    bench.accept(ballot(2, b), 'x', ballot(3, b), a);
    expect(bench.after(5).sort()).toEqual(['bad-request', 'notVoter', 'promised - 0']);
  });

  it('its former self, once it was asked as the voter that it became later', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.accept(ballot(1), 'x');
    bench.after(5);
    // The others have become the voters with it in its new name, and it was cut off meanwhile.
    bench.prepare(ballot(2), { voter: { ...bench.voter, joined: 2 } });
    expect(bench.after(5)).toEqual(['promised - 0']);
    bench.prepare(ballot(3));
    expect(bench.after(5)).toEqual(['notVoter']);
  });

  it('a record that ends a protected lock: asked with its own accepted record, at decision time', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.after(5);
    const asked: string[] = [];
    bench.admission = {
      admit: (current, next, proposer) => {
        const names = [current, next].map((record) =>
          record?.kind === 'namespace' ? record.name : '-',
        );
        asked.push(`${names.join(' ')} ${proposer}`);
        return proposer === b ? 700 : 0;
      },
      learned: () => {},
    };
    bench.accept(ballot(1), 'x');
    bench.accept(ballot(5, b), 'y');
    expect(asked).toEqual(['- x a', 'x y b']);
    const [refusal] = bench.answers;
    expect(refusal).toEqual({
      answer: 'leased',
      remainingMs: 700,
      lock: { holder: null, epoch: 1 },
    });
    expect(bench.after(5)).toEqual(['leased', 'accepted']);
    expect(bench.acceptor.accepted(object)?.ballot).toEqual(ballot(1));
  });
});

describe('learning', () => {
  it('marks the accepted record only at its own ballot', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.accept(ballot(1), 'x');
    bench.accept(ballot(2), 'y');
    bench.learn(ballot(1), bench.record('x'));
    bench.after(5);
    expect(bench.acceptor.accepted(object)).toMatchObject({ ballot: ballot(2), committed: false });
    expect(bench.open.has(object)).toBe(true);
    bench.learn(ballot(2), null);
    expect(bench.acceptor.accepted(object)?.committed).toBe(true);
    expect(bench.open.has(object)).toBe(false);
  });

  it('adopts a newer committed record beyond its promise, which it keeps, and tells the leases', async () => {
    const bench = await new Bench().start();
    const told: string[] = [];
    bench.admission = {
      admit: () => 0,
      learned: (current, next) => void told.push(`${current?.revision} ${next.kind}`),
    };
    bench.prepare(ballot(1), { create: true });
    bench.accept(ballot(1), 'x');
    bench.prepare(ballot(9, b));
    bench.learn(ballot(5), bench.record('z'));
    expect(bench.after(5)).toEqual(['promised - 0', 'accepted', 'promised x 1', 'accepted']);
    expect(told).toEqual(['1 namespace']);
    bench.accept(ballot(6), 'w');
    bench.prepare(ballot(10, b));
    expect(bench.after(5)).toEqual(['outbid 9.b', 'promised z 5 committed']);
    bench.disk.cutPower();
    await bench.start();
    expect(bench.acceptor.accepted(object)).toMatchObject({ ballot: ballot(5), committed: true });
  });

  it('begins with a chosen record where it missed the creation, unless it forgot the object', async () => {
    const bench = await new Bench().start();
    bench.learn(ballot(2), { ...bench.record('x'), kind: 'tombstone' } as unknown as ObjectRecord);
    expect(bench.after(5)).toEqual(['notVoter']);
    bench.learn(ballot(2), bench.record('x'));
    expect(bench.after(5)).toEqual(['accepted']);
    bench.acceptor.forget(object, (error) => expect(error).toBe(null));
    bench.learn(ballot(2), bench.record('x'));
    bench.prepare(ballot(3), { create: true });
    expect(bench.after(5)).toEqual(['notVoter', 'notVoter']);
    bench.disk.cutPower();
    await bench.start();
    expect(bench.acceptor.count).toBe(0);
  });
});

describe('a store that fails', () => {
  it('full: nothing is answered as done, nothing is forgotten, and it mends itself', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.after(5);
    bench.disk.capacityBytes = bench.disk.usedBytes();
    bench.accept(ballot(1), 'x');
    bench.prepare(ballot(7, b));
    expect(bench.after(5)).toEqual(['disk-full', 'disk-full']);
    // The promise of 7 was not answered, but it is kept.
    bench.accept(ballot(6), 'y');
    expect(bench.after(5)).toEqual(['outbid 7.b']);
    bench.prepare(ballot(7, b));
    expect(bench.after(5)).toEqual(['disk-full']);
    bench.disk.capacityBytes = Number.POSITIVE_INFINITY;
    bench.prepare(ballot(7, b));
    expect(bench.after(5)).toEqual(['promised x 1']);
    bench.disk.cutPower();
    await bench.start();
    bench.accept(ballot(6), 'y');
    expect(bench.after(5)).toEqual(['outbid 7.b']);
    expect(bench.acceptor.accepted(object)?.record).toMatchObject({ name: 'x' });
  });

  it('after a failed sync it votes no more until the restart', async () => {
    const bench = await new Bench().start();
    bench.prepare(ballot(1), { create: true });
    bench.after(5);
    bench.disk.fault = ({ kind }) =>
      kind === 'sync' ? new DiskError('failed', 'I/O error') : null;
    bench.accept(ballot(1), 'x');
    expect(bench.after(5)).toEqual(['disk-error']);
    expect(bench.acceptor.failure?.code).toBe('disk-error');
    bench.accept(ballot(1), 'x');
    bench.prepare(ballot(2));
    expect(bench.after(5)).toEqual(['notVoter', 'notVoter']);
    expect(bench.acceptor.accepted(object)?.durable).toBe(false);
  });

  it('damaged: it is no voter, and says why', () => {
    const failure = new HoldfastError('store-damaged', 'batch 4 is not readable');
    const acceptor = createAcceptor({
      self: a,
      journal: failure,
      admission: admitAll,
      log: new SilentLog(),
      probe: noProbe,
      onOpen: () => {},
    });
    const voter = { host: a, store: storeId('s'), joined: 1 };
    const answers: unknown[] = [];
    const request = { object, voter, ballot: ballot(1), create: true, voting: { voters: [voter] } };
    acceptor.prepare(a, request, (_error, answer) => answers.push(answer));
    expect(answers).toEqual([{ answer: 'notVoter', reason: 'batch 4 is not readable' }]);
    expect(acceptor.failure).toBe(failure);
  });
});
