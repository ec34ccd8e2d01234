// The acceptor: the voter's side of all registers of this store. It decides on the state in memory at
// once and answers when what it decided is durable; see docs/protocols/register.md, "What an
// acceptor keeps". It never forgets a promise, and it never answers with what a crash could undo.

import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { HostId, ObjectId, StoreId } from '../../model/ids.ts';
import {
  joinedAtCreation,
  type Lock,
  type ObjectRecord,
  sameVoter,
  type Voter,
  type Voting,
  votersOf,
  votingOf,
} from '../../model/record.ts';
import type { Log, LogFields } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Journal } from '../journal/journal.ts';
import { type Accepted, type AcceptorState, encodeEntry } from './acceptor-state.ts';
import type { Admission } from './admission.ts';
import { type Change, type ChangesAnswer, type ChangesHead, changedFrom } from './change-batch.ts';
import { ChangesEntry, CommittedEntry, type Register, StateEntry } from './journaling.ts';
import type { AcceptorAnswer, AcceptRequest, LearnRequest, PrepareRequest } from './messages.ts';
import { newest, replay } from './replay.ts';

/** Called exactly once, now or when the answer's ground is durable. An error: the store could not
 * take it, and whether it did is unknown. */
export type Answer = (error: HoldfastError | null, answer: AcceptorAnswer | null) => void;

export interface AcceptedState extends Accepted {
  readonly committed: boolean;
  /** False while a crash could still bring an older state back: protect by it, confirm nothing. */
  readonly durable: boolean;
}

export interface Acceptor {
  /** Why this voter answers nobody, or null. */
  readonly failure: HoldfastError | null;
  readonly store: StoreId | null;
  /** Registers with a state here. */
  readonly count: number;
  prepare(from: HostId, request: PrepareRequest, answer: Answer): void;
  accept(from: HostId, request: AcceptRequest, answer: Answer): void;
  /** `accept` of many records, each said as a change of what is accepted here; `bytes` says the same
   * as `changes`. The answer tells of those that are not accepted. */
  acceptChanges(
    from: HostId,
    head: ChangesHead,
    changes: readonly Change[],
    bytes: Uint8Array,
    answer: (error: HoldfastError | null, answer: ChangesAnswer) => void,
  ): void;
  learn(request: LearnRequest, answer: Answer): void;
  /** What was accepted in this ballot is chosen: the record, or null where neither it nor a newer one
   * is accepted here. */
  chosen(object: ObjectId, ballot: Ballot): ObjectRecord | 'newer' | null;
  accepted(object: ObjectId): AcceptedState | null;
  state(object: ObjectId): AcceptorState | null;
  all(): IterableIterator<[ObjectId, AcceptorState]>;
  /** Drops a register for good (a tombstone that all hosts have seen). */
  forget(object: ObjectId, done: (error: HoldfastError | null) => void): void;
}

/** So many forgotten objects are remembered, against messages that were long under way. */
const forgottenBound = 10_000;

interface AcceptorOptions {
  readonly self: HostId;
  /** The store's journal, or why there is none. */
  readonly journal: Journal | HoldfastError;
  readonly admission: Admission;
  readonly log: Log;
  readonly probe: Probe;
  /** A state that is not known to be committed (also: empty) came into being, or ceased to be. */
  readonly onOpen: (object: ObjectId, open: boolean) => void;
}

export function createAcceptor(options: AcceptorOptions): Acceptor {
  const { journal } = options;
  if (journal instanceof HoldfastError) return failedAcceptor(journal);
  return new DurableAcceptor(journal, options);
}

class DurableAcceptor implements Acceptor {
  readonly store: StoreId;
  readonly #self: HostId;
  readonly #journal: Journal;
  readonly #admission: Admission;
  readonly #log: Log;
  readonly #probe: Probe;
  readonly #onOpen: (object: ObjectId, open: boolean) => void;
  readonly #registers = new Map<ObjectId, Register>();
  readonly #forgotten = new Set<ObjectId>();
  /** The one that waits for the next batch. */
  #committed: CommittedEntry | null = null;
  /** The journal took nothing the last time. */
  #isInTrouble = false;

