// One change of one register: prepare, decide, accept, and again where somebody else was faster. It is
// a state machine of messages and timers; the argument for each step is in docs/protocols/register.md.
// `proposer.ts` sees to it that a register has only one change at a time on this host.

import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import type { HostId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import {
  groupsOf,
  isQuorum,
  isVotingStep,
  type Lock,
  majority,
  type ObjectRecord,
  sameVoter,
  sameVoters,
  sameVoting,
  type Voter,
  type Voting,
  votersOf,
  votingOf,
} from '../../model/record.ts';
import type { Timer } from '../../ports/clock.ts';
import type { ChangeEnd } from '../../ports/probe.ts';
import { lockOf } from './acceptor.ts';
import { changeText, historyAfter, type Change as RecordChange } from './change-batch.ts';
import type { AcceptorAnswer, History } from './messages.ts';
import type {
  ChangeContext,
  ChangeOptions,
  Decide,
  Decision,
  Outcome,
  Remembered,
  Target,
} from './outcome.ts';
import { maxGrowth, type PatchText, patchBetween, unchanged } from './patch.ts';
import { chooseQuorum, type Found, keepsLock, sameLock } from './quorum.ts';
import { countAnswer, emptyTally, type Lagging, lagging, type Tally } from './tally.ts';

/** How long to wait for more answers where they could save a try. */
const graceMs = 100;
const backOffMs = { least: 10, most: 500 };
const maxVoterSwitches = 5;
const maxLeasedTries = 3;
const encoder = new TextEncoder();

/** An own record, and what it was made from. */
interface Pending {
  readonly record: ObjectRecord;
  readonly read: ObjectRecord | null;
}

export class Change {
  readonly #context: ChangeContext;
  readonly #target: Target;
  readonly #decide: Decide;
  readonly #prefer: (record: ObjectRecord | null) => boolean;
  readonly #renew: boolean;
  readonly #done: (outcome: Outcome) => void;
  #voting: Voting;
  #voterSwitches = 0;
  #isBackAtTarget = false;
  #tries = 0;
  #leasedTries = 0;
  /** Locks whose leases refused a try: later tries prefer records that keep them. */
  readonly #protectedLocks: Lock[] = [];
  /** Own records whose accept had no clear outcome, by ballot, each with what it was made from, and
   * the ballot that wrote the record they began from. */
  readonly #pending = new Map<string, Pending>();
  #oldestPending: Ballot | null = null;
  #base: Ballot | null = null;
  /** What `decide` wrote, as a change of what this host remembers of its last success; null: the record
   * goes as a whole. */
  #patch: PatchText | null = null;
  #maxBytes: number = limits.maxRecordBytes;
  /** Set when the change itself is refused for a lease, and only what is pending must be ended. */
  #settling: Outcome | null = null;
  #writing = false;
  #phase = 0;
  #timer: Timer | null = null;
  /** Its name for the probe; null before it begins. */
  #call: number | null = null;
  #finished = false;
  #lastReason = 'another change of this host was not finished';
  #lastCode: 'inaccessible' | 'conflict' = 'conflict';

  constructor(
    context: ChangeContext,
    target: Target,
    decide: Decide,
    options: ChangeOptions,
    done: (outcome: Outcome) => void,
  ) {
    this.#context = context;
    this.#target = target;
    this.#decide = decide;
    this.#voting = target.voting;
    this.#prefer = options.prefer ?? ((record) => lockOf(record)?.holder === context.self);
    this.#renew = options.renew === true;
    this.#done = done;
  }

  start(remembered: Remembered | null): void {
    if (this.#call !== null || this.#finished) return;
    const { probe } = this.#context;
    this.#call = this.#context.newCall();
    probe.reached({ at: 'register.invoked', object: this.#target.object, call: this.#call });
    if (remembered === null) return this.#prepare();
    this.#voting = remembered.voting;
    this.#tries += 1;
    this.#proceed(remembered.ballot, remembered.found, true, []);
  }

  /** The time is up. */
  expire(): void {
    if (this.#finished) return;
    if (this.#writing || this.#pending.size > 0) return this.#finish(this.#unknown());
    const what = `${this.#target.object} could not be changed in time: ${this.#lastReason}`;
    this.#finish({ status: 'failed', error: new HoldfastError(this.#lastCode, what) });
  }

  #prepare(): void {
    const { object, create } = this.#target;
    this.#tries += 1;
    const ballot = this.#context.newBallot();
    const voting = this.#voting;
    const body = { object, ballot, create: create === true, voting };
    const answered = this.#listen(voting, (tally, graceOver) => {
      const hasPromised = isAmong(tally.promised.map((promise) => promise.voter));
      if (isQuorum(voting, hasPromised)) {
        // Voters that a few want to have, and that do not answer, must not be in everybody's way.
        const { found, settled } = chooseQuorum(
          tally.promised,
          (voters) => isQuorum(voting, isAmong(voters)),
          (record) => this.#prefers(record) && (record === null || isQuorum(record, hasPromised)),
        );
        if (!settled && tally.outstanding.length > 0 && !graceOver) return 'wait';
        this.#enter();
        this.#proceed(ballot, found, false, lagging(found, tally, votersOf(voting)));
      } else if (!isQuorum(voting, either(hasPromised, isAmong(tally.outstanding)))) {
        this.#enter();
        this.#prepareFailed(tally);
      }
      return 'more';
    });
    for (const voter of votersOf(voting)) {
      this.#context.ask(voter, 'register.prepare', { ...body, voter }, (error, answer) =>
        answered(voter, error, answer),
      );
    }
  }

  #prefers(record: ObjectRecord | null): boolean {
    if (this.#protectedLocks.length > 0) return keepsLock(record, this.#protectedLocks);
    return this.#prefer(record);
  }

  #prepareFailed(tally: Tally): void {
    const newest = tally.promised
      .map((promise) => promise.found)
      .sort((a, b) => compareBallots(b.ballot, a.ballot))[0];
    if (newest !== undefined && this.#switchVoters(newest)) return;
    this.#noMajority(tally);
  }

  /** Begins again at once with the voters of the record where they are others; true if so, and not too often. */
  #switchVoters(found: Found): boolean {
    const { record } = found;
    if (record === null || sameVoting(record, this.#voting)) return false;
    this.#voterSwitches += 1;
    if (this.#voterSwitches > maxVoterSwitches) return false;
    this.#voting = votingOf(record);
    this.#prepare();
    return true;
  }

  #noMajority(tally: Tally): void {
    const reasons = tally.silent.map(({ voter, reason }) => `${voter.host}: ${reason}`).join('; ');
    const isSilent = isAmong(tally.silent.map(({ voter }) => voter));
    const unreachable = !isQuorum(this.#voting, (voter) => !isSilent(voter));
    this.#lastReason = unreachable ? reasons : 'other hosts were faster';
    this.#lastCode = unreachable ? 'inaccessible' : 'conflict';
    if (unreachable && !sameVoting(this.#voting, this.#target.voting) && !this.#isBackAtTarget) {
      // What was remembered or found may be older than what the caller knows.
      this.#isBackAtTarget = true;
      this.#voting = this.#target.voting;
      return this.#retryLater();
    }
    if (unreachable && this.#pending.size === 0) {
      const what = `No majority of the voters of ${this.#target.object} answers (${reasons})`;
      return this.#finish({ status: 'failed', error: new HoldfastError('inaccessible', what) });
    }
    this.#retryLater();
  }

  #retryLater(): void {
    const bound = Math.min(backOffMs.most, backOffMs.least * 2 ** Math.min(this.#tries, 10));
    this.#timer = this.#context.clock.after(bound * (0.5 + this.#context.random.next() / 2), () =>
      this.#prepare(),
    );
  }

  /** With promises of a majority for `ballot`; `fromMemory`: they are those of the last success. */
  #proceed(ballot: Ballot, found: Found, fromMemory: boolean, behind: readonly Lagging[]): void {
    this.#patch = null;
    if (found.record !== null && !isAskedWith(found.record, this.#voting)) {
      // However often it has begun again: what it found is changed with a majority of its own voters, or not at all.
      if (this.#switchVoters(found)) return;
      this.#voting = votingOf(found.record);
      this.#lastReason = 'its voters are being changed';
      this.#lastCode = 'conflict';
      return this.#retryLater();
    }
    // They may be fewer than were asked: who was to join in a change that did not happen has no say in what follows.
    if (found.record !== null) this.#voting = votingOf(found.record);
    if (this.#pending.size > 0) {
      const mine = found.history.map(formatBallot).find((key) => this.#pending.has(key));
      if (mine !== undefined && found.record !== null) {
        const { record, read } = this.#pending.get(mine) as Pending;
        return this.#accept(ballot, found.record, found, (at) => ({
          status: 'committed',
          record,
          ballot: at,
          read,
        }));
      }
      if (!this.#didNotHappenIn(found)) return this.#finish(this.#unknown());
      this.#base = found.history[0] ?? null;
    }
    const decision = this.#settling === null ? this.#ask(found, fromMemory) : null;
    const write = decision !== null && 'write' in decision ? decision.write : null;
    if (write !== null && write !== found.record) {
      if (found.record !== null && !found.committed && !sameVoting(write, found.record)) {
        // Voters change from what is committed only: that first, and then again.
        return this.#accept(ballot, found.record, found, () => null);
      }
      if (this.#pending.size === 0) this.#base = found.history[0] ?? null;
      return this.#accept(ballot, write, found, (at) => ({
        status: 'committed',
        record: write,
        ballot: at,
        read: found.record,
      }));
    }
    const outcome = (at: Ballot | null): Outcome => {
      if (this.#settling !== null) return this.#settling;
      if (decision !== null && 'refuse' in decision) {
        return { status: 'refused', error: decision.refuse, record: found.record, ballot: at };
      }
      const record = found.record as ObjectRecord;
      return { status: 'committed', record, ballot: at as Ballot, read: record };
    };
    if (found.record === null) {
      // Nothing can be accepted in order to end what is pending.
      return this.#finish(this.#pending.size > 0 ? this.#unknown() : outcome(null));
    }
    if (fromMemory) this.#patch = unchanged;
    if (fromMemory || this.#renew || !found.committed || this.#pending.size > 0) {
      return this.#accept(ballot, found.record, found, outcome);
    }
    if (behind.length > 0) this.#context.teach(found, behind);
    // Who wrote it may have died before it told anybody.
    const isNews = behind.some(({ knows }) => knows === 'older' || knows === 'record');
    if (isNews) this.#context.announce(found, []);
    this.#finish(outcome(found.ballot));
  }

  /** Whether what is found proves that no pending record is a part of it. */
  #didNotHappenIn(found: Found): boolean {
    if (compareBallots(found.ballot, this.#oldestPending) < 0) return true;
    const base = this.#base;
    return base !== null && found.history.some((ballot) => compareBallots(ballot, base) === 0);
  }

  #ask(found: Found, fromMemory: boolean): Decision {
    const current = found.record;
    let decision: Decision;
    try {
      decision = this.#decide(current);
    } catch (error) {
      return { refuse: asHoldfastError(error, 'bad-request') };
    }
    if (!('write' in decision) || decision.write === current) return decision;
    const problem = this.#problem(decision.write, found, fromMemory);
    return problem === null ? decision : { refuse: new HoldfastError('bad-request', problem) };
  }

  #problem(record: ObjectRecord, found: Found, fromMemory: boolean): string | null {
    const { object } = this.#target;
    const current = found.record;
    if (record.id !== object) return `The record of ${record.id} was written to ${object}`;
    if (!isVotingStep(current ?? this.#voting, record))
      return `The voters of ${object} can not be changed so`;
    if (fromMemory && current !== null) this.#patch = patchBetween(current, record);
    const grown = (found.maxBytes ?? limits.maxRecordBytes) + maxGrowth(this.#patch);
    this.#maxBytes =
      this.#patch !== null && grown <= limits.maxRecordBytes
        ? grown
        : encoder.encode(JSON.stringify(record)).length;
    if (this.#maxBytes <= limits.maxRecordBytes) return null;
    return `The record of ${object} has ${this.#maxBytes} bytes; at most ${limits.maxRecordBytes} are allowed`;
  }

  /** Proposes `record`: what was found, or what replaces it. */
  #accept(
    ballot: Ballot,
    record: ObjectRecord,
    found: Found,
    /** Null: to go on from there. */
    outcome: (at: Ballot) => Outcome | null,
  ): void {
    const { object } = this.#target;
    const writes = record !== found.record;
    const history: History = writes ? historyAfter(ballot, found.history) : found.history;
    const nextBallot = this.#context.newBallot();
    const maxBytes = writes ? this.#maxBytes : (found.maxBytes ?? limits.maxRecordBytes);
    // Those of what it is made from, and its own: one contains the other.
    const voting = record.nextVoters === undefined ? this.#voting : votingOf(record);
    const voters = votersOf(voting);
    if (!isQuorum(voting, (voter) => this.#context.isConnected(voter))) {
      // It could not be chosen now: better not to leave it with a few.
      const tally = emptyTally([]);
      for (const voter of voters) {
        if (this.#context.isConnected(voter)) continue;
        tally.silent.push({ voter, definite: true, reason: 'not connected' });
      }
      return this.#noMajority(tally);
    }
    this.#writing = writes;
    this.#context.remember(object, null);
    const { probe } = this.#context;
    let isAcceptedOnce = false;
    probe.reached({ at: 'register.accepting', object, ballot, record });
    const answered = this.#listen(voting, (tally, graceOver) => {
      const hasAccepted = isAmong(tally.accepted);
      if (tally.accepted.length === 1 && voters.length > 1 && !isAcceptedOnce) {
        isAcceptedOnce = true;
        probe.reached({ at: 'register.acceptedOne', object });
      }
      if (isQuorum(voting, hasAccepted)) {
        this.#enter();
        probe.reached({ at: 'register.committed', object, ballot, record });
        const chosen: Found = { ballot, record, history, committed: true, maxBytes };
        const promises = { ballot: nextBallot, found: chosen, voting: votingOf(record) };
        this.#context.remember(object, promises);
        this.#tellChosen(chosen, voters, tally);
        this.#voting = promises.voting;
        const result = outcome(ballot);
        if (result === null) this.#proceed(nextBallot, chosen, true, []);
        else this.#finish(result);
      } else if (!isQuorum(voting, either(hasAccepted, isAmong(tally.outstanding)))) {
        // If nobody took it, the last answers may make sure that nothing is pending.
        if (tally.accepted.length === 0 && tally.outstanding.length > 0 && !graceOver)
          return 'wait';
        this.#enter();
        this.#acceptFailed(ballot, record, found, tally);
      }
      return 'more';
    });
    const ask = (voter: Voter) => {
      const body = { object, voter, ballot, record, history, nextBallot };
      this.#context.ask(voter, 'register.accept', body, (error, answer) =>
        answered(voter, error, answer),
      );
    };
    const patch = this.#patch;
    this.#patch = null;
    if (patch === null || found.ballot === null) return voters.forEach(ask);
    const phase = this.#phase;
    const change: RecordChange = {
      object,
      ballot,
      nextBallot,
      base: found.ballot,
      patch: patch.patch,
      record,
    };
    this.#context.propose(voters, {
      change,
      text: changeText(change, patch.text),
      answered: (of, error, answer) => {
        // Voters that change are told the whole record, so there is one of each host here.
        const voter = voters.find(({ host }) => host === of.host) as Voter;
        if (answer?.answer !== 'behind') answered(voter, error, answer as AcceptorAnswer);
        else if (this.#phase === phase && !this.#finished) ask(voter);
      },
    });
  }

  /** Who took it, or was sent it and may have, needs no copy. */
  #tellChosen(chosen: Found, voters: readonly Voter[], tally: Tally): void {
    const learners: Lagging[] = [];
    const told: HostId[] = [];
    for (const voter of voters) {
      const knows = tally.accepted.includes(voter)
        ? 'record'
        : tally.outstanding.includes(voter)
          ? 'sent'
          : 'older';
      learners.push({ voter, knows });
      if (knows !== 'older') told.push(voter.host);
    }
    this.#context.teach(chosen, learners);
    this.#context.announce(chosen, told);
  }

  #acceptFailed(ballot: Ballot, record: ObjectRecord, found: Found, tally: Tally): void {
    this.#writing = false;
    const maybe =
      tally.accepted.length > 0 ||
      tally.outstanding.length > 0 ||
      tally.silent.some((voter) => !voter.definite);
    const writes = record !== found.record;
    if (writes && maybe) {
      if (this.#pending.size === 0) this.#oldestPending = ballot;
      this.#pending.set(formatBallot(ballot), { record, read: found.record });
    }
    if (tally.leased.length > 0) return this.#leased(writes, found, tally);
    this.#noMajority(tally);
  }

  #leased(writes: boolean, found: Found, tally: Tally): void {
    const locks = tally.leased.flatMap(({ lock }) => (lock === null ? [] : [lock]));
    const foundEndsLock = locks.some((lock) => !sameLock(lock, lockOf(found.record)));
    this.#lastReason = 'a lease protects its lock';
    this.#leasedTries += 1;
    this.#protectedLocks.push(...locks);
    // What was found ends the lock (a record that a minority took): another quorum may keep it.
    if (foundEndsLock && this.#leasedTries <= maxLeasedTries) return this.#prepare();
    const outcome = this.#lockHeld(tally);
    if (this.#pending.size === 0) return this.#finish(outcome);
    this.#settling = outcome;
    if (writes) this.#prepare();
    else this.#retryLater();
  }

  #lockHeld(tally: Tally): Outcome {
    const { object } = this.#target;
    const waits = tally.leased.map(({ remainingMs }) => remainingMs).sort((a, b) => a - b);
    const needed = majority(votersOf(this.#voting).length);
    const missing = Math.max(1, needed - tally.accepted.length);
    const remainingMs = waits[Math.min(missing, waits.length) - 1] as number;
    const holder = tally.leased.find(({ lock }) => lock !== null)?.lock?.holder ?? 'another host';
    const error = new HoldfastError(
      'lock-held',
      `The lock of ${object} is held by ${holder}, whose lease runs for ${Math.ceil(remainingMs)} ms more`,
    );
    return { status: 'failed', error, remainingMs };
  }

  /** What is to be told the answers of the voters to the next message; `evaluate` is called after each
   * until another phase is entered. */
  #listen(
    voting: Voting,
    evaluate: (tally: Tally, graceOver: boolean) => 'wait' | 'more',
  ): (voter: Voter, error: HoldfastError | null, answer: AcceptorAnswer) => void {
    const phase = this.#enter();
    const tally = emptyTally(votersOf(voting));
    let graceOver = false;
    const consider = () => {
      if (this.#phase !== phase || evaluate(tally, graceOver) === 'more' || this.#timer !== null)
        return;
      this.#timer = this.#context.clock.after(graceMs, () => {
        graceOver = true;
        consider();
      });
    };
    return (voter, error, answer) => {
      if (this.#phase !== phase || this.#finished) return;
      if (error === null && answer.answer === 'promised') this.#context.saw(answer.ballot);
      if (error === null && answer.answer === 'outbid') this.#context.saw(answer.highest);
      countAnswer(tally, voter, error, answer);
      consider();
    };
  }

  /** From here on, answers to earlier messages count no more. */
  #enter(): number {
    this.#timer?.cancel();
    this.#timer = null;
    this.#phase += 1;
    return this.#phase;
  }

  #unknown(): Outcome {
    const what = `Whether ${this.#target.object} was changed is not known: ${this.#lastReason}`;
    return { status: 'failed', error: new HoldfastError('outcome-unknown', what) };
  }

  #finish(outcome: Outcome): void {
    this.#enter();
    this.#finished = true;
    if (this.#call !== null) this.#tellReturned(this.#call, outcome);
    this.#done(outcome);
  }

  #tellReturned(call: number, outcome: Outcome): void {
    const { object } = this.#target;
    const { probe } = this.#context;
    let end: ChangeEnd = 'changed';
    let record: ObjectRecord | null = null;
    let read: ObjectRecord | null = null;
    if (outcome.status === 'committed') {
      ({ record, read } = outcome);
    } else if (outcome.status === 'refused') {
      end = 'refused';
      read = outcome.record;
    } else {
      end = outcome.error.code === 'outcome-unknown' ? 'unknown' : 'failed';
    }
    probe.reached({ at: 'register.returned', object, call, outcome: end, record, read });
  }
}

/** All groups of the record are among those asked: of each of them a majority has promised. */
function isAskedWith(record: Voting, asked: Voting): boolean {
  return groupsOf(record).every((group) => groupsOf(asked).some((one) => sameVoters(one, group)));
}

function isAmong(voters: readonly Voter[]): (voter: Voter) => boolean {
  return (voter) => voters.some((other) => sameVoter(other, voter));
}

function either(a: (voter: Voter) => boolean, b: (voter: Voter) => boolean) {
  return (voter: Voter) => a(voter) || b(voter);
}
