// The proposer against voters that the test plays itself: each request waits in `sent` until the test
// answers it.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
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
import type { JsonValue } from '../../model/json.ts';
import { limits, timings } from '../../model/limits.ts';
import { defaultPolicy } from '../../model/policy.ts';
import type { NamespaceRecord, ObjectRecord, Voter } from '../../model/record.ts';
import { noPayload } from '../../peer/frame.ts';
import type { Done, Peer } from '../../peer/peer.ts';
import type { Point } from '../../ports/probe.ts';
import { decodeChanges, type Change as RecordChange } from './change-batch.ts';
import type { AcceptorAnswer, AcceptRequest, PrepareRequest } from './messages.ts';
import type { ChangeOptions, Decide, Outcome } from './outcome.ts';
import { createProposer } from './proposer.ts';

const object = objectId('object-1');
const self = hostId('me');
const voters: Voter[] = ['1', '2', '3'].map((name) => ({
  host: hostId(name),
  store: storeId(`s${name}`),
  joined: 1,
}));

function ballot(counter: number, host = 'other'): Ballot {
  return { counter, host: hostId(host), incarnation: incarnation(1) };
}

function record(name: string, holder: string | null = null, at = 1, of = voters): NamespaceRecord {
  return {
    kind: 'namespace',
    id: object,
    vm: vmId('vm-1'),
    revision: revision(at),
    policy: defaultPolicy,
    voters: of,
    name,
    lifecycle: 'ready',
    lock: { holder: holder === null ? null : hostId(holder), epoch: epoch(at) },
    metadata: {},
    files: {},
    disks: [],
  };
}

function promised(at: Ballot | null, what: ObjectRecord | null, committed = false): AcceptorAnswer {
  return {
    answer: 'promised',
    ballot: at,
    record: what,
    history: at === null ? [] : [at],
    committed,
  };
}

const accepted: AcceptorAnswer = { answer: 'accepted' };
const append =
  (text: string): Decide =>
  (current) => ({
    write: { ...(current as NamespaceRecord), name: (current as NamespaceRecord).name + text },
  });
const refusal = new HoldfastError('conflict', 'no');
const refuse: Decide = () => ({ refuse: refusal });

class Bench {
  readonly clock = new VirtualClock();
  readonly sent: {
    to: string;
    type: string;
    body: PrepareRequest & AcceptRequest;
    payload: Uint8Array;
    done: Done;
  }[] = [];
  /** Messages that want no answer. */
  readonly told: { to: string; type: string; body: unknown }[] = [];
  readonly committed: string[] = [];
  readonly outcomes: Outcome[] = [];
  readonly points: Point[] = [];
  readonly down = new Set<string>();
  readonly proposer = createProposer({
    peer: {
      self,
      isConnected: (host: HostId) => !this.down.has(host),
      send: (to: HostId, type: string, body: JsonValue) => void this.told.push({ to, type, body }),
      request: (
        to: HostId,
        type: string,
        body: JsonValue,
        payload: Uint8Array,
        timeoutMs: number,
        done: Done,
      ) => {
        const request = body as unknown as PrepareRequest & AcceptRequest;
        this.sent.push({ to, type, body: request, payload, done });
        this.clock.after(timeoutMs, () =>
          done(new HoldfastError('timeout', 'silence'), null, noPayload),
        );
      },
    } as unknown as Peer,
    clock: this.clock,
    random: new SeededRandom(1),
    probe: { reached: (point) => void this.points.push(point) },
    timings,
    incarnation: incarnation(1),
    onCommitted: (what) => this.committed.push((what as NamespaceRecord).name),
  });

  constructor() {
    // Above all ballots that the voters' answers show: lower ones they would have refused.
    this.proposer.saw(ballot(20));
  }

  change(decide: Decide, options: ChangeOptions = {}): void {
    this.proposer.change({ object, voting: { voters } }, decide, options, (outcome) =>
      this.outcomes.push(outcome),
    );
    this.clock.advance(0);
  }