  constructor(journal: Journal, options: AcceptorOptions) {
    const { onOpen } = options;
    this.#self = options.self;
    this.#journal = journal;
    this.#admission = options.admission;
    this.#log = options.log;
    this.#probe = options.probe;
    this.#onOpen = onOpen;
    this.store = journal.superblock.state.store;
    journal.begin(
      (entry) => replay(this.#registers, entry),
      () => this.#live(),
    );
    for (const [object, register] of this.#registers) {
      register.written = register.state.accepted?.ballot ?? null;
      if (!register.state.committed) onOpen(object, true);
    }
  }

  get failure(): HoldfastError | null {
    return this.#journal.failure;
  }

  get count(): number {
    return this.#registers.size;
  }

  prepare(from: HostId, request: PrepareRequest, answer: Answer): void {
    const { object, ballot, voter } = request;
    if (ballot.host !== from) return answer(badBallot(ballot, from), null);
    let register = this.#find(object, voter);
    if (register === null && (request.create || joins(voter, request.voting))) {
      register = this.#create(object, voter, request.voting);
    }
    if (register === null) return answer(null, this.#notVoter(object, voter));
    const { promised, accepted, committed } = register.state;
    const least = newest(promised, accepted?.ballot ?? null);
    if (
      compareBallots(ballot, promised) < 0 ||
      compareBallots(ballot, accepted?.ballot ?? null) <= 0
    ) {
      return answer(null, { answer: 'outbid', highest: least as Ballot });
    }
    if (compareBallots(ballot, promised) > 0) {
      this.#change(object, register, { ...register.state, promised: ballot });
    }
    // What is reported is what was accepted at the time of the promise.
    this.#whenDurable(object, register, answer, {
      answer: 'promised',
      ballot: accepted?.ballot ?? null,
      record: accepted?.record ?? null,
      history: accepted?.history ?? [],
      committed,
    });
  }

