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

/** What HA keeps to when it restarts a VM, or its host is cut off. It is a part of the VM's protection state, so
 * that any master has it from there. */
export interface HaRules {
  readonly priority: RestartPriority;
  /** Names of VMs that run before HA starts this one. Of those that are not protected none is waited for. */
  readonly after?: readonly string[];
  /** From when on it counts as running for those that start after it; absent: `started`. */
  readonly readyWhen?: 'started' | 'heard';
  /** VMs with the same label go to different hosts where that can be. */
  readonly separate?: string;
  readonly affinity?: HostAffinity;
  /** What becomes of the guest when its lease lapses; absent: `pause`. */
  readonly isolationResponse?: 'pause' | 'kill';
  /** What becomes of a guest that hangs; absent: `restart`. */
  readonly whenHung?: 'restart' | 'leave';
}

export type HostAffinity = {
  /** Where it is started if it can be, */
  readonly hosts: readonly string[];
  /** and nowhere else. */
  readonly required?: boolean;
};

export interface VmSpec extends HaRules {
  readonly name: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly boot: Boot;
  readonly disks: readonly DiskSpec[];
  readonly protected: boolean;
}

/** The rules alone. */
export function rulesOf(from: HaRules): HaRules {
  const { priority, after, readyWhen, separate, affinity, isolationResponse, whenHung } = from;
  return {
    priority,
    ...(after === undefined ? {} : { after }),
    ...(readyWhen === undefined ? {} : { readyWhen }),
    ...(separate === undefined ? {} : { separate }),
    ...(affinity === undefined ? {} : { affinity }),
    ...(isolationResponse === undefined ? {} : { isolationResponse }),
    ...(whenHung === undefined ? {} : { whenHung }),
  };
}

/** What a VM's guest does on the host that answers for it. */
export type GuestState = 'starting' | 'running' | 'paused' | 'stopping';

export type PowerState = 'off' | GuestState | 'unknown';

/** Metadata of the namespace object that the host writes which runs the VM. */
export const runnerService = 'runner';
/** Disks that the guest of this epoch was started without. */
export const detachedKey = 'detached';

export type DetachedDisks = { readonly epoch: number; readonly disks: readonly string[] };
