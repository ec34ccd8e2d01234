// One file of the store, read and written at offsets. What the port promises and the system does not
// is added here: short reads and writes go on, the size is known without asking, and a failed sync
// stays failed. Linux reports a lost write once, to one fdatasync, and counts the pages as clean
// afterwards; so only one runs at a time, whoever asks meanwhile shares the next one, and after an
// error the file takes no more writes and no more syncs until it is opened again.

import { fdatasync, read, writev } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { DiskError, type DiskFile } from '../ports/disk.ts';
import { dropCached } from './drop-cached.ts';
import { punchHole } from './punch-hole.ts';
import { SmallCalls } from './small-calls.ts';

type Done = (error: DiskError | null) => void;

/** For more bytes than that the hand-over to a thread is little of the whole. */
const maxSmallBytes = 16 * 1024;

/** What is written where a file system has no holes. */
const zeros = new Uint8Array(1024 * 1024);

export function toDiskError(error: unknown, what: string): DiskError {
  if (error instanceof DiskError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const kind =
    code === 'ENOSPC' || code === 'EDQUOT' ? 'full' : code === 'ENOENT' ? 'missing' : 'failed';
  return new DiskError(kind, `${what}: ${message}`, { cause: error });
}

export async function openDiskFile(handle: FileHandle, name: string): Promise<DiskFile> {
  return new NodeDiskFile(handle, name, (await handle.stat()).size);
}

class NodeDiskFile implements DiskFile {
  sizeBytes: number;
  readonly #handle: FileHandle;
  readonly #name: string;
  readonly #reads: SmallCalls;
  readonly #writes: SmallCalls;
  #failure: DiskError | null = null;
  #syncing = false;
  #waiting: Done[] = [];

  constructor(handle: FileHandle, name: string, sizeBytes: number) {
    this.#handle = handle;
    this.#name = name;
    this.sizeBytes = sizeBytes;
    this.#reads = new SmallCalls('read', handle);
    this.#writes = new SmallCalls('write', handle);
  }

  read(offset: number, target: Uint8Array, done: Done): void {
    if (target.length === 0) return void setImmediate(done, null);
    if (target.length > maxSmallBytes) return this.#readSingly(offset, target, done);
    this.#reads.add(offset, target, (isWhole) => {
      if (isWhole) done(null);
      else this.#readSingly(offset, target, done);
    });
  }

  #readSingly(offset: number, target: Uint8Array, done: Done): void {
    read(this.#handle.fd, target, 0, target.length, offset, (error, bytesRead) => {
      if (error !== null) return done(toDiskError(error, `reading ${this.#name}`));
      if (bytesRead === target.length) return done(null);
      if (bytesRead > 0) {
        return this.#readSingly(offset + bytesRead, target.subarray(bytesRead), done);
      }
      target.fill(0);
      done(null);
    });
  }

  write(offset: number, chunks: readonly Uint8Array[], done: Done): void {
    if (this.#failure !== null) return void setImmediate(done, this.#failure);
    let length = 0;
    for (const chunk of chunks) length += chunk.length;
    if (length === 0) return void setImmediate(done, null);
    const [only] = chunks;
    if (only === undefined || chunks.length > 1 || length > maxSmallBytes) {
      return this.#writeSingly(offset, chunks, length, done);
    }
    this.#writes.add(offset, only, (isWhole) => {
      if (!isWhole) return this.#writeSingly(offset, chunks, length, done);
      this.#reaches(offset + length);
      done(null);
    });
  }

  #writeSingly(offset: number, chunks: readonly Uint8Array[], length: number, done: Done): void {
    writev(this.#handle.fd, chunks, offset, (error, bytesWritten) => {
      if (error !== null) return done(toDiskError(error, `writing ${this.#name}`));
      const end = offset + bytesWritten;
      this.#reaches(end);
      if (bytesWritten === length) return done(null);
      if (bytesWritten > 0) return this.write(end, skip(chunks, bytesWritten), done);
      done(new DiskError('failed', `writing ${this.#name}: the device takes no bytes`));
    });
  }

  #reaches(end: number): void {
    if (end > this.sizeBytes) this.sizeBytes = end;
  }

  discard(offset: number, length: number, done: Done): void {
    if (this.#failure !== null) return void setImmediate(done, this.#failure);
    if (offset + length > this.sizeBytes) {
      const range = `${offset}+${length} of ${this.sizeBytes} bytes`;
      const error = new DiskError('failed', `discarding ${range} of ${this.#name}: beyond its end`);
      return void setImmediate(done, error);
    }
    if (length === 0) return void setImmediate(done, null);
    punchHole(this.#handle.fd, offset, length, (outcome) => {
      if (outcome === 'punched') done(null);
      else if (outcome === 'unsupported') this.#writeZeros(offset, length, done);
      else done(toDiskError(outcome, `discarding of ${this.#name}`));
    });
  }

  #writeZeros(offset: number, length: number, done: Done): void {
    const piece = Math.min(zeros.length, length);
    this.write(offset, [zeros.subarray(0, piece)], (error) => {
      if (error !== null || piece === length) done(error);
      else this.#writeZeros(offset + piece, length - piece, done);
    });
  }

  sync(done: Done): void {
    this.#waiting.push(done);
    if (!this.#syncing) this.#syncNext();
  }

  #syncNext(): void {
    const served = this.#waiting;
    this.#waiting = [];
    this.#syncing = true;
    const finish = (error: DiskError | null) => {
      this.#failure ??= error;
      this.#syncing = false;
      for (const done of served) done(this.#failure);
      // A callback may have begun the next one already.
      if (this.#waiting.length > 0 && !this.#syncing) this.#syncNext();
    };
    if (this.#failure !== null) return void setImmediate(finish, null);
    fdatasync(this.#handle.fd, (error) =>
      finish(error === null ? null : toDiskError(error, `syncing ${this.#name}`)),
    );
  }

  get isSpent(): boolean {
    return this.#failure !== null;
  }

  async dropCached(): Promise<void> {
    try {
      await dropCached(this.#handle.fd);
    } catch (error) {
      throw toDiskError(error, `reading ${this.#name} anew`);
    }
  }

  async resize(sizeBytes: number): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    try {
      await this.#handle.truncate(sizeBytes);
    } catch (error) {
      throw toDiskError(error, `resizing ${this.#name}`);
    }
    this.sizeBytes = sizeBytes;
  }

  async close(): Promise<void> {
    try {
      await this.#handle.close();
    } catch (error) {
      throw toDiskError(error, `closing ${this.#name}`);
    }
  }
}

/** The chunks without their first `bytes` bytes. */
function skip(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let left = bytes;
  for (const chunk of chunks) {
    if (left < chunk.length) rest.push(left === 0 ? chunk : chunk.subarray(left));
    left = Math.max(0, left - chunk.length);
  }
  return rest;
}
