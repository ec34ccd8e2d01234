// A file's callbacks as promises, for paths that need not be quick (open, checkpoint, superblock, heads).

import type { DiskError, DiskFile, LocalDisk } from './disk.ts';

type Done = (error: DiskError | null) => void;

function promised(start: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) =>
    start((error) => (error === null ? resolve() : reject(error))),
  );
}

export const writeTo = (file: DiskFile, offset: number, bytes: Uint8Array): Promise<void> =>
  promised((done) => file.write(offset, [bytes], done));

export const syncFile = (file: DiskFile): Promise<void> => promised((done) => file.sync(done));

export const readFrom = (file: DiskFile, offset: number, target: Uint8Array): Promise<void> =>
  promised((done) => file.read(offset, target, done));

const trialFile = 'trial';

/** Rejects unless a new file can be written, made durable and removed. */
export async function tryDevice(disk: LocalDisk): Promise<void> {
  const file = await disk.open(trialFile, { create: true });
  try {
    await writeTo(file, 0, new Uint8Array(4096));
    await syncFile(file);
  } finally {
    await file.close();
    await disk.remove(trialFile);
  }
}
