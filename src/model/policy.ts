// A storage policy says what an object must survive; a blueprint is made from it.

import type { DeviceClass } from './device.ts';

export interface StoragePolicy {
  /** Hosts that may fail without loss of data or accessibility; 2f+1 hosts are needed. */
  readonly failuresToTolerate: number;
  /** Components over which each copy is spread (RAID 0 below RAID 1). */
  readonly stripes: number;
  /** All space of the components is written, and so allocated, when they are made; otherwise it is taken
   * as the guest writes. */
  readonly thick?: boolean;
  /** On devices of this class only; absent: on large ones, and on fast ones where no large one has room. */
  readonly deviceClass?: DeviceClass;
}

export const defaultPolicy: StoragePolicy = { failuresToTolerate: 1, stripes: 1 };

/** Stands for whichever policy the cluster has as its default. */
export const defaultPolicyName = 'default';

/** Named policies that every cluster knows. */
export const builtInPolicies: Readonly<Record<string, StoragePolicy>> = {
  single: { failuresToTolerate: 0, stripes: 1 },
  mirror: { failuresToTolerate: 1, stripes: 1 },
  'mirror-3': { failuresToTolerate: 2, stripes: 1 },
};

export function policyText(policy: StoragePolicy): string {
  const { failuresToTolerate, stripes, thick, deviceClass } = policy;
  const where = deviceClass === undefined ? '' : `, on ${deviceClass} devices`;
  return `failuresToTolerate ${failuresToTolerate}, stripes ${stripes}, ${thick === true ? 'thick' : 'thin'}${where}`;
}

/** Distinct hosts that an object of this policy needs: f+1 with data and f witnesses. */
export function hostsNeeded(policy: StoragePolicy): number {
  return 2 * policy.failuresToTolerate + 1;
}
