// What a change is asked for, how it may end, and what it needs from the proposer that runs it.

import type { Ballot } from '../../model/ballot.ts';
import type { HoldfastError } from '../../model/errors.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import type { ObjectRecord, Voter, Voting } from '../../model/record.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Random } from '../../ports/random.ts';
import type { AcceptorAnswer } from './messages.ts';
import type { Proposal } from './outbox.ts';
import type { Found } from './quorum.ts';
import type { Lagging } from './tally.ts';

export interface Target {
  readonly object: ObjectId;
  /** The voters as far as the caller knows; where the record names others, those count. */
  readonly voting: Voting;
  /** The object is new: voters make their state. */
  readonly create?: boolean;
}

/** To write the very record that was given means to keep it: it gets no new history. */
export type Decision = { readonly write: ObjectRecord } | { readonly refuse: HoldfastError };

/** Called once per try, each time with what the register then holds: it must be pure. */
export type Decide = (current: ObjectRecord | null) => Decision;

export type Outcome =
  | {
      readonly status: 'committed';
      readonly record: ObjectRecord;
      readonly ballot: Ballot;
      /** What `decide` made the record from; the record itself where it was kept. */
      readonly read: ObjectRecord | null;
    }
  /** `decide` refused, looking at this record, which is committed (null: nothing ever was). */
  | {
      readonly status: 'refused';
      readonly error: HoldfastError;
      readonly record: ObjectRecord | null;
      readonly ballot: Ballot | null;
    }
  /**
   * `inaccessible`, `conflict` (others were always faster), `store-damaged` (this host can not propose),
   * `lock-held` (with the time after which a majority may admit it): it did not happen and never will.
   * `outcome-unknown`: it may have happened, or may still happen.
   */
  | { readonly status: 'failed'; readonly error: HoldfastError; readonly remainingMs?: number };

export interface ChangeOptions {
  /** Accepts also an unchanged record that is known to be committed in a ballot of its own: so it
   * reaches voters that took something newer, which was never chosen. */
  readonly renew?: boolean;
  /** Which record to go on with where the choice is free; by default one whose lock this host holds. */
  readonly prefer?: (record: ObjectRecord | null) => boolean;
}

/** Holding promises of a majority for `ballot`, all of which have accepted `found`. */
export interface Remembered {
  readonly ballot: Ballot;
  readonly found: Found;
  readonly voting: Voting;
}

/** What the proposer gives to a change. */
export interface ChangeContext {
  readonly self: HostId;
  readonly clock: Clock;
  readonly random: Random;
  readonly probe: Probe;
  /** Names a change among all of this run. */
  newCall(): number;
  newBallot(): Ballot;
  /** Later ballots of this host will be above this one. */
  saw(ballot: Ballot | null): void;
  isConnected(voter: Voter): boolean;
  ask(
    voter: Voter,
    type: 'register.prepare' | 'register.accept',
    body: unknown,
    done: (error: HoldfastError | null, answer: AcceptorAnswer) => void,
  ): void;
  /** Accepts what is said as a change, at all these voters. */
  propose(voters: readonly Voter[], proposal: Proposal): void;
  remember(object: ObjectId, remembered: Remembered | null): void;
  /** The record is chosen: tells these voters. */
  teach(found: Found, voters: readonly Lagging[]): void;
  /** The record is chosen, perhaps for long, but somebody may not have heard of it; these hosts are told
   * as voters that have it. */
  announce(found: Found, told: readonly HostId[]): void;
}
