// The device's errors as people get to see them, and its callbacks as promises for the slow paths
// (open, checkpoint, superblock). The path of an append uses the callbacks themselves.

import { HoldfastError } from '../../model/errors.ts';
import { DiskError, type DiskFile } from '../../ports/disk.ts';

export function fromDisk(error: unknown, what: string): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const text = error instanceof Error ? error.message : String(error);
  const full = error instanceof DiskError && error.kind === 'full';
  return new HoldfastError(full ? 'disk-full' : 'disk-error', `${what}: ${text}`, { cause: error });
}

export function damaged(what: string): HoldfastError {
  return new HoldfastError('store-damaged', what);
}

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
