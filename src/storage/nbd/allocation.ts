// What is data on a disk and what is not (NBD's `base:allocation`), found out by reading: a run of zeros
// is told as a hole. That is exact whatever the copies hold, and true of every one of them, where
// the holes of one copy's file would be neither; it costs a read that never leaves the storage network.

import type { HoldfastError } from '../../model/errors.ts';
import type { BlockDevice } from '../disk/block-device.ts';
import { zeroRuns } from '../disk/zero-runs.ts';
import { commandFlag } from './wire.ts';

export interface Extent {
  readonly length: number;
  readonly isZero: boolean;
}

/** Looked at for one request; the client asks on from where the answer ends. */
export const statusScanBytes = 8 * 1024 * 1024;

/** Extents from `offset` on, at least one, that cover a beginning of the range. */
export function readExtents(
  device: BlockDevice,
  request: { readonly offset: number; readonly length: number; readonly flags: number },
  done: (error: HoldfastError | null, extents: readonly Extent[]) => void,
): void {
  const length = Math.min(request.length, statusScanBytes);
  device.read(request.offset, length, (error, bytes) => {
    if (error !== null) return done(error, []);
    const runs = zeroRuns(bytes, request.offset);
    done(null, (request.flags & commandFlag.reqOne) === 0 ? runs : runs.slice(0, 1));
  });
}
