// Who is gone: a host that is away for `repairDelay`, one that is back with another store, and one that is
// no member any more. An opinion of this host, which informs repair and decides nothing by itself.

import type { HostId, StoreId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Heartbeats } from '../lease/heartbeat.ts';
import type { Usage } from '../placement/usage.ts';

export interface Absence {
  /** The host does not come back with this store, as far as can be told. */
  isGone(host: HostId, store: StoreId): boolean;
  /** Whether there is a host or store in any record of which that is true. */
  isAnyoneGone(): boolean;
}

export function createAbsence(options: {
  readonly clock: Clock;
  readonly timings: Timings;
  readonly usage: Usage;
  readonly heartbeats: Pick<Heartbeats, 'heard' | 'isReachable'>;
  readonly members: () => readonly HostId[];
}): Absence {
  const { clock, timings, heartbeats } = options;
  /** This host has heard of nobody before that. */
  const startedAtMs = clock.now();
  /** Since when the store that a host has does not work. */
  const failedSince = new Map<HostId, number>();

  function isGone(host: HostId, store: StoreId): boolean {
    if (!options.members().includes(host)) return true;
    const heard = heartbeats.heard(host);
    const nowMs = clock.now();
    if (!heartbeats.isReachable(host)) {
      return nowMs - (heard?.lastHeardAtMs ?? startedAtMs) >= timings.repairDelayMs;
    }
    if (heard === null) return false;
    if (heard.store.problem === null) failedSince.delete(host);
    else {
      const sinceMs = failedSince.get(host) ?? nowMs;
      failedSince.set(host, sinceMs);
      return nowMs - sinceMs >= timings.repairDelayMs;
    }
    return heard.store.id !== null && heard.store.id !== store;
  }

  return {
    isGone,
    isAnyoneGone: () => [...options.usage.places()].some(([store, host]) => isGone(host, store)),
  };
}
