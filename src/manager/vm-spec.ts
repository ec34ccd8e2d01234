// From what a user asks for to the specification of a VM: what is left out is filled in, what can not be is
// refused with `bad-request`, naming the key.

import { HoldfastError } from '../model/errors.ts';
import { limits } from '../model/limits.ts';
import { formatOf, isPlainPath } from '../model/path-disk.ts';
import type { StoragePolicy } from '../model/policy.ts';
import {
  type DiskSpec,
  isPathDisk,
  objectDisks,
  pathDisks,
  rulesOf,
  type VmSpec,
} from '../model/vm.ts';
import type { VmView } from '../storage/api.ts';
import type { DiskRequest, Policies, VmRequest } from './api.ts';

export async function toSpec(request: VmRequest, policies: Policies): Promise<VmSpec> {
  if (
    !/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(request.name) ||
    request.name.length > limits.maxNameLength
  ) {
    throw refused(
      'name',
      `expected 1 to ${limits.maxNameLength} lower-case letters, digits and inner hyphens, found "${request.name}"`,
    );
  }
  within('memoryBytes', request.memoryBytes, limits.minMemoryBytes, limits.maxMemoryBytes);
  within('cpus', request.cpus ?? 1, 1, limits.maxCpus);
  within('number of disks', request.disks.length, 1, limits.maxDisks);
  const common = await policies.resolve('policy', request.policy);
  const disks = await Promise.all(
    request.disks.map((disk, index) => toDisk(disk, index, common, policies)),
  );
  if (request.policy !== undefined && objectDisks(disks).length === 0) {
    throw refused('policy', 'the VM has no disk object that it could be for');
  }
  return {
    name: request.name,
    cpus: request.cpus ?? 1,
    memoryBytes: request.memoryBytes,
    boot: request.boot ?? 'counter',
    disks,
    protected: request.protected ?? true,
    ...rulesOf({ ...request, priority: request.priority ?? 'medium' }),
  };
}

async function toDisk(
  { sizeBytes, policy, required, path, format }: DiskRequest,
  index: number,
  common: StoragePolicy,
  policies: Policies,
): Promise<DiskSpec> {
  const key = `disks[${index}]`;
  const name = `disk${index}`;
  if (path !== undefined) {
    for (const [other, value] of Object.entries({ sizeBytes, policy, required })) {
      if (value !== undefined) {
        throw refused(`${key}.${other}`, 'a disk with a `path` is what lies there, and no object');
      }
    }
    if (!isPlainPath(path)) {
      throw refused(
        `${key}.path`,
        `expected an absolute path of at most ${limits.maxPathLength} characters without \`.\`, \`..\`, empty steps and control characters, found ${JSON.stringify(path)}`,
      );
    }
    return { name, path, format: format ?? formatOf(path) };
  }
  if (format !== undefined) throw refused(`${key}.format`, 'only a disk with a `path` has one');
  if (sizeBytes === undefined) {
    throw refused(key, 'expected sizeBytes, for a new disk, or the path of one that is there');
  }
  within(`${key}.sizeBytes`, sizeBytes, limits.minDiskBytes, limits.maxDiskBytes);
  return {
    name,
    sizeBytes: Math.ceil(sizeBytes / limits.blockBytes) * limits.blockBytes,
    policy: policy === undefined ? common : await policies.resolve(`${key}.policy`, policy),
    ...(required === false ? { required } : {}),
  };
}

/**
 * No two VMs, and no two disks of one, write to the same path: nothing would keep them apart. This is a help,
 * not a guard: the directory may lag, and one file may have two paths.
 */
export function assertPathsFree(spec: VmSpec, others: () => readonly VmView[]): void {
  const disks = pathDisks(spec.disks);
  if (disks.length === 0) return; // as mostly, and there may be thousands of others
  const users = new Map(
    others().flatMap((vm) => pathDisks(vm.spec.disks).map(({ path }) => [path, `VM ${vm.name}`])),
  );
  for (const { name, path } of disks) {
    const user = users.get(path);
    if (user !== undefined) {
      throw new HoldfastError('name-in-use', `${name} of VM ${spec.name}: ${user} has ${path}`);
    }
    users.set(path, `its ${name}`);
  }
}

/** Of a disk that is none of the store's there is nothing to set, and nothing to serve. */
export function assertObjectDisk({ name, spec }: VmView, disk: string): void {
  const found = spec.disks.find((one) => one.name === disk);
  if (found === undefined || !isPathDisk(found)) return;
  throw new HoldfastError(
    'bad-request',
    `disk: ${disk} of VM ${name} is ${found.path}, which Holdfast neither stores nor serves`,
  );
}

function within(key: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw refused(key, `expected a whole number from ${min} to ${max}, found ${value}`);
}

function refused(key: string, text: string): HoldfastError {
  return new HoldfastError('bad-request', `${key}: ${text}`);
}
