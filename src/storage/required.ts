// Disks that a VM can do without. Whether it can is said twice in its namespace record, and changed in
// one step: in `vm.json`, for people, and in `optional`, for everybody who asks whether the VM is
// accessible. A guest that was started without such a disk has it noted in the metadata, under its
// epoch: a restarted daemon must not take the disk for one that the guest has.

import { HoldfastError } from '../model/errors.ts';
import type { ObjectId } from '../model/ids.ts';
import type { NamespaceRecord } from '../model/record.ts';
import {
  type DetachedDisks,
  detachedKey,
  isPathDisk,
  runnerService,
  type VmSpec,
} from '../model/vm.ts';

export function detachedDisks({ lock, metadata }: NamespaceRecord): readonly string[] {
  const noted = metadata[runnerService]?.[detachedKey] as DetachedDisks | undefined;
  return noted !== undefined && lock.holder !== null && noted.epoch === lock.epoch
    ? noted.disks
    : [];
}

/** The record with that disk required or not; the very record if it says so already. */
export function withRequired(
  record: NamespaceRecord,
  disk: string,
  required: boolean,
  nameOf: (object: ObjectId) => string | null,
): NamespaceRecord {
  const object = record.disks.find((one) => nameOf(one) === disk);
  if (object === undefined) {
    const known = record.disks.map((one) => nameOf(one) ?? one).join(', ');
    throw new HoldfastError(
      'bad-request',
      `disk: VM ${record.name} has no ${JSON.stringify(disk)}; it has ${known}`,
    );
  }
  const { optional = [], ...rest } = record;
  if (optional.includes(object) !== required) return record;
  const others = optional.filter((one) => one !== object);
  const now = required ? others : [...others, object];
  const spec = JSON.parse(record.files['vm.json'] ?? '{}') as VmSpec;
  const disks = spec.disks.map((one) => {
    if (one.name !== disk || isPathDisk(one)) return one;
    const { required: _, ...plain } = one;
    return required ? plain : { ...plain, required };
  });
  return {
    ...rest,
    ...(now.length === 0 ? {} : { optional: now }),
    files: { ...record.files, 'vm.json': JSON.stringify({ ...spec, disks }) },
  };
}
