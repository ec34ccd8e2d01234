// The answers to one broadcast of a change, counted.

import { compareBallots } from '../../model/ballot.ts';
import type { HoldfastError } from '../../model/errors.ts';
import { type Lock, sameVoter, type Voter } from '../../model/record.ts';
import type { AcceptorAnswer } from './messages.ts';
import type { Found } from './quorum.ts';

export interface Tally {
  /** They have not answered yet. */
  outstanding: readonly Voter[];
  readonly promised: { readonly voter: Voter; readonly found: Found }[];
  readonly accepted: Voter[];
  readonly leased: { readonly remainingMs: number; readonly lock: Lock | null }[];
  /** Why voters gave no answer of the protocol; `definite`: they did not and will not do it. */
  readonly silent: { readonly voter: Voter; readonly definite: boolean; readonly reason: string }[];
}

export function emptyTally(voters: readonly Voter[]): Tally {
  return { outstanding: voters, promised: [], accepted: [], leased: [], silent: [] };
}

export function countAnswer(
  tally: Tally,
  voter: Voter,
  error: HoldfastError | null,
  answer: AcceptorAnswer,
): void {
  tally.outstanding = tally.outstanding.filter((other) => other !== voter);
  if (error !== null) {
    // A bad request was refused before anything was done; all else may have been done.
    const definite = error.code === 'bad-request';
    tally.silent.push({ voter, definite, reason: error.message });
  } else if (answer.answer === 'promised') {
    const { ballot, record, history, committed } = answer;
    tally.promised.push({ voter, found: { ballot, record, history, committed } });
  } else if (answer.answer === 'accepted') {
    tally.accepted.push(voter);
  } else if (answer.answer === 'leased') {
    tally.leased.push({ remainingMs: answer.remainingMs, lock: answer.lock });
  } else if (answer.answer === 'notVoter') {
    tally.silent.push({ voter, definite: true, reason: answer.reason });
  }
}

/** A voter that is to be told of a chosen record. */
export interface Lagging {
  readonly voter: Voter;
  /** `record`: has it, and only does not know that it is chosen; `sent`: was sent it, and did not answer
   * yet; `unheard`: did not answer yet. */
  readonly knows: 'nothing' | 'unheard' | 'older' | 'sent' | 'record';
}

/** The voters that are not known to know what is found as committed. */
export function lagging(found: Found, tally: Tally, voters: readonly Voter[]): Lagging[] {
  return voters.flatMap((voter): Lagging[] => {
    const own = tally.promised.find((promise) => sameVoter(promise.voter, voter))?.found;
    if (own === undefined) {
      const silent = tally.silent.find((other) => sameVoter(other.voter, voter));
      return [{ voter, knows: silent?.definite ? 'nothing' : 'unheard' }];
    }
    const order = compareBallots(own.ballot, found.ballot);
    if (order > 0 || (order === 0 && own.committed)) return [];
    return [{ voter, knows: order === 0 ? 'record' : 'older' }];
  });
}
