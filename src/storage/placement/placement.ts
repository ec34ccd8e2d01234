// Where the objects of a new VM go. All of a VM's objects share their voters as far as their policies
// agree, because a VM is as accessible as its least accessible object: spread over different hosts,
// its objects would fail for different failures.
//
// With f = failuresToTolerate an object gets 2f+1 voters on distinct hosts: f+1 hold a copy of the
// data, f only vote (witnesses), so that no f failures take a majority or the last copy.

import { HoldfastError } from '../../model/errors.ts';
import { componentId, type HostId, type ObjectId, type StoreId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { hostsNeeded, type StoragePolicy } from '../../model/policy.ts';
import type { Blueprint, Voter } from '../../model/record.ts';

export interface PlacementHost {
  readonly host: HostId;
  readonly store: StoreId;
  readonly freeBytes: number;
  /** `witness` hosts vote and hold no data. */
  readonly kind: 'full' | 'witness';
}

export interface Placed {
  /** The data hosts first, then the witnesses. */
  readonly voters: readonly Voter[];
  readonly dataHosts: readonly PlacementHost[];
}

/** Throws `policy-unsatisfiable` or `no-capacity`, naming what is missing. */
export function placeObject(
  policy: StoragePolicy,
  sizeBytes: number,
  hosts: readonly PlacementHost[],
  preferred: readonly HostId[] = [],
): Placed {
  const needed = hostsNeeded(policy);
  if (hosts.length < needed) {
    throw new HoldfastError(
      'policy-unsatisfiable',
      `failuresToTolerate ${policy.failuresToTolerate} needs ${needed} hosts, and ${hosts.length} can be reached` +
        (hosts.length === 0 ? '' : `: ${hosts.map((host) => host.host).join(', ')}`),
    );
  }
  const copies = policy.failuresToTolerate + 1;
  const ranked = [...hosts].sort(
    (a, b) =>
      rank(preferred, a) - rank(preferred, b) ||
      b.freeBytes - a.freeBytes ||
      (a.host < b.host ? -1 : 1),
  );
  const data = ranked
    .filter((host) => host.kind === 'full' && host.freeBytes >= sizeBytes)
    .slice(0, copies);
  if (data.length < copies) {
    throw new HoldfastError(
      'no-capacity',
      `${copies} hosts with ${sizeBytes} free bytes are needed, and there are ${data.length}`,
    );
  }
  const witnesses = ranked.filter((host) => !data.includes(host)).slice(0, needed - copies);
  return placedOn(data, witnesses);
}

/** The hosts are decided: `data` hold the copies, the others only vote. */
export function placedOn(
  data: readonly PlacementHost[],
  witnesses: readonly PlacementHost[],
): Placed {
  return {
    dataHosts: data,
    voters: [...data, ...witnesses].map(({ host, store }) => ({ host, store, joined: 1 })),
  };
}

function rank(preferred: readonly HostId[], host: PlacementHost): number {
  const index = preferred.indexOf(host.host);
  return index < 0 ? preferred.length : index;
}

/** The tree mirror -> stripe -> component: one mirror on each data host. */
export function blueprint(
  object: ObjectId,
  policy: StoragePolicy,
  sizeBytes: number,
  dataHosts: readonly PlacementHost[],
): Blueprint {
  const chunks = Math.ceil(sizeBytes / limits.stripeBytes);
  return {
    stripeBytes: limits.stripeBytes,
    mirrors: dataHosts.map(({ host, store }, mirror) => ({
      stripes: Array.from({ length: policy.stripes }, (_, stripe) => ({
        id: componentId(`${object}.m${mirror}.s${stripe}`),
        host,
        store,
        // Stripe s holds chunks s, s + stripes, s + 2 * stripes, ...
        sizeBytes: Math.ceil((chunks - stripe) / policy.stripes) * limits.stripeBytes,
      })),
    })),
  };
}
