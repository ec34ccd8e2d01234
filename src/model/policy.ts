// A storage policy says what an object must survive; a blueprint is made from it.

export interface StoragePolicy {
  /** Hosts that may fail without loss of data or accessibility; 2f+1 hosts are needed. */
  readonly failuresToTolerate: number;
  /** Components over which each copy is spread (RAID 0 below RAID 1). */
  readonly stripes: number;
}

export const defaultPolicy: StoragePolicy = { failuresToTolerate: 1, stripes: 1 };

/** Named policies that every cluster knows. */
export const builtInPolicies: Readonly<Record<string, StoragePolicy>> = {
  default: defaultPolicy,
  single: { failuresToTolerate: 0, stripes: 1 },
  mirror: { failuresToTolerate: 1, stripes: 1 },
  'mirror-3': { failuresToTolerate: 2, stripes: 1 },
};

/** Distinct hosts that an object of this policy needs: f+1 with data and f witnesses. */
export function hostsNeeded(policy: StoragePolicy): number {
  return 2 * policy.failuresToTolerate + 1;
}