  /** Answers what was sent last to these voters; waits for it if it is not sent yet. */
  answer(
    type: 'prepare' | 'accept',
    answers: Record<string, AcceptorAnswer>,
  ): PrepareRequest & AcceptRequest {
    const requests = this.#take(`register.${type}`);
    for (const [host, answer] of Object.entries(answers)) {
      const request = requests.find(({ to }) => to === host);
      request?.done(null, answer as unknown as JsonValue, noPayload);
    }
    return requests[0]?.body as PrepareRequest & AcceptRequest;
  }

  /** The same for a change that was sent instead of a record; returns it. */
  answerChange(answers: Record<string, AcceptorAnswer>): RecordChange {
    const requests = this.#take('register.changes');
    for (const [host, answer] of Object.entries(answers)) {
      const request = requests.find(({ to }) => to === host);
      const body = answer.answer === 'accepted' ? null : [[0, answer]];
      request?.done(null, body as unknown as JsonValue, noPayload);
    }
    const [change] = decodeChanges(requests[0]?.payload as Uint8Array, self, incarnation(1));
    return change as RecordChange;
  }

  #take(type: string) {
    for (let ms = 0; this.sent.every((request) => request.type !== type); ms += 10) {
      if (ms > 2000) throw new Error(`no ${type} was sent`);
      this.clock.advance(10);
    }
    const requests = this.sent.splice(0);
    expect(requests.map((request) => request.type)).toEqual(requests.map(() => type));
    return requests;
  }

  /** `committed x`, `refused x`, or the code of the error, per outcome so far. */
  ends(): string[] {
    return this.outcomes.splice(0).map((outcome) => {
      if (outcome.status === 'failed') return outcome.error.code;
      return `${outcome.status} ${(outcome.record as NamespaceRecord | null)?.name ?? '-'}`;
    });
  }
}

