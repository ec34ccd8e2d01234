// A host whose device shall be full gets one that can be: a small file system of its own (ext4 in a file, through a
// loop device), mounted where its store is. It is filled by one large file beside what the host has there, and
// everybody who writes then meets the same ENOSPC as on a full disk.

import { closeSync, openSync, rmdirSync, rmSync, statfsSync, truncateSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './program.ts';

const sizeBytes = 4 * 2 ** 30;
const storeOf = (hostFolder: string): string => join(hostFolder, 'data', 'store');
const ballastOf = (hostFolder: string): string => join(storeOf(hostFolder), '.ballast');

/** Before the host's daemon runs for the first time. */
export async function mountSmallDisk(hostFolder: string): Promise<void> {
  const image = join(hostFolder, 'store.img');
  const store = storeOf(hostFolder);
  closeSync(openSync(image, 'wx', 0o600));
  truncateSync(image, sizeBytes);
  // Nothing is kept back for root, as whom everything here runs.
  await run(['mkfs.ext4', '-q', '-m', '0', image]);
  await mkdir(store, { recursive: true, mode: 0o700 });
  await run(['mount', '-o', 'loop', image, store]);
  rmdirSync(join(store, 'lost+found'));
}

export async function fill(hostFolder: string): Promise<void> {
  const { bavail, bsize } = statfsSync(storeOf(hostFolder));
  await run(['fallocate', '-l', String(bavail * bsize), ballastOf(hostFolder)]).catch(
    (error: unknown) => {
      // What was free is less by now: then that is what is taken.
      if (statfsSync(storeOf(hostFolder)).bavail > 0) throw error;
    },
  );
}

export function free(hostFolder: string): void {
  rmSync(ballastOf(hostFolder), { force: true });
}