  accept(from: HostId, request: AcceptRequest, answer: Answer): void {
    const { object, ballot, record, nextBallot, voter } = request;
    if (ballot.host !== from || nextBallot.host !== from)
      return answer(badBallot(ballot, from), null);
    let register = this.#find(object, voter);
    if (register === null && joins(voter, record)) {
      register = this.#create(object, voter, votingOf(record));
    }
    if (register === null) return answer(null, this.#notVoter(object, voter));
    const refusal = this.#vote(from, object, register, request);
    if (refusal !== null) return answer(null, refusal);
    const tellAndAnswer: Answer = (error, what) => {
      if (error === null)
        this.#probe.reached({ at: 'acceptor.accepted', object, ballot, record, voter });
      answer(error, what);
    };
    this.#whenDurable(object, register, tellAndAnswer, { answer: 'accepted' });
  }

  acceptChanges(
    from: HostId,
    head: ChangesHead,
    changes: readonly Change[],
    bytes: Uint8Array,
    answer: (error: HoldfastError | null, answer: ChangesAnswer) => void,
  ): void {
    const entry = new ChangesEntry(from, head, bytes);
    const refused: [number, AcceptorAnswer][] = [];
    let mustWait = false;
    for (let place = 0; place < changes.length; place += 1) {
      const change = changes[place] as Change;
      const { object, ballot } = change;
      const register = this.#find(object, head.voter);
      const isRepeated = compareBallots(register?.state.accepted?.ballot ?? null, ballot) === 0;
      const refusal =
        register === null
          ? this.#notVoter(object, head.voter)
          : this.#vote(from, object, register, change);
      if (refusal !== null || register === null) {
        refused.push([place, refusal as AcceptorAnswer]);
        entry.leaveOut(place);
        continue;
      }
      const { version } = register;
      const { record } = register.state.accepted as Accepted;
      if (version > register.durableVersion) mustWait = true;
      entry.taken.push({ place, change, record, register, version, isRepeated });
    }
    const finish = () => {
      for (const { change, record } of entry.taken) {
        const { object, ballot } = change;
        const { voter } = head;
        this.#probe.reached({ at: 'acceptor.accepted', object, ballot, record, voter });
      }
      answer(null, refused.length === 0 ? null : refused);
    };
    if (!mustWait) return finish();
    this.#journal.append(entry, (error) => {
      entry.settle(error);
      this.#tellOf(error, { changes: entry.taken.length });
      if (error === null) return finish();
      answer(error, null);
    });
  }

  learn(request: LearnRequest, answer: Answer): void {
    const { object, ballot, record, history, voter } = request;
    const register = this.#find(object, voter);
    if (register === null) {
      // Never created here (it missed the creation): it has promised nothing, so it may begin with
      // what is chosen. A tombstone needs no new state.
      if (record === null || record.kind === 'tombstone') {
        return answer(null, this.#notVoter(object, voter));
      }
      const created = this.#create(object, voter, votingOf(record));
      if (created === null) return answer(null, this.#notVoter(object, voter));
      const accepted = { ballot, record, history };
      this.#change(object, created, { ...created.state, accepted, committed: true });
      return this.#whenDurable(object, created, answer, { answer: 'accepted' });
    }
    const { accepted, committed } = register.state;
    const order = compareBallots(ballot, accepted?.ballot ?? null);
    if (order === 0 && !committed) this.#commit(object, register, ballot);
    if (order <= 0) return answer(null, { answer: 'accepted' });
    if (record === null) return answer(null, this.#notVoter(object, voter));
    this.#admission.learned(accepted?.record ?? null, record);
    // Even below a promise: see the document, "`learn` beyond a promise".
    this.#change(object, register, {
      ...register.state,
      accepted: { ballot, record, history },
      committed: true,
    });
    this.#whenDurable(object, register, answer, { answer: 'accepted' });
  }

  chosen(object: ObjectId, ballot: Ballot): ObjectRecord | 'newer' | null {
    const register = this.#registers.get(object);
    const accepted = register?.state.accepted ?? null;
    const order = compareBallots(ballot, accepted?.ballot ?? null);
    if (register === undefined || accepted === null || order > 0) return null;
    if (order < 0) return 'newer';
    if (!register.state.committed) this.#commit(object, register, ballot);
    return accepted.record;
  }

  accepted(object: ObjectId): AcceptedState | null {
    const register = this.#registers.get(object);
    if (register === undefined || register.state.accepted === null) return null;
    return {
      ...register.state.accepted,
      committed: register.state.committed,
      durable: register.durableVersion >= register.version,
    };
  }

  state(object: ObjectId): AcceptorState | null {
    return this.#registers.get(object)?.state ?? null;
  }

  *all(): IterableIterator<[ObjectId, AcceptorState]> {
    for (const [object, register] of this.#registers) yield [object, register.state];
  }

  forget(object: ObjectId, done: (error: HoldfastError | null) => void): void {
    if (this.#registers.delete(object)) this.#onOpen(object, false);
    this.#forgotten.add(object);
    if (this.#forgotten.size > forgottenBound) {
      for (const oldest of this.#forgotten) {
        this.#forgotten.delete(oldest);
        break;
      }
    }
    this.#journal.append(encodeEntry({ object, forgotten: true }), done);
  }

  #find(object: ObjectId, voter: Voter): Register | null {
    if (this.#journal.failure !== null) return null;
    const register = this.#registers.get(object);
    return register !== undefined && sameVoter(register.state.voter, voter) ? register : null;
  }

  /** An empty state, in memory only: the caller makes it durable with what it decides. */
  #create(object: ObjectId, voter: Voter, voting: Voting): Register | null {
    if (this.#journal.failure !== null) return null;
    // What this host said as an earlier voter of the object, which has left since, binds that one.
    const earlier = this.#registers.get(object)?.state.voter;
    if (earlier !== undefined && earlier.joined >= voter.joined) return null;
    if (voter.host !== this.#self || voter.store !== this.store) return null;
    if (this.#forgotten.has(object)) return null;
    const state: AcceptorState = {
      voter,
      voting,
      promised: null,
      accepted: null,
      committed: false,
    };
    const register = { state, version: 0, durableVersion: -1, written: null };
    this.#registers.set(object, register);
    this.#onOpen(object, true);
    return register;
  }

  /** The one place where a state moves. */
  #change(object: ObjectId, register: Register, next: AcceptorState): void {
    const before = register.state;
    if (compareBallots(next.promised, before.promised) < 0) throw new Error('a promise went back');
    if (compareBallots(next.accepted?.ballot ?? null, before.accepted?.ballot ?? null) < 0) {
      throw new Error('an accepted ballot went back');
    }
    register.state = next;
    register.version += 1;
    this.#onOpen(object, !next.committed);
  }

  /** Accepts what is proposed, in memory: null; or says why not, and then nothing has moved. */
  #vote(
    from: HostId,
    object: ObjectId,
    register: Register,
    proposal: AcceptRequest | Change,
  ): AcceptorAnswer | null {
    const { ballot, nextBallot } = proposal;
    const { promised, accepted, voter, voting } = register.state;
    if (accepted !== null && compareBallots(accepted.ballot, ballot) === 0) {
      // The same request again, or learned before; the promise on board may still be new.
      if (compareBallots(nextBallot, promised) > 0) {
        this.#change(object, register, { ...register.state, promised: nextBallot });
      }
      return null;
    }
    const least = newest(promised, accepted?.ballot ?? null);
    if (compareBallots(ballot, least) < 0) return { answer: 'outbid', highest: least as Ballot };
    const next = acceptedNext(accepted, proposal);
    if (next === null) return { answer: 'behind' };
    const refusal = this.#leased(accepted, next.record, from);
    if (refusal !== null) return refusal;
    const raised = newest(ballot, nextBallot);
    const state = { voter, voting, promised: raised, accepted: next, committed: false };
    this.#change(object, register, state);
    return null;
  }

  #commit(object: ObjectId, register: Register, ballot: Ballot): void {
    register.state = { ...register.state, committed: true };
    this.#onOpen(object, false);
    if (this.#journal.failure !== null) return;
    if (this.#committed === null) {
      this.#committed = new CommittedEntry(() => {
        this.#committed = null;
      });
      this.#journal.appendLazily(this.#committed);
    }
    this.#committed.add(object, ballot);
  }

  /** Answers when the present state, or a newer one, is on the disk. */
  #whenDurable(object: ObjectId, register: Register, answer: Answer, what: AcceptorAnswer): void {
    if (register.durableVersion >= register.version) return answer(null, what);
    const entry = new StateEntry(object, register);
    this.#journal.append(entry, (error) => {
      entry.settle(error);
      this.#tellOf(error, { object });
      if (error !== null) return answer(error, null);
      answer(null, what);
    });
  }

  /** It is asked for again and again while the trouble lasts. */
  #tellOf(error: HoldfastError | null, what: LogFields): void {
    if (error !== null) {
      const level = this.#isInTrouble ? 'debug' : 'warn';
      this.#log[level]('registers could not be saved', { ...what, reason: error.message });
    }
    this.#isInTrouble = error !== null;
  }

  #leased(accepted: Accepted | null, next: ObjectRecord, proposer: HostId): AcceptorAnswer | null {
    const current = accepted?.record ?? null;
    const remainingMs = this.#admission.admit(current, next, proposer);
    if (remainingMs <= 0) return null;
    return { answer: 'leased', remainingMs, lock: lockOf(current) };
  }

  #notVoter(object: ObjectId, voter: Voter): AcceptorAnswer {
    const failure = this.#journal.failure;
    if (failure !== null) return { answer: 'notVoter', reason: failure.message };
    const state = this.#registers.get(object)?.state;
    const asked = `${voter.host}/${voter.store}/${voter.joined}`;
    const reason =
      voter.store !== this.store
        ? `${this.#self} has the store ${this.store}, not ${voter.store}`
        : state === undefined
          ? `${this.#self} has no register of ${object}`
          : `${this.#self} votes for ${object} as joining ${state.voter.joined}, not as ${asked}`;
    return { answer: 'notVoter', reason };
  }

  *#live(): IterableIterator<Uint8Array> {
    for (const [object, { state }] of this.#registers) yield encodeEntry({ object, state });
  }
}

