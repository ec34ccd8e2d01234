// The room of the targets as the failover machine counts it: less what it has ordered and nobody has
// reported yet, and with the starts that each target is working on and those that it may.

import type { Entry } from './failover-entry.ts';
import type { Pace } from './pace.ts';
import { choose, fits, type Target, type Wishes } from './placement.ts';

export interface Room extends Target {
  freeMemoryBytes: number;
  startsInFlight: number;
  readonly startsAtOnce: number;
}

export function roomsOf(
  targets: readonly Target[],
  entries: Iterable<Entry>,
  pace: Pick<Pace, 'startsAtOnce'>,
): Room[] {
  const rooms = targets.map((target) => {
    return { ...target, startsInFlight: 0, startsAtOnce: pace.startsAtOnce(target.host) };
  });
  for (const entry of entries) {
    if (entry.stage !== 'starting' && entry.stage !== 'unsettled') continue;
    const room = rooms.find((it) => it.host === entry.target);
    if (room === undefined) continue;
    if (entry.stage === 'starting') room.startsInFlight += 1;
    if (entry.wanted) room.freeMemoryBytes -= entry.candidate.memoryBytes; // else it is reported
  }
  return rooms;
}

/** The VM fits, and there is more room than when it was last of no use. */
export function isWorthTrying(entry: Entry, room: Room): boolean {
  const tried = entry.tried.get(room.host);
  return fits(entry.candidate, room) && (tried === undefined || room.freeMemoryBytes > tried);
}

export function isBusy(room: Room): boolean {
  return room.startsInFlight >= room.startsAtOnce;
}

/** Takes the room for the VM on the best of the hosts that are able; null if all are busy. */
export function take(
  entry: Entry,
  able: readonly Room[],
  wishes: Pick<Wishes, 'crowd' | 'dataHosts'>,
): Room | null {
  const free = able.filter((room) => !isBusy(room));
  const { prefer, affinity } = entry.candidate;
  const { avoid } = entry;
  const host = choose(free, {
    prefer: avoid === prefer ? null : prefer,
    avoid,
    affinity,
    ...wishes,
  });
  const room = free.find((it) => it.host === host);
  if (room === undefined) return null;
  room.startsInFlight += 1;
  room.freeMemoryBytes -= entry.candidate.memoryBytes;
  entry.target = room.host;
  return room;
}