describe('a change', () => {
  it('prepares, accepts, teaches and announces; the next one needs no prepare', () => {
    const bench = new Bench();
    bench.change(append('a'));
    const prepare = bench.answer('prepare', {
      1: promised(ballot(4), record('')),
      2: promised(null, null),
    });
    const accept = bench.answer('accept', { 1: accepted, 3: accepted });
    expect(accept.ballot).toEqual(prepare.ballot);
    expect(accept.history).toEqual([prepare.ballot, ballot(4)]);
    expect(accept.nextBallot.counter).toBeGreaterThan(accept.ballot.counter);
    expect(bench.ends()).toEqual(['committed a']);
    expect(bench.committed).toEqual(['a']);
    // Who accepted needs no copy, and who was sent it, and may have it, asks if it has not.
    bench.clock.advance(1);
    expect(bench.told).toEqual(
      ['1', '2', '3'].map((to) => ({
        to,
        type: 'register.chosen',
        body: { incarnation: incarnation(1), chosen: [object, accept.ballot.counter] },
      })),
    );
    bench.change(append('b'));
    expect(bench.answerChange({ 1: accepted, 2: accepted })).toEqual({
      object,
      ballot: accept.nextBallot,
      nextBallot: { ...accept.nextBallot, counter: accept.nextBallot.counter + 1 },
      base: accept.ballot,
      patch: { name: ['ab'] },
    });
    expect(bench.ends()).toEqual(['committed ab']);
  });

  it('sends a voter that refused the whole record, and one that is behind the change as a whole', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('')), 2: promised(null, null) });
    bench.answer('accept', {
      1: accepted,
      2: { answer: 'notVoter', reason: 'other store' },
      3: accepted,
    });
    bench.clock.advance(1);
    expect(bench.told.map(({ to, type }) => `${to} ${type}`)).toEqual([
      '2 register.learn',
      '1 register.chosen',
      '3 register.chosen',
    ]);
    bench.change(append('b'));
    expect(bench.ends()).toEqual(['committed a']);
    const change = bench.answerChange({ 1: accepted, 2: { answer: 'behind' } });
    expect(bench.ends()).toEqual([]);
    expect(bench.sent.map(({ to }) => to)).toEqual(['2']);
    const whole = bench.answer('accept', { 2: accepted });
    // In the same ballot, which has one value.
    expect(whole.ballot).toEqual(change.ballot);
    expect(whole.nextBallot).toEqual(change.nextBallot);
    expect((whole.record as NamespaceRecord).name).toBe('ab');
    expect(whole.history.slice(0, 2)).toEqual([change.ballot, change.base]);
    expect(bench.ends()).toEqual(['committed ab']);
  });

  it('shares a message with others of the same turn, and each has an answer of its own', () => {
    const bench = new Bench();
    const objects = [object, objectId('object-2'), objectId('object-3')];
    const ends: string[] = [];
    const begin = (text: string) => {
      for (const of of objects) {
        const decide: Decide = (current) => ({
          write: { ...((current ?? record('')) as NamespaceRecord), id: of, name: text },
        });
        bench.proposer.change({ object: of, voting: { voters } }, decide, {}, (outcome) =>
          ends.push(`${of} ${outcome.status}`),
        );
      }
      bench.clock.advance(1);
    };
    begin('a');
    for (const request of bench.sent.splice(0)) {
      const answer = promised(ballot(4), { ...record(''), id: request.body.object });
      request.done(null, answer as unknown as JsonValue, noPayload);
    }
    for (const { done } of bench.sent.splice(0)) {
      done(null, accepted, noPayload);
    }
    bench.clock.advance(1);
    expect(ends.splice(0)).toEqual(objects.map((of) => `${of} committed`));
    bench.told.splice(0);

    begin('b');
    expect(bench.sent.map(({ to, type }) => `${to} ${type}`)).toEqual(
      ['1', '2', '3'].map((to) => `${to} register.changes`),
    );
    const [first, second, third] = bench.sent.splice(0);
    const sent = decodeChanges(first?.payload as Uint8Array, self, incarnation(1));
    expect(sent.map((change) => change.object)).toEqual(objects);
    first?.done(null, null, noPayload);
    const refusals = [
      [0, { answer: 'outbid', highest: ballot(70) }],
      [2, { answer: 'behind' }],
    ];
    second?.done(null, refusals as unknown as JsonValue, noPayload);
    expect(ends.splice(0)).toEqual([`${objects[1]} committed`]);
    // Who is behind is sent the whole record, and has not decided yet.
    expect(bench.sent.map(({ to, type, body }) => `${to} ${type} ${body.object}`)).toEqual([
      `2 register.accept ${objects[2]}`,
    ]);
    third?.done(null, null, noPayload);
    expect(ends.splice(0)).toEqual([`${objects[0]} committed`, `${objects[2]} committed`]);
    bench.clock.advance(1);
    const news = bench.told.filter(({ type }) => type === 'register.chosen');
    expect(news.map(({ to }) => to)).toEqual(['1', '2', '3']);
    const lost = bench.told.filter(({ type }) => type === 'register.learn');
    expect(lost.map(({ to }) => to)).toEqual(['2']);
  });

  it('fails as a whole where its message is not answered, and nobody knows what was done', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('')), 2: promised(null, null) });
    bench.answer('accept', { 1: accepted, 2: accepted });
    bench.change(append('b'));
    bench.clock.advance(timings.changeTimeoutMs);
    expect(bench.ends()).toEqual(['committed a', 'outcome-unknown']);
  });

  it('sends nobody the whole record any more once it has ended', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('')), 2: promised(null, null) });
    bench.answer('accept', { 1: accepted, 2: accepted, 3: accepted });
    bench.change(append('b'));
    bench.answerChange({ 1: accepted, 2: accepted, 3: { answer: 'behind' } });
    expect(bench.ends()).toEqual(['committed a', 'committed ab']);
    expect(bench.sent).toEqual([]);
  });

  it('goes as a whole where the voters change, and is refused where it would grow too large', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('')), 2: promised(null, null) });
    bench.answer('accept', { 1: accepted, 2: accepted });
    const piece = 'x'.repeat(limits.maxRecordBytes / 8);
    for (let count = 0; count < 7; count += 1) {
      bench.change(append(piece));
      bench.answerChange({ 1: accepted, 2: accepted });
    }
    expect(bench.ends().map((end) => end.slice(0, 9))).toEqual(Array(8).fill('committed'));
    bench.change(append(piece));
    // What the refusal looked at is accepted once more before it is told.
    expect(bench.answerChange({ 1: accepted, 2: accepted }).patch).toBe(null);
    expect(bench.ends().map((end) => end.slice(0, 7))).toEqual(['refused']);
    bench.change((current) => ({
      write: { ...(current as NamespaceRecord), name: 'short', nextVoters: voters.slice(0, 1) },
    }));
    expect(bench.answer('accept', {}).record).toMatchObject({ nextVoters: voters.slice(0, 1) });
  });

  it('waits for the one before it on the same register', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.change(append('b'));
    bench.answer('prepare', { 1: promised(ballot(4), record('')), 2: promised(null, null) });
    bench.answer('accept', { 1: accepted, 2: accepted });
    bench.answerChange({ 1: accepted, 2: accepted });
    expect(bench.ends()).toEqual(['committed a', 'committed ab']);
  });

  it('goes above the ballot that outbid it, later', () => {
    const bench = new Bench();
    bench.change(append('a'));
    const outbid: AcceptorAnswer = { answer: 'outbid', highest: ballot(70) };
    bench.answer('prepare', { 1: outbid, 2: outbid, 3: promised(null, null) });
    expect(bench.sent).toEqual([]);
    const prepare = bench.answer('prepare', {
      1: promised(ballot(70), record('')),
      2: promised(null, null),
    });
    expect(prepare.ballot.counter).toBeGreaterThan(70);
  });

  it('fails at once where no majority can be reached', () => {
    const bench = new Bench();
    bench.down.add('2').add('3');
    bench.change(append('a'));
    bench.clock.advance(1);
    expect(bench.ends()).toEqual(['inaccessible']);
    expect(bench.clock.now()).toBe(1);
  });

  it('refuses a record that is too large, or that changes the voters', () => {
    const bench = new Bench();
    for (const name of ['x'.repeat(limits.maxRecordBytes), 'voters']) {
      const voters2 = name === 'voters' ? voters.slice(1) : voters;
      bench.change(() => ({ write: record(name, null, 1, voters2) }));
      bench.answer('prepare', {
        1: promised(ballot(4), record('x'), true),
        2: promised(null, null),
      });
      expect(bench.outcomes[0]).toMatchObject({
        status: 'refused',
        error: { code: 'bad-request' },
      });
      expect(bench.ends()).toEqual(['refused x']);
    }
  });

  it('begins again with the voters of the record that it finds', () => {
    const bench = new Bench();
    const moved = [...voters.slice(0, 2), { host: hostId('4'), store: storeId('s4'), joined: 1 }];
    bench.change(append('a'));
    const notVoter: AcceptorAnswer = { answer: 'notVoter', reason: 'another store' };
    bench.answer('prepare', {
      1: promised(ballot(4), record('x', null, 1, moved)),
      2: notVoter,
      3: notVoter,
    });
    bench.answer('prepare', {
      1: promised(ballot(4), record('x', null, 1, moved)),
      4: promised(null, null),
    });
    bench.answer('accept', { 4: accepted, 2: accepted });
    expect(bench.ends()).toEqual(['committed xa']);
  });

  it('goes on with what ends a change of voters where it has asked both groups', () => {
    const bench = new Bench();
    const joint = { ...record('joint'), nextVoters: voters.slice(0, 1) };
    const last = promised(ballot(5), record('last', null, 2, voters.slice(0, 1)));
    bench.change((current) => ({ write: current as NamespaceRecord }));
    // The voter that stays has the joint record still: asked alone it would lead back to both groups.
    bench.answer('prepare', {
      1: promised(ballot(4), joint, true),
      2: promised(ballot(4), joint, true),
    });
    bench.answer('prepare', { 1: promised(ballot(4), joint, true), 2: last, 3: last });
    expect(bench.answer('accept', { 1: accepted }).record).toMatchObject({ name: 'last' });
    expect(bench.ends()).toEqual(['committed last']);
  });

  it('asks those only that vote on what it found, where a change of voters did not happen', () => {
    const bench = new Bench();
    const before = record('before', null, 2, voters.slice(0, 1));
    const joint = { ...before, name: 'joint', nextVoters: voters };
    bench.change((current) => ({ write: current as NamespaceRecord }));
    bench.answer('prepare', { 2: promised(ballot(4), joint), 3: promised(ballot(4), joint) });
    bench.answer('prepare', {
      1: promised(ballot(5), before),
      2: promised(ballot(4), joint),
      3: promised(ballot(4), joint),
    });
    const asked = () => bench.sent.filter(({ type }) => type === 'register.accept');
    expect(asked().map(({ to }) => to)).toEqual(['1']);
    bench.answer('accept', { 1: accepted });
    expect(bench.ends()).toEqual(['committed before']);
  });

  it('never takes a majority of other voters for one, however often it has begun again', () => {
    const bench = new Bench();
    const at = (name: string): Voter => ({ host: hostId(name), store: storeId(name), joined: 1 });
    const newer = promised(ballot(4), record('newer', null, 2, ['1', '4', '5'].map(at)));
    const older = promised(ballot(3), record('older'));
    const notVoter: AcceptorAnswer = { answer: 'notVoter', reason: 'another store' };
    bench.change((current) => ({ write: current as NamespaceRecord }));
    for (let round = 0; round < 3; round += 1) {
      bench.answer('prepare', { 2: newer, 3: newer });
      bench.answer('prepare', { 1: notVoter, 4: older, 5: notVoter });
    }
    bench.answer('prepare', { 2: newer, 3: newer });
    expect(bench.sent.filter(({ type }) => type === 'register.accept')).toEqual([]);
    bench.answer('prepare', { 1: newer, 4: older });
    bench.answer('accept', { 1: accepted, 4: accepted });
    expect(bench.ends()).toEqual(['committed newer']);
  });
});

