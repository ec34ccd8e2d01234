// Who is master, decided by each agent alone from what it hears: no votes, no consensus. Locks give
// safety; an election only keeps two masters from doing the same work, so it may be wrong for a
// moment, but it must come to rest: an order that everybody computes alike, and no change of a master
// that is heard and better than the other masters.

import type { HostId, Term } from '../model/ids.ts';
import { term } from '../model/ids.ts';
import type { HostKind, Role } from './messages.ts';

/** What one agent says of itself in its heartbeat. */
export interface Claim {
  readonly host: HostId;
  readonly kind: HostKind;
  readonly role: Role;
  readonly term: Term;
  readonly reachable: number;
}

export interface ElectionView {
  readonly self: Claim;
  /** The master that this agent follows, if it is an agent. */
  readonly following: HostId | null;
  /** For how long this agent has been in election, and how long it must be before it stands. */
  readonly inElectionMs: number;
  readonly waitMs: number;
  /** Claims of the members that this agent hears, itself not included. */
  readonly linked: readonly Claim[];
  /** How many other members there are. */
  readonly others: number;
}

export type Decision =
  | { readonly kind: 'stay' }
  | { readonly kind: 'elect'; readonly why: string }
  | { readonly kind: 'follow'; readonly master: HostId; readonly why: string }
  | { readonly kind: 'stand'; readonly term: Term; readonly why: string };

const stay: Decision = { kind: 'stay' };

/** Negative if `a` is the better master. */
export function compareRank(
  a: Pick<Claim, 'reachable' | 'host'>,
  b: Pick<Claim, 'reachable' | 'host'>,
): number {
  if (a.reachable !== b.reachable) return b.reachable - a.reachable;
  return a.host < b.host ? -1 : a.host > b.host ? 1 : 0;
}

export function decide(view: ElectionView): Decision {
  const masters = view.linked.filter((claim) => claim.role === 'master');
  const best = masters.toSorted(compareRank)[0];
  switch (view.self.role) {
    case 'master':
      if (best === undefined || compareRank(view.self, best) < 0) return stay;
      return { kind: 'follow', master: best.host, why: `${best.host} is the better master` };
    case 'agent':
      if (masters.some((claim) => claim.host === view.following)) return stay;
      if (best !== undefined)
        return { kind: 'follow', master: best.host, why: 'its master is gone' };
      return {
        kind: 'elect',
        why: `it hears no master, ${view.following ?? 'nobody'} was the last`,
      };
    case 'election':
      if (best !== undefined)
        return { kind: 'follow', master: best.host, why: 'it hears a master' };
      return standing(view);
  }
}

function standing(view: ElectionView): Decision {
  if (view.self.kind === 'witness') return stay;
  const candidates = view.linked.filter((claim) => claim.role === 'election');
  const unanimous = candidates.length === view.others;
  if (!unanimous && view.inElectionMs < view.waitMs) return stay;
  const better = candidates.some((it) => it.kind === 'full' && compareRank(it, view.self) < 0);
  if (better) return stay; // it stands itself, as soon as it has listened long enough
  const highest = Math.max(view.self.term, ...view.linked.map((claim) => claim.term));
  const why = unanimous
    ? 'all members take part in the election and it ranks first'
    : `of ${candidates.length + 1} in the election it ranks first`;
  return { kind: 'stand', term: term(highest + 1), why };
}
