// The proposer: the changes that this host makes to registers, one at a time per register. It makes
// the ballots, remembers for which registers it already holds the promises of the next change, and
// tells everybody what was committed. What one change does is in `change.ts`.

import type { Ballot } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { HostId, Incarnation, ObjectId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Timings } from '../../model/limits.ts';
import type { ObjectRecord } from '../../model/record.ts';
import { Deadlines, type Due } from '../../peer/deadlines.ts';
import { noPayload } from '../../peer/frame.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Random } from '../../ports/random.ts';
import { Change } from './change.ts';
import type { AcceptorAnswer, LearnRequest } from './messages.ts';
import { Outbox } from './outbox.ts';
import type {
  ChangeContext,
  ChangeOptions,
  Decide,
  Outcome,
  Remembered,
  Target,
} from './outcome.ts';

export interface Proposer {
  /**
   * Changes a record; see `Decide` and `Outcome`. Calls back exactly once, within `changeTimeoutMs`,
   * never before it returns. A host that holds the object's lock must not be made to give it up by
   * what a minority took: that is what the default of `options.prefer` is for.
   */
  change(
    target: Target,
    decide: Decide,
    options: ChangeOptions,
    done: (outcome: Outcome) => void,
  ): void;
  /** Ballots of this host will be above this one. */
  saw(ballot: Ballot | null): void;
  /** Changes that are running or queued. */
  readonly pending: number;
  stop(): void;
}

class Queued implements Due {
  dueMs = 0;
  previous: Due | null = null;
  next: Due | null = null;
  readonly change: Change;

  constructor(change: Change) {
    this.change = change;
  }
}

/** So many registers are remembered for which no prepare is needed. */
const rememberedBound = 4096;

export function createProposer(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly probe: Probe;
  readonly timings: Timings;
  /** Of the store's superblock; or why there is none, and then nothing can be proposed. */
  readonly incarnation: Incarnation | HoldfastError;
  /** `told`: hosts whose voters have the record, and hear that it is committed. */
  readonly onCommitted: (record: ObjectRecord, ballot: Ballot, told: readonly HostId[]) => void;
}): Proposer {
  const { peer, clock, timings, incarnation, onCommitted } = options;
  const queues = new Map<ObjectId, Queued[]>();
  const remembered = new Map<ObjectId, Remembered>();
  const deadlines = new Deadlines<Queued>(clock, ({ change }) => change.expire());
  let starting: { readonly object: ObjectId; readonly queue: Queued[] }[] = [];
  let counter = 0;
  let calls = 0;
  let pending = 0;
  let stopped = false;

  const outbox =
    incarnation instanceof HoldfastError
      ? null
      : new Outbox(peer, clock, incarnation, timings.registerTimeoutMs);

  const notConnected: AcceptorAnswer = { answer: 'notVoter', reason: 'not connected' };

  const context: ChangeContext = {
    self: peer.self,
    clock,
    random: options.random.stream('register'),
    probe: options.probe,
    newCall: () => ++calls,
    newBallot() {
      counter += 1;
      return { counter, host: peer.self, incarnation: incarnation as Incarnation };
    },
    saw,
    isConnected: (voter) => peer.isConnected(voter.host),
    ask(voter, type, body, done) {
      if (!peer.isConnected(voter.host)) {
        // Nothing was sent, so nothing can have been done: as good as a refusal.
        clock.defer(() => done(null, notConnected));
        return;
      }
      peer.request(
        voter.host,
        type,
        body as JsonValue,
        noPayload,
        timings.registerTimeoutMs,
        (error, answer) => done(error, answer as unknown as AcceptorAnswer),
      );
    },
    propose(voters, proposal) {
      for (const voter of voters) {
        if (peer.isConnected(voter.host)) outbox?.propose(voter, proposal);
        else clock.defer(() => proposal.answered(voter, null, notConnected));
      }
    },
    remember(object, value) {
      remembered.delete(object);
      if (value === null || stopped) return;
      remembered.set(object, value);
      if (remembered.size <= rememberedBound) return;
      for (const oldest of remembered.keys()) {
        remembered.delete(oldest);
        break;
      }
    },
    teach(found, voters) {
      const record = found.record as ObjectRecord;
      const { host, incarnation: of, counter } = found.ballot as Ballot;
      const isOwn = host === peer.self && of === incarnation;
      for (const { voter, knows } of voters) {
        if (isOwn && (knows === 'record' || knows === 'sent')) {
          outbox?.tell(voter.host, record.id, counter);
          continue;
        }
        const request: LearnRequest = {
          object: record.id,
          voter,
          ballot: found.ballot as Ballot,
          record: knows === 'record' ? null : record,
          history: knows === 'record' ? [] : found.history,
        };
        peer.send(voter.host, 'register.learn', request as unknown as JsonValue);
      }
    },
    announce: (found, told) =>
      onCommitted(found.record as ObjectRecord, found.ballot as Ballot, told),
  };

  function saw(ballot: Ballot | null): void {
    if (ballot !== null && ballot.counter > counter) counter = ballot.counter;
  }

  function enqueue(
    target: Target,
    decide: Decide,
    how: ChangeOptions,
    done: (outcome: Outcome) => void,
  ) {
    const { object } = target;
    const queue = queues.get(object) ?? [];
    queues.set(object, queue);
    pending += 1;
    const change = new Change(context, target, decide, how, (outcome) => {
      pending -= 1;
      deadlines.remove(queued, timings.changeTimeoutMs);
      const wasFirst = queue[0] === queued;
      queue.splice(queue.indexOf(queued), 1);
      if (queue.length === 0) queues.delete(object);
      else if (wasFirst) startSoon(object, queue);
      done(outcome);
    });
    const queued = new Queued(change);
    deadlines.add(queued, timings.changeTimeoutMs);
    queue.push(queued);
    if (queue.length === 1) startSoon(object, queue);
  }

  /** All that is to begin in one turn begins together, so that it goes in the same messages. */
  function startSoon(object: ObjectId, queue: Queued[]): void {
    starting.push({ object, queue });
    if (starting.length > 1) return;
    clock.defer(() => {
      const all = starting;
      starting = [];
      for (const one of all) startFirst(one.object, one.queue);
      outbox?.flush();
    });
  }

  function startFirst(object: ObjectId, queue: Queued[]): void {
    if (!stopped) queue[0]?.change.start(remembered.get(object) ?? null);
  }

  return {
    get pending() {
      return pending;
    },
    saw,
    change(target, decide, how, done) {
      const refusal = stopped
        ? new HoldfastError('stopped', 'The registers of this host are stopped')
        : incarnation instanceof HoldfastError
          ? incarnation
          : null;
      if (refusal === null) return enqueue(target, decide, how, done);
      clock.defer(() => done({ status: 'failed', error: refusal }));
    },
    stop() {
      stopped = true;
      deadlines.stop();
      remembered.clear();
      for (const queue of [...queues.values()]) {
        for (const { change } of [...queue]) change.expire();
      }
    },
  };
}
