// What the stores of the cluster have been given to hold, by the directory: kept up to date record by
// record, because it is asked for with every object that is placed and with every heartbeat.

import type { HostId, StoreId } from '../../model/ids.ts';
import { allComponents, type ObjectRecord, votersOf } from '../../model/record.ts';
import type { Directory } from '../directory/directory.ts';

export interface StoreUsage {
  /** What the components there may grow to. */
  readonly placedBytes: number;
  readonly components: number;
  /** Objects that it votes on. */
  readonly votes: number;
}

export interface Usage {
  of(store: StoreId | null): StoreUsage;
  /** The stores that have anything, each with its host. */
  places(): Iterable<readonly [StoreId, HostId]>;
}

const nothing: StoreUsage = { placedBytes: 0, components: 0, votes: 0 };

export function trackUsage(directory: Directory): Usage {
  const stores = new Map<StoreId, StoreUsage>();
  const hosts = new Map<StoreId, HostId>();

  function count(record: ObjectRecord, sign: 1 | -1): void {
    if (record.kind === 'tombstone') return;
    const add = (store: StoreId, host: HostId, what: Partial<StoreUsage>) => {
      const known = stores.get(store) ?? nothing;
      const usage: StoreUsage = {
        placedBytes: known.placedBytes + sign * (what.placedBytes ?? 0),
        components: known.components + sign * (what.components ?? 0),
        votes: known.votes + sign * (what.votes ?? 0),
      };
      if (usage.components > 0 || usage.votes > 0) {
        stores.set(store, usage);
        hosts.set(store, host);
      } else {
        stores.delete(store);
        hosts.delete(store);
      }
    };
    for (const { store, host } of votersOf(record)) add(store, host, { votes: 1 });
    if (record.kind !== 'disk') return;
    for (const { store, host, sizeBytes } of allComponents(record)) {
      add(store, host, { placedBytes: sizeBytes, components: 1 });
    }
  }

  for (const { record } of directory.entries()) count(record, 1);
  directory.onChange((record, previous) => {
    // Most changes are of locks, fences and metadata.
    if (previous !== null && placedAlike(record, previous)) return;
    if (previous !== null) count(previous, -1);
    count(record, 1);
  });
  return {
    of: (store) => (store === null ? nothing : (stores.get(store) ?? nothing)),
    places: () => hosts,
  };
}

function placedAlike(a: ObjectRecord, b: ObjectRecord): boolean {
  if (a.kind !== b.kind || a.voters !== b.voters || a.nextVoters !== b.nextVoters) return false;
  return (
    a.kind !== 'disk' || b.kind !== 'disk' || (a.blueprint === b.blueprint && a.next === b.next)
  );
}
