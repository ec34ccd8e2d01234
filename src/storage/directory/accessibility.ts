// Which objects and VMs this host can use now: a majority of the object's voters and an in-sync copy
// of every stripe within reach. Answered from the directory and the heartbeats, so it informs; the
// registers and the components decide. accessible-vms.ts keeps the same answer for all VMs.

import type { HostId, StoreId } from '../../model/ids.ts';
import {
  components,
  type DiskRecord,
  groupsOf,
  isQuorum,
  majority,
  type NamespaceRecord,
  type ObjectRecord,
} from '../../model/record.ts';
import type { Accessibility } from '../api.ts';
import type { Directory } from './directory.ts';

/** The host answers, and its store is the named one and works. */
export type StoreReachable = (host: HostId, store: StoreId) => boolean;

export const accessible: Accessibility = { accessible: true };

export function objectAccessibility(
  record: ObjectRecord,
  reachable: StoreReachable,
): Accessibility {
  return isAccessible(record, reachable) ? accessible : explain(record, reachable);
}

/** The usual answer, without the reasons: it is asked for each VM in each look at all of them. */
function isAccessible(record: ObjectRecord, reachable: StoreReachable): boolean {
  if (!isQuorum(record, (voter) => reachable(voter.host, voter.store))) return false;
  if (record.kind !== 'disk') return true;
  const { mirrors } = record.blueprint;
  const stripes = mirrors[0]?.stripes.length ?? 0;
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    const hasCopy = mirrors.some((mirror) => {
      const component = mirror.stripes[stripe];
      return (
        component !== undefined &&
        record.inSync.includes(component.id) &&
        reachable(component.host, component.store)
      );
    });
    if (!hasCopy) return false;
  }
  return true;
}

function explain(record: ObjectRecord, reachable: StoreReachable): Accessibility {
  const name = record.kind === 'disk' ? `disk object ${record.name}` : `${record.kind} object`;
  for (const group of groupsOf(record)) {
    const missing = group.filter((voter) => !reachable(voter.host, voter.store));
    const needed = majority(group.length);
    const there = group.length - missing.length;
    if (there >= needed) continue;
    const hosts = missing.map((voter) => voter.host);
    return {
      accessible: false,
      object: record.id,
      hosts,
      text: `${name} has ${there} of the ${needed} voters that it needs; missing: ${hosts.join(', ')}`,
    };
  }
  return record.kind === 'disk' ? everyStripe(record, reachable) : accessible;
}

function everyStripe(record: DiskRecord, reachable: StoreReachable): Accessibility {
  const inSync = new Set(record.inSync);
  const stripes = record.blueprint.mirrors[0]?.stripes.length ?? 0;
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    const copies = record.blueprint.mirrors
      .flatMap((mirror) => mirror.stripes[stripe] ?? [])
      .filter((component) => inSync.has(component.id));
    if (copies.some((component) => reachable(component.host, component.store))) continue;
    const hosts = copies.map((component) => component.host);
    return {
      accessible: false,
      object: record.id,
      hosts,
      text: `disk object ${record.name} has no in-sync copy within reach; they are on ${hosts.join(', ')}`,
    };
  }
  return accessible;
}

/** All objects that the VM needs, its namespace object first. */
export function vmAccessibility(
  directory: Directory,
  record: NamespaceRecord,
  reachable: StoreReachable,
): Accessibility {
  const namespace = objectAccessibility(record, reachable);
  if (!namespace.accessible) return namespace;
  for (const object of record.disks) {
    if (record.optional?.includes(object)) continue;
    const disk = directory.get(object)?.record;
    if (disk?.kind !== 'disk') {
      return {
        accessible: false,
        object,
        hosts: [],
        text: `the record of disk object ${object} is not known here`,
      };
    }
    const ofDisk = objectAccessibility(disk, reachable);
    if (!ofDisk.accessible) return ofDisk;
  }
  return accessible;
}

/** Hosts that hold an in-sync component of any of these disks. */
export function dataHosts(disks: readonly DiskRecord[]): HostId[] {
  const hosts = disks.flatMap((disk) =>
    components(disk.blueprint)
      .filter((component) => disk.inSync.includes(component.id))
      .map((component) => component.host),
  );
  return [...new Set(hosts)];
}