describe('the points of a change', () => {
  const names = (bench: Bench) =>
    bench.points.splice(0).map((point) => {
      if (point.at !== 'register.returned') return point.at;
      const name = (what: ObjectRecord | null) => (what as NamespaceRecord | null)?.name ?? '-';
      return `${point.at} ${point.call} ${point.outcome} ${name(point.read)}>${name(point.record)}`;
    });

  it('stand between its steps', () => {
    const bench = new Bench();
    bench.change(append('a'));
    expect(bench.points).toEqual([{ at: 'register.invoked', object, call: 1 }]);
    bench.answer('prepare', { 1: promised(ballot(4), record('x')), 2: promised(null, null) });
    const accept = bench.answer('accept', { 1: accepted });
    const proposed = { object, ballot: accept.ballot, record: record('xa') };
    expect(bench.points.slice(1)).toEqual([
      { at: 'register.accepting', ...proposed },
      { at: 'register.acceptedOne', object },
    ]);
    // One that queues has not begun.
    bench.change(append('b'));
    expect(bench.points).toHaveLength(3);
  });

  it('tell at its end what it read and wrote', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('x')), 2: promised(null, null) });
    bench.answer('accept', { 1: accepted, 3: accepted });
    expect(names(bench).slice(-2)).toEqual([
      'register.committed',
      'register.returned 1 changed x>xa',
    ]);
    bench.change(() => ({ refuse: refusal }));
    expect(bench.answerChange({ 1: accepted, 3: accepted }).patch).toBe(null);
    expect(names(bench).at(-1)).toBe('register.returned 2 refused xa>-');
    bench.change((current) => ({ write: current as ObjectRecord }));
    bench.answerChange({ 1: accepted, 3: accepted });
    expect(names(bench).at(-1)).toBe('register.returned 3 changed xa>xa');
    bench.down.add('2').add('3');
    bench.change(append('b'));
    bench.clock.advance(1);
    expect(names(bench)).toEqual(['register.invoked', 'register.returned 4 failed ->-']);
  });

  it('tell what a change was made from that is found later, and that an end is not known', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('x')), 2: promised(null, null) });
    const { ballot: mine } = bench.answer('accept', { 1: accepted });
    bench.clock.advance(timings.registerTimeoutMs);
    const found = promised(mine, record('xa'));
    bench.answer('prepare', { 1: found, 2: found });
    bench.answer('accept', { 1: accepted, 2: accepted });
    expect(names(bench).at(-1)).toBe('register.returned 1 changed x>xa');
    bench.change(append('b'));
    bench.answerChange({ 1: accepted });
    bench.clock.advance(timings.changeTimeoutMs);
    expect(bench.ends().at(-1)).toBe('outcome-unknown');
    expect(names(bench).at(-1)).toBe('register.returned 2 unknown ->-');
  });
});

