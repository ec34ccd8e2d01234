// What a VM is to its user: the specification that stands in `vm.json` of its namespace object.

import type { PathDisk } from './path-disk.ts';
import type { StoragePolicy } from './policy.ts';

/** `disk`: firmware boots from the first disk. Otherwise the name of a boot image that the hosts'
 * configuration defines (kernel, initial RAM disk, command line). */
export type Boot = string;

/** A disk object of the store. */
export interface ObjectDisk {
  readonly name: string;
  readonly sizeBytes: number;
  readonly policy: StoragePolicy;
  /** False: the VM is accessible, and can be started, without it. */
  readonly required?: boolean;
}

export type DiskSpec = ObjectDisk | PathDisk;

export function isPathDisk(disk: DiskSpec): disk is PathDisk {
  return 'path' in disk;
}

export function objectDisks(disks: readonly DiskSpec[]): ObjectDisk[] {
  return disks.filter((disk): disk is ObjectDisk => !isPathDisk(disk));
}

export function pathDisks(disks: readonly DiskSpec[]): PathDisk[] {
  return disks.filter(isPathDisk);
}

export type RestartPriority = 'highest' | 'high' | 'medium' | 'low' | 'lowest';

export interface VmSpec {
  readonly name: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly boot: Boot;
  readonly disks: readonly DiskSpec[];
  readonly protected: boolean;
  readonly priority: RestartPriority;
}

/** What a VM's guest does on the host that answers for it. */
export type GuestState = 'starting' | 'running' | 'paused' | 'stopping';

export type PowerState = 'off' | GuestState | 'unknown';

/** Metadata of the namespace object that the host writes which runs the VM. */
export const runnerService = 'runner';
/** Disks that the guest of this epoch was started without. */
export const detachedKey = 'detached';

export type DetachedDisks = { readonly epoch: number; readonly disks: readonly string[] };
