// What is gone: a host that is away for `repairDelay`, one that is back with other devices, one that is no
// member any more, and a single device that does not work for so long. An opinion of this host, which informs
// repair and decides nothing by itself.

import type { HostId, StoreId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import type { Clock } from '../../ports/clock.ts';
import { devicesOf, deviceWith } from '../devices/report.ts';
import type { Heartbeats } from '../lease/heartbeat.ts';
import type { Usage } from '../placement/usage.ts';

export interface Absence {
  /** The host does not come back with this device, as far as can be told. */
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
  /** Since when a device that a host has does not work, or may be one that can not be told. */
  const failedSince = new Map<StoreId, number>();

  function isGone(host: HostId, store: StoreId): boolean {
    if (!options.members().includes(host)) return true;
    const heard = heartbeats.heard(host);
    const nowMs = clock.now();
    if (!heartbeats.isReachable(host)) {
      return nowMs - (heard?.lastHeardAtMs ?? startedAtMs) >= timings.repairDelayMs;
    }
    if (heard === null) return false;
    const device = deviceWith(heard.store, store);
    if (device?.problem === null) {
      failedSince.delete(store);
      return false;
    }
    // Where all devices can be told, and none is this one, the host has others by now.
    if (device === null && devicesOf(heard.store).every(({ id }) => id !== null)) return true;
    const sinceMs = failedSince.get(store) ?? nowMs;
    failedSince.set(store, sinceMs);
    return nowMs - sinceMs >= timings.repairDelayMs;
  }

  return {
    isGone,
    isAnyoneGone: () => [...options.usage.places()].some(([store, host]) => isGone(host, store)),
  };
}
