// A disk that is no object: a file or a block device that is there already, on storage that every host sees
// under the same path. Holdfast neither makes nor removes it, and has no copy of it: it starts a guest with it,
// under the lock of the VM's namespace object (docs/decisions/0012-disks-on-shared-storage.md).

import { limits } from './limits.ts';

/** What stands in the file. It is never guessed from its content, which the guest writes. */
export const diskFormats = ['raw', 'qcow2'] as const;
export type DiskFormat = (typeof diskFormats)[number];

export interface PathDisk {
  readonly name: string;
  readonly path: string;
  readonly format: DiskFormat;
}

/** Of a path whose user names none. */
export function formatOf(path: string): DiskFormat {
  return path.endsWith('.qcow2') ? 'qcow2' : 'raw';
}

/** Whether a path says by itself, on every host and in one way only, what it means. */
export function isPlainPath(path: string): boolean {
  const [root, ...steps] = path.split('/');
  return (
    root === '' &&
    steps.length > 0 &&
    path.length <= limits.maxPathLength &&
    !/\p{Cc}/u.test(path) &&
    steps.every((step) => step !== '' && step !== '.' && step !== '..')
  );
}

/** Why a guest can not have the disk on that host, as people are told. */
export function unusableText(
  vm: string,
  { name, path }: PathDisk,
  host: string,
  why: string,
): string {
  return `VM ${vm}: its ${name}, ${path}, can not be used on ${host}: ${why}`;
}
