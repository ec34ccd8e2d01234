// Space for a whole component at once (`thick`). Zeros are written: every file system gives blocks for
// them, and none for a file that is merely long. So a later write can not fail for want of space where
// blocks are overwritten in place (ext4, XFS); a file system that writes anew each time (btrfs, ZFS, one
// under snapshots) promises nothing of the kind.

import type { LocalDisk } from '../../ports/disk.ts';
import { syncFile, writeTo } from '../../ports/disk-calls.ts';

const pieceBytes = 4 * 1024 * 1024;

/** All of a file that is there and holds nothing but zeros; rejects with DiskError `full`. */
export async function allocate(disk: LocalDisk, name: string): Promise<void> {
  const file = await disk.open(name, { create: false });
  const { sizeBytes } = file;
  try {
    const zeros = new Uint8Array(Math.min(pieceBytes, sizeBytes));
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      const piece = zeros.subarray(0, Math.min(pieceBytes, sizeBytes - offset));
      await writeTo(file, offset, piece);
    }
    await syncFile(file);
  } finally {
    // What is durable is durable, whatever its closing says.
    await file.close().catch(() => undefined);
  }
}
