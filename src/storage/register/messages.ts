// What proposers and acceptors of registers say to each other (message types `register.*`).

import type { Ballot } from '../../model/ballot.ts';
import type { Incarnation, ObjectId } from '../../model/ids.ts';
import type { Lock, ObjectRecord, Voter, Voting } from '../../model/record.ts';

/**
 * The ballots that wrote a record and its last predecessors, newest first. To accept a record
 * unchanged in a newer ballot leaves it as it is. By it a proposer finds out whether a change of its
 * own, whose outcome it did not hear, is part of what it finds.
 */
export type History = readonly Ballot[];

/** As many writers are remembered; a change that was overtaken by more has an unknown outcome. */
export const historyLength = 6;

export interface PrepareRequest {
  readonly object: ObjectId;
  readonly voter: Voter;
  readonly ballot: Ballot;
  /** Makes the acceptor's (empty) state where there is none: only for a new object. */
  readonly create: boolean;
  /** All voters, kept by an empty state, so that it can clean itself up. One that joins makes its state in
   * any case. */
  readonly voting: Voting;
}

export interface AcceptRequest {
  readonly object: ObjectId;
  readonly voter: Voter;
  readonly ballot: Ballot;
  readonly record: ObjectRecord;
  readonly history: History;
  /** Promise this ballot too, so that the proposer's next change needs no prepare. */
  readonly nextBallot: Ballot;
}

/** Tells an acceptor of a record that is known to be committed. */
export interface LearnRequest {
  readonly object: ObjectId;
  readonly voter: Voter;
  readonly ballot: Ballot;
  /** Null for an acceptor that is known to have accepted it in this ballot. */
  readonly record: ObjectRecord | null;
  readonly history: History;
}

/** `register.chosen`: what was accepted in these ballots of one incarnation of the sender is committed. */
export interface ChosenNews {
  readonly incarnation: Incarnation;
  /** Objects and counters in turn. */
  readonly chosen: readonly (ObjectId | number)[];
}

export type AcceptorAnswer =
  | {
      readonly answer: 'promised';
      readonly ballot: Ballot | null;
      readonly record: ObjectRecord | null;
      readonly history: History;
      /** Whether the record is known to be committed. */
      readonly committed: boolean;
    }
  | { readonly answer: 'accepted' }
  /** A change was sent of a record that is not what is accepted here: nothing was done. */
  | { readonly answer: 'behind' }
  /** A newer ballot was promised. */
  | { readonly answer: 'outbid'; readonly highest: Ballot }
  /** The record would end a lock whose lease this voter still protects: the lock of its own accepted
   * record, null where that has none. */
  | { readonly answer: 'leased'; readonly remainingMs: number; readonly lock: Lock | null }
  | { readonly answer: 'notVoter'; readonly reason: string };
