// Many changes of records in one text: what goes to a voter in one message, and into its journal as it
// came. The ballots are all of one host and incarnation, which stand once before them.
//
// A change is `[object, counter, counter of the next ballot, base, patch]`. Its base is a counter too,
// or a whole ballot where that is another proposer's; the patch is null where the record stays as it is.
// See docs/protocols/register.md, "Changes instead of records".

import type { Ballot } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { HostId, Incarnation, ObjectId } from '../../model/ids.ts';
import type { ObjectRecord, Voter } from '../../model/record.ts';
import { type AcceptorAnswer, type History, historyLength } from './messages.ts';
import { type Patch, patched } from './patch.ts';

/** The body of `register.changes`; the changes themselves are its payload. */
export interface ChangesHead {
  readonly voter: Voter;
  readonly incarnation: Incarnation;
  /** Only for this host itself, which need not read what it has just written. */
  readonly changes?: readonly Change[];
}

export interface Change {
  readonly object: ObjectId;
  readonly ballot: Ballot;
  readonly nextBallot: Ballot;
  /** The acceptor must have accepted exactly this. */
  readonly base: Ballot;
  readonly patch: Patch | null;
  /** What the patch makes of the base, where that is known already. */
  readonly record?: ObjectRecord;
}

/** The answers other than `accepted`, by the place of the change; null where there are none. */
export type ChangesAnswer = readonly (readonly [number, AcceptorAnswer])[] | null;

/** What an entry of the journal says before the changes. */
export interface JournaledHead {
  readonly host: HostId;
  readonly incarnation: Incarnation;
  readonly voter: Voter;
  /** Places of changes that are not a part of the entry: they were refused, or stand elsewhere. */
  readonly without: readonly number[];
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** `patch` is the text of the change's patch. */
export function changeText({ object, ballot, nextBallot, base }: Change, patch: string): string {
  const isOwn = base.host === ballot.host && base.incarnation === ballot.incarnation;
  const from = isOwn ? base.counter : JSON.stringify([base.counter, base.host, base.incarnation]);
  const name = JSON.stringify(object);
  return `[${name},${ballot.counter},${nextBallot.counter},${from},${patch}]`;
}

export function encodeChanges(texts: readonly string[]): Uint8Array {
  return encoder.encode(`[${texts.join(',')}]`);
}

/** Throws `bad-request` where the bytes are no list of changes. */
export function decodeChanges(
  bytes: Uint8Array,
  host: HostId,
  incarnation: Incarnation,
): readonly Change[] {
  try {
    return (JSON.parse(decoder.decode(bytes)) as Written[]).map((one) =>
      read(one, host, incarnation),
    );
  } catch (cause) {
    throw new HoldfastError('bad-request', `${host} sent no changes of records`, { cause });
  }
}

/** An entry of the journal; `changes` are the bytes that `decodeChanges` takes. */
export function encodeJournaled(head: JournaledHead, changes: Uint8Array): Uint8Array {
  const before = encoder.encode(`{"head":${JSON.stringify(head)},"changes":`);
  const bytes = new Uint8Array(before.length + changes.length + 1);
  bytes.set(before);
  bytes.set(changes, before.length);
  bytes[bytes.length - 1] = closing;
  return bytes;
}

const closing = '}'.charCodeAt(0);

/** The changes that are a part of the entry, from its parsed text. */
export function readJournaled(head: JournaledHead, changes: readonly unknown[]): readonly Change[] {
  const without = new Set(head.without);
  return changes
    .filter((_, index) => !without.has(index))
    .map((one) => read(one as Written, head.host, head.incarnation));
}

type Written = readonly [
  object: ObjectId,
  counter: number,
  next: number,
  base: number | readonly [counter: number, host: HostId, incarnation: Incarnation],
  patch: Patch | null,
];

function read(
  [object, counter, next, from, patch]: Written,
  host: HostId,
  incarnation: Incarnation,
): Change {
  const base =
    typeof from === 'number'
      ? { counter: from, host, incarnation }
      : { counter: from[0], host: from[1], incarnation: from[2] };
  return {
    object,
    ballot: { counter, host, incarnation },
    nextBallot: { counter: next, host, incarnation },
    base,
    patch,
  };
}

/** What the acceptor of the base has accepted once it has taken the change. */
export function changedFrom(
  base: { readonly record: ObjectRecord; readonly history: History },
  change: Change,
): { readonly ballot: Ballot; readonly record: ObjectRecord; readonly history: History } {
  const { ballot, patch } = change;
  if (patch === null) return { ballot, record: base.record, history: base.history };
  const record = change.record ?? patched(base.record, patch);
  return { ballot, record, history: historyAfter(ballot, base.history) };
}

/** The history of what `ballot` wrote upon a record with this one. */
export function historyAfter(ballot: Ballot, history: History): History {
  return history.length < historyLength
    ? [ballot, ...history]
    : [ballot, ...history.slice(0, historyLength - 1)];
}
