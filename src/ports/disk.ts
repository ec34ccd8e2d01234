// The store of one host: a folder of files on its devices. A write is visible at once to later
// reads; it survives the loss of power only after a `sync` that began after it was called back.

/** An error of the device. `full`: no space; `missing`: no such file; `failed`: everything else. */
export class DiskError extends Error {
  readonly kind: 'full' | 'missing' | 'failed';
  constructor(kind: 'full' | 'missing' | 'failed', message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'DiskError';
    this.kind = kind;
  }
}

export interface DiskFile {
  /** Bytes now in the file. */
  readonly sizeBytes: number;
  /** Fills `target` from `offset`; what lies beyond the end of the file reads as zeros. */
  read(offset: number, target: Uint8Array, done: (error: DiskError | null) => void): void;
  /** Writes the chunks one after the other from `offset` on; they must not change until `done`. */
  write(
    offset: number,
    chunks: readonly Uint8Array[],
    done: (error: DiskError | null) => void,
  ): void;
  /** Makes the range (all of it within the file) read as zeros and gives its space back where the
   * device can; where not, zeros are written. Visible and durable as a write is. */
  discard(offset: number, length: number, done: (error: DiskError | null) => void): void;
  /** Makes all writes that were called back durable. */
  sync(done: (error: DiskError | null) => void): void;
  /** A sync has failed, and what it was to make durable may be lost while it still reads well: the file takes no
   * more changes and syncs until it is opened again. */
  readonly isSpent: boolean;
  /** Lets go of what is held in memory of it and is not to be written any more: reads tell from here on what the
   * device has. */
  dropCached(): Promise<void>;
  /** Cuts or extends (with zeros, sparse) the file. */
  resize(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

export interface LocalDisk {
  /** CRC-32 (as `crc32` of the model, but as fast as the machine can). */
  readonly crc32: (bytes: Uint8Array) => number;
  /**
   * Changes whenever writes that were not synced may have been lost (power loss, reboot). The end
   * of the daemon's process alone does not change it.
   */
  readonly incarnation: string;
  /** Opens a file, making it (durably) where `create`; rejects with `missing` otherwise. Names are
   * relative paths with `/`; folders are made as needed. */
  open(name: string, options: { readonly create: boolean }): Promise<DiskFile>;
  /** Full names (as `open` takes them) of all files below a folder, sorted; empty where there is
   * none. */
  list(folder: string): Promise<string[]>;
  /** Removes a file durably; no error where there is none. */
  remove(name: string): Promise<void>;
  /** Renames durably, replacing the target. */
  rename(from: string, to: string): Promise<void>;
  space(): { readonly totalBytes: number; readonly freeBytes: number };
}
