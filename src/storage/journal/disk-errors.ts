// The device's errors as people get to see them.

import { HoldfastError } from '../../model/errors.ts';
import { DiskError } from '../../ports/disk.ts';

export function fromDisk(error: unknown, what: string): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const text = error instanceof Error ? error.message : String(error);
  const full = error instanceof DiskError && error.kind === 'full';
  return new HoldfastError(full ? 'disk-full' : 'disk-error', `${what}: ${text}`, { cause: error });
}

export function damaged(what: string): HoldfastError {
  return new HoldfastError('store-damaged', what);
}
