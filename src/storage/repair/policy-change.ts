// What a user asks of a disk that exists: one change of the disk's record, after which repair does the
// rest (docs/protocols/policy.md). The namespace object of its VM follows: it survives whatever any of the
// disks survives, and `vm.json` says what the disks' records say.

import { HoldfastError } from '../../model/errors.ts';
import type { ObjectId, VmId } from '../../model/ids.ts';
import { hostsNeeded, type StoragePolicy } from '../../model/policy.ts';
import { components, type DiskRecord, type NamespaceRecord } from '../../model/record.ts';
import { isPathDisk, objectDisks, type VmSpec } from '../../model/vm.ts';
import type { Directory } from '../directory/directory.ts';
import { hasRoom, type PlacementHost } from '../placement/placement.ts';
import type { Records } from '../records.ts';

export interface PolicyChange {
  /** Rejects with `unknown-object`, `policy-unsatisfiable` or `no-capacity` where the hosts that are within
   * reach now do not allow it, and as changes of records do. */
  set(vm: NamespaceRecord, disk: string, policy: StoragePolicy): Promise<void>;
  /** It tolerates what each of its disks does. */
  isAsTolerant(vm: NamespaceRecord): boolean;
  /** And it says of them what their records say. */
  isFollowing(vm: NamespaceRecord): boolean;
  /** Makes it so. */
  follow(vm: NamespaceRecord): Promise<void>;
}

export function createPolicyChange(options: {
  readonly directory: Directory;
  readonly records: Records;
  readonly placementHosts: () => PlacementHost[];
}): PolicyChange {
  const { directory, records } = options;

  function disksOf(vm: NamespaceRecord): DiskRecord[] {
    return vm.disks.flatMap((object) => directory.disk(object) ?? []);
  }

  function assertPossible(record: DiskRecord, policy: StoragePolicy): void {
    if (policy.deviceClass !== record.policy.deviceClass) {
      throw new HoldfastError(
        'bad-request',
        `the class of devices of ${record.name} is ${record.policy.deviceClass ?? 'open'} and can not be changed`,
      );
    }
    const hosts = options.placementHosts();
    const needed = hostsNeeded(policy);
    if (hosts.length < needed) {
      throw new HoldfastError(
        'policy-unsatisfiable',
        `failuresToTolerate ${policy.failuresToTolerate} needs ${needed} hosts, and ${hosts.length} can be reached`,
      );
    }
    const has = new Set(components(record.blueprint).map(({ host }) => host));
    const able = hosts.filter(
      (host) =>
        has.has(host.host) || (host.kind === 'full' && hasRoom(host, policy, record.sizeBytes)),
    );
    const copies = policy.failuresToTolerate + 1;
    if (able.length >= copies) return;
    throw new HoldfastError(
      'no-capacity',
      `${copies} hosts with ${record.sizeBytes} free bytes are needed, and there are ${able.length}`,
    );
  }

  async function follow(vm: VmId, mayLower: boolean): Promise<void> {
    await records.changeNamespace(vm, (current) => followed(current, disksOf(current), mayLower));
  }

  return {
    async set(vm, name, policy) {
      const disks = disksOf(vm);
      const record = disks.find((one) => one.name === name);
      if (record === undefined) {
        const known = disks.map((one) => one.name).join(', ');
        throw new HoldfastError(
          'unknown-object',
          `VM ${vm.name} has no disk "${name}" that is known here; it has ${known}`,
        );
      }
      assertPossible(record, policy);
      await records.changeDisk(record.id, (current) => withPolicy(current, policy));
      // Where this fails, repair does it.
      await follow(vm.vm, true).catch(() => undefined);
    },
    isAsTolerant(vm) {
      const { failuresToTolerate } = vm.policy;
      return disksOf(vm).every((disk) => disk.policy.failuresToTolerate <= failuresToTolerate);
    },
    isFollowing: (vm) => followed(vm, disksOf(vm), false) === vm,
    follow: (vm) => follow(vm.vm, false),
  };
}

/** The very record where that is its policy. */
export function withPolicy(current: DiskRecord, policy: StoragePolicy): DiskRecord {
  if (isSamePolicy(current.policy, policy)) return current;
  // Of a thin disk space may be given back: so it is thin from now on.
  const { thick: _, ...tree } = current.blueprint;
  return policy.thick === true ? { ...current, policy } : { ...current, policy, blueprint: tree };
}

export function isSamePolicy(a: StoragePolicy, b: StoragePolicy): boolean {
  return (
    a.failuresToTolerate === b.failuresToTolerate &&
    a.stripes === b.stripes &&
    (a.thick === true) === (b.thick === true)
  );
}

/** As tolerant as the most tolerant disk. What it tolerated beyond its disks before it goes on to
 * tolerate: with two hosts or fewer that is nothing, otherwise one failure, or what its maker chose. */
export function followed(
  current: NamespaceRecord,
  disks: readonly DiskRecord[],
  mayLower: boolean,
): NamespaceRecord {
  const spec = JSON.parse(current.files['vm.json'] ?? '{}') as Partial<VmSpec>;
  const policyOf = (name: string) => disks.find((disk) => disk.name === name)?.policy;
  const saidBefore = Math.max(
    0,
    ...objectDisks(spec.disks ?? []).map(({ policy }) => policy.failuresToTolerate),
  );
  const said = (spec.disks ?? []).map((disk) => {
    if (isPathDisk(disk)) return disk;
    const policy = policyOf(disk.name);
    return policy === undefined || isSamePolicy(policy, disk.policy) ? disk : { ...disk, policy };
  });
  const { failuresToTolerate: tolerated } = current.policy;
  const needed = Math.max(0, ...disks.map((disk) => disk.policy.failuresToTolerate));
  // All of the disks must be known for that.
  const isKnown = current.disks.every((object: ObjectId) => disks.some(({ id }) => id === object));
  const least = tolerated > saidBefore ? tolerated : Math.min(1, tolerated);
  const wanted = mayLower && isKnown ? Math.max(needed, least) : Math.max(needed, tolerated);
  const isSaid = said.every((disk, index) => disk === spec.disks?.[index]);
  if (wanted === tolerated && isSaid) return current;
  return {
    ...current,
    policy: { ...current.policy, failuresToTolerate: wanted },
    files: isSaid
      ? current.files
      : { ...current.files, 'vm.json': JSON.stringify({ ...spec, disks: said }) },
  };
}
