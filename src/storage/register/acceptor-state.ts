// The state of one register at one acceptor, and how it is written into the journal: as a whole, so
// that any later entry makes up for an earlier one that failed; or as the changes that many registers
// took in one message, where the journal has what they are made from (`journaling.ts` sees to that).

import type { Ballot } from '../../model/ballot.ts';
import type { HostId, Incarnation, ObjectId } from '../../model/ids.ts';
import type { ObjectRecord, Voter, Voting } from '../../model/record.ts';
import type { JournaledHead } from './change-batch.ts';
import type { History } from './messages.ts';

export interface Accepted {
  readonly ballot: Ballot;
  readonly record: ObjectRecord;
  readonly history: History;
}

export interface AcceptorState {
  /** Whose state this is. Another joining of the same host is another voter. */
  readonly voter: Voter;
  /** The object's voters as the creator named them; the accepted record's own count once there is one. */
  readonly voting: Voting;
  readonly promised: Ballot | null;
  readonly accepted: Accepted | null;
  /** Whether the accepted record is known to be chosen. */
  readonly committed: boolean;
}

/** The records accepted in these ballots of one host are committed. */
export interface Committed {
  readonly host: HostId;
  readonly incarnation: Incarnation;
  /** Objects and counters in turn. */
  readonly of: (ObjectId | number)[];
}

type Entry =
  /** The whole state. */
  | { readonly object: ObjectId; readonly state: AcceptorState }
  | { readonly head: JournaledHead; readonly changes: readonly unknown[] }
  | { readonly committed: readonly Committed[] }
  | { readonly object: ObjectId; readonly forgotten: true };

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

export function encodeEntry(entry: Entry): Uint8Array {
  return encoder.encode(JSON.stringify(entry));
}

/** Throws where the bytes are no entry. */
export function decodeEntry(bytes: Uint8Array): Entry {
  return JSON.parse(decoder.decode(bytes)) as Entry;
}
