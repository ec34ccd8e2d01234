// Reading back what `journaling.ts` writes: each entry moves the states on, or says what they have come
// to already, and then it is skipped. See docs/protocols/register.md, "Changes instead of records".

import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { ObjectId } from '../../model/ids.ts';
import { sameVoter } from '../../model/record.ts';
import { type Committed, decodeEntry } from './acceptor-state.ts';
import { type Change, changedFrom, type JournaledHead, readJournaled } from './change-batch.ts';
import type { Register } from './journaling.ts';

type Registers = Map<ObjectId, Register>;

/** Throws where the bytes are no entry, or a change has not the base that it needs: never of what this
 * program wrote and the journal found whole. */
export function replay(registers: Registers, bytes: Uint8Array): void {
  const entry = decodeEntry(bytes);
  if ('forgotten' in entry) {
    registers.delete(entry.object);
  } else if ('state' in entry) {
    const { state } = entry;
    registers.set(entry.object, { state, version: 0, durableVersion: 0, written: null });
  } else if ('head' in entry) {
    for (const change of readJournaled(entry.head, entry.changes)) {
      takeChange(registers, entry.head, change);
    }
  } else {
    for (const committed of entry.committed) commit(registers, committed);
  }
}

function takeChange(registers: Registers, head: JournaledHead, change: Change): void {
  const { object, ballot, base, nextBallot } = change;
  const register = registers.get(object);
  // Forgotten, or another voter by now: a compacted file begins with what came after.
  if (register === undefined || !sameVoter(register.state.voter, head.voter)) return;
  const { accepted, promised } = register.state;
  if (compareBallots(accepted?.ballot ?? null, ballot) >= 0) return;
  if (accepted === null || compareBallots(accepted.ballot, base) !== 0) {
    const found = formatBallot(accepted?.ballot ?? null);
    const what = `The change ${formatBallot(ballot)} of ${object} is made from ${formatBallot(base)}`;
    throw new HoldfastError('store-damaged', `${what}, and the journal leads to ${found}`);
  }
  register.state = {
    ...register.state,
    promised: newest(promised, nextBallot),
    accepted: changedFrom(accepted, change),
    committed: false,
  };
}

function commit(registers: Registers, { host, incarnation, of }: Committed): void {
  for (let at = 0; at < of.length; at += 2) {
    const register = registers.get(of[at] as ObjectId);
    const ballot = { counter: of[at + 1] as number, host, incarnation };
    const accepted = register?.state.accepted ?? null;
    if (register === undefined || accepted === null) continue;
    if (compareBallots(accepted.ballot, ballot) !== 0) continue;
    register.state = { ...register.state, committed: true };
  }
}

export function newest(a: Ballot | null, b: Ballot | null): Ballot | null {
  return compareBallots(a, b) >= 0 ? a : b;
}
