// The acceptor: the voter's side of all registers of this store. It decides on the state in memory at
// once and answers when what it decided is durable; see docs/protocols/register.md, "What an
// acceptor keeps". It never forgets a promise, and it never answers with what a crash could undo.

import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { HostId, ObjectId, StoreId } from '../../model/ids.ts';
import {
  type Lock,
  type ObjectRecord,
  sameVoter,
  type Voter,
  type Voting,
  votingOf,
} from '../../model/record.ts';
import type { Log } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Journal } from '../journal/journal.ts';
import { type Accepted, type AcceptorState, decodeEntry, encodeEntry } from './acceptor-state.ts';
import type { Admission } from './admission.ts';
import type { AcceptorAnswer, AcceptRequest, LearnRequest, PrepareRequest } from './messages.ts';

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
  learn(request: LearnRequest, answer: Answer): void;
  accepted(object: ObjectId): AcceptedState | null;
  state(object: ObjectId): AcceptorState | null;
  all(): IterableIterator<[ObjectId, AcceptorState]>;
  /** Drops a register for good (a tombstone that all hosts have seen). */
  forget(object: ObjectId, done: (error: HoldfastError | null) => void): void;
}

interface Register {
  state: AcceptorState;
  /** Counts the states; those up to `durableVersion` (or a newer one) are on the disk. */
  version: number;
  durableVersion: number;
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
      (entry) => this.#replay(entry),
      () => this.#live(),
    );
    for (const [object, { state }] of this.#registers) if (!state.committed) onOpen(object, true);
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
    const { object, ballot, record, history, nextBallot, voter } = request;
    if (ballot.host !== from || nextBallot.host !== from)
      return answer(badBallot(ballot, from), null);
    let register = this.#find(object, voter);
    if (register === null && joins(voter, record)) {
      register = this.#create(object, voter, votingOf(record));
    }
    if (register === null) return answer(null, this.#notVoter(object, voter));
    const { promised, accepted } = register.state;
    const tellAndAnswer: Answer = (error, what) => {
      if (error === null) this.#probe.reached({ at: 'acceptor.accepted', object, ballot, record });
      answer(error, what);
    };
    if (accepted !== null && compareBallots(accepted.ballot, ballot) === 0) {
      // The same request again, or learned before; the promise on board may still be new.
      if (compareBallots(nextBallot, promised) > 0) {
        this.#change(object, register, { ...register.state, promised: nextBallot });
      }
      return this.#whenDurable(object, register, tellAndAnswer, { answer: 'accepted' });
    }
    const least = newest(promised, accepted?.ballot ?? null);
    if (compareBallots(ballot, least) < 0) {
      return answer(null, { answer: 'outbid', highest: least as Ballot });
    }
    const refusal = this.#leased(accepted, record, from);
    if (refusal !== null) return answer(null, refusal);
    this.#change(object, register, {
      ...register.state,
      promised: newest(ballot, nextBallot),
      accepted: { ballot, record, history },
      committed: false,
    });
    this.#whenDurable(object, register, tellAndAnswer, { answer: 'accepted' });
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
    if (order === 0 && !committed) {
      register.state = { ...register.state, committed: true };
      this.#onOpen(object, false);
      // A hint against needless finishing after a restart: nobody has to wait for it.
      this.#journal.appendLazily(encodeEntry({ object, committed: ballot }));
    }
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
    const register = { state, version: 0, durableVersion: -1 };
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

  /** Answers when the present state, or a newer one, is on the disk. */
  #whenDurable(object: ObjectId, register: Register, answer: Answer, what: AcceptorAnswer): void {
    const { version, state } = register;
    if (register.durableVersion >= version) return answer(null, what);
    this.#journal.append(encodeEntry({ object, state }), (error) => {
      if (error !== null) {
        this.#log.warn('a register could not be saved', { object, reason: error.message });
        return answer(error, null);
      }
      register.durableVersion = Math.max(register.durableVersion, version);
      answer(null, what);
    });
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

  #replay(bytes: Uint8Array): void {
    const entry = decodeEntry(bytes);
    if ('forgotten' in entry) {
      this.#registers.delete(entry.object);
    } else if ('state' in entry) {
      this.#registers.set(entry.object, { state: entry.state, version: 0, durableVersion: 0 });
    } else {
      const register = this.#registers.get(entry.object);
      const accepted = register?.state.accepted ?? null;
      if (register === undefined || compareBallots(accepted?.ballot ?? null, entry.committed) !== 0)
        return;
      register.state = { ...register.state, committed: true };
    }
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
    learn: (_request, answer) => refuse(answer),
    accepted: () => null,
    state: () => null,
    all: () => new Map<ObjectId, AcceptorState>().entries(),
    forget: (_object, done) => done(failure),
  };
}

/** Whether it becomes a voter by the change of voters that is under way. */
function joins(voter: Voter, { voters, nextVoters }: Voting): boolean {
  const isIn = (group: readonly Voter[]) => group.some((other) => sameVoter(other, voter));
  return nextVoters !== undefined && isIn(nextVoters) && !isIn(voters);
}

export function lockOf(record: ObjectRecord | null): Lock | null {
  return record?.kind === 'namespace' ? record.lock : null;
}

function newest(a: Ballot | null, b: Ballot | null): Ballot | null {
  return compareBallots(a, b) >= 0 ? a : b;
}

function badBallot(ballot: Ballot, from: HostId): HoldfastError {
  return new HoldfastError(
    'bad-request',
    `${from} uses the ballot ${formatBallot(ballot)} of another host`,
  );
}
