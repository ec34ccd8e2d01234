// What this host makes of the others, from what it hears on the HA network and whom it reaches on the
// storage network.

import type { HostId } from '../model/ids.ts';
import type { HaHostView, HostState } from './api.ts';
import type { Claim } from './election.ts';
import type { Member } from './membership.ts';

export function stateOf(
  member: Member,
  before: HostState,
  master: HostId | null,
  reachable: ReadonlySet<HostId>,
): HostState {
  const { host, heardAtMs, condition, beat } = member;
  if (condition === 'failed') {
    if (reachable.has(host)) return 'networkPartitionedFromMaster';
    return heardAtMs === null && before === 'unknown' ? 'unknown' : 'hostDown';
  }
  if (heardAtMs === null || beat === null) return 'unknown';
  if (member.linkedAtMs === null) return before; // it does not hear us yet
  if (beat.role === 'election') return 'election';
  if (beat.role === 'master') return 'master';
  return beat.master === master ? 'connectedToMaster' : 'networkPartitionedFromMaster';
}

export function viewOf(member: Member, state: HostState, nowMs: number): HaHostView {
  const { host, heardAtMs, list, beat } = member;
  return {
    host,
    state,
    silentForMs: heardAtMs === null ? null : nowMs - heardAtMs,
    running: member.condition === 'failed' ? [] : (list?.vms ?? []),
    cpus: beat?.cpus ?? 0,
    memoryBytes: beat?.memoryBytes ?? 0,
  };
}

export function claimOf({ host, beat }: Member): Claim[] {
  if (beat === null) return [];
  return [{ host, kind: beat.kind, role: beat.role, term: beat.term, reachable: beat.reachable }];
}

/** For the log of a change of state. */
export function describe({ condition, beat }: Member): string {
  if (beat === null) return 'nothing heard of it';
  return `${condition}, ${beat.role}${beat.master === null ? '' : ` of ${beat.master}`}`;
}