/** The acceptor of a store that can not be trusted: it is no voter of anything. */
function failedAcceptor(failure: HoldfastError): Acceptor {
  const refuse = (answer: Answer) => answer(null, { answer: 'notVoter', reason: failure.message });
  return {
    failure,
    store: null,
    count: 0,
    prepare: (_from, _request, answer) => refuse(answer),
    accept: (_from, _request, answer) => refuse(answer),
    acceptChanges(_from, _head, changes, _bytes, answer) {
      const reason = failure.message;
      answer(
        null,
        changes.map((_, place) => [place, { answer: 'notVoter', reason }]),
      );
    },
    chosen: () => null,
    learn: (_request, answer) => refuse(answer),
    accepted: () => null,
    state: () => null,
    all: () => new Map<ObjectId, AcceptorState>().entries(),
    forget: (_object, done) => done(failure),
  };
}

/** What would be accepted; null where the proposal is a change of something else than is accepted. */
function acceptedNext(
  accepted: Accepted | null,
  proposal: AcceptRequest | Change,
): Accepted | null {
  if (!('base' in proposal)) {
    const { ballot, record, history } = proposal;
    return { ballot, record, history };
  }
  if (accepted === null || compareBallots(accepted.ballot, proposal.base) !== 0) return null;
  return changedFrom(accepted, proposal);
}

/** Whether it becomes, or became, a voter by a change of the voters: by that alone it has no state. */
function joins(voter: Voter, voting: Voting): boolean {
  return voter.joined > joinedAtCreation && votersOf(voting).some((one) => sameVoter(one, voter));
}

export function lockOf(record: ObjectRecord | null): Lock | null {
  return record?.kind === 'namespace' ? record.lock : null;
}

function badBallot(ballot: Ballot, from: HostId): HoldfastError {
  return new HoldfastError(
    'bad-request',
    `${from} uses the ballot ${formatBallot(ballot)} of another host`,
  );
}
