// What is written of registers into the journal. Each entry says when its batch is formed what it has
// to: a state as it is by then, changes where the journal leads to what they are made from, the state
// as a whole where it does not. See docs/protocols/register.md, "Changes instead of records".

import { type Ballot, compareBallots } from '../../model/ballot.ts';
import type { HoldfastError } from '../../model/errors.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import type { ObjectRecord } from '../../model/record.ts';
import type { EntrySource } from '../journal/journal.ts';
import { type AcceptorState, type Committed, encodeEntry } from './acceptor-state.ts';
import { type Change, type ChangesHead, encodeJournaled } from './change-batch.ts';

export interface Register {
  state: AcceptorState;
  /** Counts the states; those up to `durableVersion` (or a newer one) are on the disk. */
  version: number;
  durableVersion: number;
  /** The accepted ballot that the entries of the journal lead to, up to the one that is being encoded;
   * null where there is none, or an append failed. */
  written: Ballot | null;
}

/** The state of one register, the newest at the time of writing. */
export class StateEntry implements EntrySource {
  readonly #object: ObjectId;
  readonly #register: Register;
  #version: number;

  constructor(object: ObjectId, register: Register) {
    this.#object = object;
    this.#register = register;
    this.#version = register.version;
  }

  encode(): readonly Uint8Array[] {
    this.#version = this.#register.version;
    return [encodeWhole(this.#object, this.#register)];
  }

  settle(error: HoldfastError | null): void {
    settle(this.#register, this.#version, error);
  }
}

export interface Taken {
  /** Its place in the message. */
  readonly place: number;
  readonly change: Change;
  /** What it made. */
  readonly record: ObjectRecord;
  readonly register: Register;
  /** The version that it made, or a newer one that is written. */
  version: number;
  /** Not the change itself is to be written: it was accepted before, and only a promise is new. */
  readonly isRepeated: boolean;
}

/** The changes of one message that were accepted. */
export class ChangesEntry implements EntrySource {
  readonly taken: Taken[] = [];
  readonly #host: HostId;
  readonly #head: ChangesHead;
  readonly #bytes: Uint8Array;
  readonly #without: number[] = [];

  constructor(host: HostId, head: ChangesHead, bytes: Uint8Array) {
    this.#host = host;
    this.#head = head;
    this.#bytes = bytes;
  }

  leaveOut(place: number): void {
    this.#without.push(place);
  }

  encode(): readonly Uint8Array[] {
    const states: Uint8Array[] = [];
    let count = 0;
    for (const one of this.taken) {
      const { change, register, place } = one;
      if (!one.isRepeated && compareBallots(register.written, change.base) === 0) {
        register.written = change.ballot;
        count += 1;
        continue;
      }
      this.#without.push(place);
      if (!one.isRepeated && compareBallots(register.written, change.ballot) >= 0) continue;
      one.version = register.version;
      states.push(encodeWhole(change.object, register));
    }
    if (count === 0) return states;
    const { voter, incarnation } = this.#head;
    const head = { host: this.#host, incarnation, voter, without: this.#without };
    return [encodeJournaled(head, this.#bytes), ...states];
  }

  settle(error: HoldfastError | null): void {
    for (const { register, version } of this.taken) settle(register, version, error);
  }
}

/** Which of the accepted records are known to be committed: a hint against needless finishing after a
 * restart, for which nobody has to wait. */
export class CommittedEntry implements EntrySource {
  readonly #committed: Committed[] = [];
  readonly #begun: () => void;

  /** `begun`: from now on another entry is needed. */
  constructor(begun: () => void) {
    this.#begun = begun;
  }

  add(object: ObjectId, { host, incarnation, counter }: Ballot): void {
    const last = this.#committed.at(-1);
    if (last?.host === host && last.incarnation === incarnation) last.of.push(object, counter);
    else this.#committed.push({ host, incarnation, of: [object, counter] });
  }

  encode(): readonly Uint8Array[] {
    this.#begun();
    return [encodeEntry({ committed: this.#committed })];
  }
}

function encodeWhole(object: ObjectId, register: Register): Uint8Array {
  const { state } = register;
  register.written = state.accepted?.ballot ?? null;
  return encodeEntry({ object, state });
}

function settle(register: Register, version: number, error: HoldfastError | null): void {
  // What is in the file is not known then; what comes next must not build upon it.
  if (error !== null) register.written = null;
  else if (version > register.durableVersion) register.durableVersion = version;
}
