// A disk as a server of block protocols sees it: numbered bytes, a volatile cache, a flush.

import type { HoldfastError } from '../../model/errors.ts';

export interface BlockDevice {
  readonly sizeBytes: number;
  /** Bytes of the range; waits as long as it takes. An error means that the range is unreadable. */
  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void;
  /** Called back when every in-sync copy has the bytes; durably so where `fua`. The bytes must not
   * change until then. */
  write(
    offset: number,
    bytes: Uint8Array,
    fua: boolean,
    done: (error: HoldfastError | null) => void,
  ): void;
  /** Called back when all writes that were called back before are durable. */
  flush(done: (error: HoldfastError | null) => void): void;
}