describe('a refusal', () => {
  it('of a record that is known to be committed needs no accept; of any other it does', () => {
    const bench = new Bench();
    bench.change(refuse);
    bench.answer('prepare', {
      1: promised(ballot(4), record('x')),
      2: promised(ballot(4), record('x'), true),
    });
    expect(bench.ends()).toEqual(['refused x']);
    bench.change(refuse);
    bench.answer('prepare', {
      1: promised(ballot(4), record('x')),
      2: promised(ballot(3), record('w'), true),
    });
    const { history } = bench.answer('accept', { 1: accepted, 2: accepted });
    expect(history).toEqual([ballot(4)]);
    expect(bench.ends()).toEqual(['refused x']);
  });

  it('on the remembered record is confirmed by the voters first', () => {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: promised(ballot(4), record('')), 2: promised(null, null) });
    bench.answer('accept', { 1: accepted, 2: accepted });
    bench.change(refuse);
    const outbid: AcceptorAnswer = { answer: 'outbid', highest: ballot(70) };
    bench.answerChange({ 1: outbid, 2: outbid });
    bench.answer('prepare', {
      1: promised(ballot(70), record('ab'), true),
      2: promised(null, null),
    });
    expect(bench.ends()).toEqual(['committed a', 'refused ab']);
  });

  it('first ends what this change left pending, even if what it finds is committed', () => {
    const bench = new Bench();
    let tries = 0;
    bench.change((current) => {
      tries += 1;
      return tries === 1 ? append('a')(current) : { refuse: refusal };
    });
    const x = promised(ballot(4), record('x'), true);
    bench.answer('prepare', { 1: x, 2: x });
    const outbid: AcceptorAnswer = { answer: 'outbid', highest: ballot(39) };
    bench.answer('accept', { 3: accepted, 1: outbid, 2: outbid });
    bench.answer('prepare', { 1: x, 2: x });
    expect(bench.ends()).toEqual([]);
    const accept = bench.answer('accept', { 1: accepted, 2: accepted });
    expect(accept.record).toMatchObject({ name: 'x' });
    expect(bench.ends()).toEqual(['refused x']);
  });
});

