// Space for a whole component at once (`thick`). Zeros are written: every file system gives blocks for
// them, and none for a file that is merely long. So a later write can not fail for want of space where
// blocks are overwritten in place (ext4, XFS); a file system that writes anew each time (btrfs, ZFS, one
// under snapshots) promises nothing of the kind.

import type { DiskError, DiskFile, LocalDisk } from '../../ports/disk.ts';

const pieceBytes = 4 * 1024 * 1024;

/** All of a file that is there and holds nothing but zeros; rejects with DiskError `full`. */
export async function allocate(disk: LocalDisk, name: string): Promise<void> {
  const file = await disk.open(name, { create: false });
  const { sizeBytes } = file;
  try {
    const zeros = new Uint8Array(Math.min(pieceBytes, sizeBytes));
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      const piece = zeros.subarray(0, Math.min(pieceBytes, sizeBytes - offset));
      await settled((done) => file.write(offset, [piece], done));
    }
    await settled((done) => file.sync(done));
  } finally {
    await closed(file);
  }
}

function settled(start: (done: (error: DiskError | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => (error === null ? resolve() : reject(error)));
  });
}

/** What is durable is durable, whatever its closing says. */
async function closed(file: DiskFile): Promise<void> {
  await file.close().catch(() => undefined);
}
