// Small reads, or small writes, of one file: those of one turn of the event loop are handed to a thread
// together. Which is worth while because whoever asks has many under way, and they come in groups: a client's
// requests arrive by one read of its socket, and what was done together is answered together.
//
// Reads and writes are kept apart, and so are files: a read does not wait for a write that waits for its
// device, nor one device for another.

import type { FileHandle } from 'node:fs/promises';
import { type FileCall, maxBatch, runBatch } from './kernel-batches.ts';

interface Gathered extends FileCall {
  readonly done: (isWhole: boolean) => void;
}

export class SmallCalls {
  readonly #kind: 'read' | 'write';
  readonly #handle: FileHandle;
  #gathered: Gathered[] = [];
  /** The kernel does not do this with the file. */
  #isRefused = false;

  constructor(kind: 'read' | 'write', handle: FileHandle) {
    this.#kind = kind;
    this.#handle = handle;
  }

  /** Where it was not done whole, nothing is known of it: it is to be done in the usual way. The bytes belong to
   * it until then. */
  add(offset: number, bytes: Uint8Array, done: (isWhole: boolean) => void): void {
    if (this.#isRefused) return done(false);
    this.#gathered.push({ offset, bytes, done });
    if (this.#gathered.length === 1) setImmediate(() => this.#submit());
  }

  #submit(): void {
    const calls = this.#gathered;
    this.#gathered = [];
    for (let from = 0; from < calls.length; from += maxBatch) {
      const batch = calls.slice(from, from + maxBatch);
      if (batch.length > 1 && this.#run(batch)) continue;
      for (const { done } of batch) done(false);
    }
  }

  #run(batch: readonly Gathered[]): boolean {
    return runBatch(this.#kind, this.#handle.fd, batch, (whole) => {
      if (whole === null) this.#isRefused = true;
      for (const [index, { done }] of batch.entries()) done(whole?.[index] ?? false);
    });
  }
}