describe('an outcome that was not heard', () => {
  const x = promised(ballot(4), record('x'), true);
  const outbid: AcceptorAnswer = { answer: 'outbid', highest: ballot(39) };

  function halfWay(): { bench: Bench; first: AcceptRequest } {
    const bench = new Bench();
    bench.change(append('a'));
    bench.answer('prepare', { 1: x, 2: x });
    const first = bench.answer('accept', { 3: accepted, 1: outbid, 2: outbid });
    return { bench, first };
  }

  it('is found in the history, also below somebody else’s change', () => {
    const { bench, first } = halfWay();
    const found = {
      ...promised(ballot(42), record('xab')),
      history: [ballot(42), ...first.history],
    };
    bench.answer('prepare', { 1: found, 2: x });
    const accept = bench.answer('accept', { 1: accepted, 2: accepted });
    expect(accept.record).toMatchObject({ name: 'xab' });
    expect(bench.ends()).toEqual(['committed xa']);
    expect(bench.committed).toEqual(['xab']);
  });

  it('is excluded by a history without it: then the change is made anew', () => {
    const { bench } = halfWay();
    const found = { ...promised(ballot(42), record('xb')), history: [ballot(42), ballot(4)] };
    bench.answer('prepare', { 1: found, 2: x });
    bench.answer('accept', { 1: accepted, 2: accepted });
    expect(bench.ends()).toEqual(['committed xba']);
  });

  it('stays unknown where the history does not reach back', () => {
    const { bench } = halfWay();
    const found = { ...promised(ballot(42), record('xb')), history: [ballot(42), ballot(41)] };
    bench.answer('prepare', { 1: found, 2: x });
    bench.clock.advance(100);
    expect(bench.ends()).toEqual(['outcome-unknown']);
  });

  it('stays unknown when the time is up', () => {
    const { bench } = halfWay();
    bench.clock.advance(timings.changeTimeoutMs);
    expect(bench.ends()).toEqual(['outcome-unknown']);
  });
});

