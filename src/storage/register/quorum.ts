// Which promises a proposer goes by. Any majority of the promises received is a legal quorum (to
// leave some out is the same as if they had been lost), and where nothing is known to be committed
// the choice decides what the register goes on with. See docs/protocols/register.md.

import { type Ballot, compareBallots } from '../../model/ballot.ts';
import type { Lock, ObjectRecord, Voter } from '../../model/record.ts';
import { lockOf } from './acceptor.ts';
import type { History } from './messages.ts';

/** What an acceptor reported, or what a quorum of them amounts to. */
export interface Found {
  readonly ballot: Ballot | null;
  readonly record: ObjectRecord | null;
  readonly history: History;
  readonly committed: boolean;
  /** The record as JSON has no more bytes, where that is known. */
  readonly maxBytes?: number;
}

export interface Choice {
  readonly found: Found;
  /** Whether further promises could not lead to a better choice. */
  readonly settled: boolean;
}

export interface Promised {
  readonly voter: Voter;
  readonly found: Found;
}

/**
 * The record of the highest ballot of a quorum of the promises: of one whose record satisfies
 * `prefer` if there is one, else of all. All `promised` together are a quorum.
 */
export function chooseQuorum(
  promised: readonly Promised[],
  isQuorum: (voters: readonly Voter[]) => boolean,
  prefer: (record: ObjectRecord | null) => boolean,
): Choice {
  const sorted = [...promised].sort((a, b) => compareBallots(b.found.ballot, a.found.ballot));
  const promises = sorted.map((promise) => promise.found);
  const all = withKnowledge(promises[0] as Found, promises);
  // What is committed is in every quorum: there is nothing to choose.
  if (all.committed || prefer(all.record)) return { found: all, settled: true };
  for (const [index, candidate] of promises.entries()) {
    // The largest quorum with this record on top: all that are not newer.
    const first = promises.findIndex(
      (other) => compareBallots(other.ballot, candidate.ballot) === 0,
    );
    if (first < index) continue;
    if (!isQuorum(sorted.slice(first).map((promise) => promise.voter))) break;
    if (prefer(candidate.record))
      return { found: withKnowledge(candidate, promises), settled: true };
  }
  return { found: all, settled: false };
}

/** One acceptor's knowledge that the record is committed, and of its history, is as good as all
 * acceptors': who learned it from a directory knows none. */
function withKnowledge(found: Found, promises: readonly Found[]): Found {
  const same = promises.filter((other) => compareBallots(other.ballot, found.ballot) === 0);
  const { history } = same.reduce((a, b) => (b.history.length > a.history.length ? b : a), found);
  return { ...found, history, committed: same.some((other) => other.committed) };
}

export function sameLock(a: Lock | null, b: Lock | null): boolean {
  return a?.holder === b?.holder && a?.epoch === b?.epoch;
}

/** Whether the record keeps one of these locks, in which it names the holder and the epoch. */
export function keepsLock(record: ObjectRecord | null, locks: readonly Lock[]): boolean {
  const own = lockOf(record);
  return own !== null && locks.some((lock) => sameLock(own, lock));
}
