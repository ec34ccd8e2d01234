// A file's callbacks as promises, for paths that need not be quick (open, checkpoint, superblock, heads).

import type { DiskError, DiskFile } from './disk.ts';

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
