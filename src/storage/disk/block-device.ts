// A disk as a server of block protocols sees it: numbered bytes, a volatile cache, a flush.

import type { HoldfastError } from '../../model/errors.ts';

export interface ZeroOptions {
  /** The space is to be given back; otherwise it stays, or becomes, the range's own. */
  readonly unmap: boolean;
  readonly fua: boolean;
}

export interface BlockDevice {
  readonly sizeBytes: number;
  /** Whether space can be given back; false for a disk that was promised all of its space. */
  readonly canUnmap: boolean;
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
  /** Makes the range read as zeros, on every copy; called back as `write` is. Without `canUnmap` the
   * space is kept whatever is asked for. */
  zero(
    offset: number,
    length: number,
    options: ZeroOptions,
    done: (error: HoldfastError | null) => void,
  ): void;
  /** Called back when all writes that were called back before are durable. */
  flush(done: (error: HoldfastError | null) => void): void;
}