describe('leases', () => {
  const leased = (remainingMs: number, holder: string, at: number): AcceptorAnswer => ({
    answer: 'leased',
    remainingMs,
    lock: { holder: hostId(holder), epoch: epoch(at) },
  });
  const held = promised(ballot(4), record('held', 'a', 1), true);
  const takeLock: Decide = () => ({ write: record('taken', 'me', 2) });

  it('a change that ends a protected lock is told for how long', () => {
    const bench = new Bench();
    bench.change(takeLock);
    bench.answer('prepare', { 1: held, 2: held });
    bench.answer('accept', {
      1: leased(900, 'a', 1),
      2: leased(500, 'a', 1),
      3: leased(700, 'a', 1),
    });
    // After 700 ms two voters may admit it.
    expect(bench.outcomes[0]).toMatchObject({ remainingMs: 700 });
    expect(bench.ends()).toEqual(['lock-held']);
  });

  it('what a minority took of such a change is ended before it is said to have failed', () => {
    const bench = new Bench();
    bench.change(takeLock);
    bench.answer('prepare', { 1: held, 2: held });
    const take = bench.answer('accept', {
      1: leased(900, 'a', 1),
      2: leased(500, 'a', 1),
      3: accepted,
    });
    expect(bench.ends()).toEqual([]);
    const poisoned = promised(take.ballot, record('taken', 'me', 2));
    bench.answer('prepare', { 3: poisoned, 1: held, 2: held });
    const accept = bench.answer('accept', { 1: accepted, 2: accepted });
    expect(accept.record).toMatchObject({ name: 'held' });
    expect(bench.ends()).toEqual(['lock-held']);
  });

  it('what a minority took does not stop others: they go by the voters that keep the lock', () => {
    const bench = new Bench();
    const poisoned = promised(ballot(8), record('taken', 'b', 2));
    bench.change(append('+'));
    bench.answer('prepare', { 3: poisoned, 1: held });
    // Not known as committed, not preferred: a little patience, then the normal choice.
    bench.clock.advance(100);
    bench.answer('accept', { 1: leased(900, 'a', 1), 2: leased(900, 'a', 1), 3: accepted });
    bench.answer('prepare', { 3: poisoned, 1: held, 2: held });
    bench.answer('accept', { 1: accepted, 2: accepted, 3: leased(800, 'b', 2) });
    expect(bench.ends()).toEqual(['committed held+']);
  });

  it('the holder itself chooses so at once, by preferring the record that names it', () => {
    const bench = new Bench();
    const mine = promised(ballot(4), record('mine', 'me', 1));
    bench.change(append('+'));
    bench.answer('prepare', { 3: promised(ballot(8), record('taken', 'b', 2)), 1: mine, 2: mine });
    bench.answer('accept', { 1: accepted, 2: accepted });
    expect(bench.ends()).toEqual(['committed mine+']);
  });

  it('no choice is made where the newer record is committed', () => {
    const bench = new Bench();
    const mine = promised(ballot(4), record('mine', 'me', 1));
    bench.change(refuse, { prefer: () => false });
    bench.answer('prepare', { 3: promised(ballot(8), record('taken', 'b', 2), true), 1: mine });
    expect(bench.ends()).toEqual(['refused taken']);
  });
});
