// The ballot orders proposals to one register. No ballot is ever used twice: the counter never
// repeats within one incarnation of a host, and the incarnation is durable.

import type { HostId, Incarnation } from './ids.ts';

export interface Ballot {
  readonly counter: number;
  readonly host: HostId;
  readonly incarnation: Incarnation;
}

/** Negative, zero or positive as `a` is older than, equal to or newer than `b`; null is oldest. */
export function compareBallots(a: Ballot | null, b: Ballot | null): number {
  if (a === null || b === null) return (a === null ? 0 : 1) - (b === null ? 0 : 1);
  if (a.counter !== b.counter) return a.counter - b.counter;
  if (a.host !== b.host) return a.host < b.host ? -1 : 1;
  return a.incarnation - b.incarnation;
}

export function formatBallot(ballot: Ballot | null): string {
  return ballot === null ? '-' : `${ballot.counter}.${ballot.host}.${ballot.incarnation}`;
}
