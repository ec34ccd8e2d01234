// A disk in memory. It remembers what was asked of it, and can hold its answers back for as long as
// a test likes, as a disk does whose storage is away.

import type { HoldfastError } from '../../src/model/errors.ts';
import type { BlockDevice, ZeroOptions } from '../../src/storage/disk/block-device.ts';

export class MemoryDevice implements BlockDevice {
  readonly bytes: Uint8Array;
  /** One line per request, in the order in which they came. */
  readonly calls: string[] = [];
  /** Answers that are held back. */
  readonly held: (() => void)[] = [];
  writes = 0;
  fuaWrites = 0;
  flushes = 0;
  zeroes = 0;
  /** Ranges whose space was to be given back. */
  readonly unmapped: [number, number][] = [];
  canUnmap = true;
  holding = false;
  /** What all requests fail with. */
  failure: HoldfastError | null = null;
  onWrite: (() => void) | null = null;
  readonly #record: boolean;

  constructor(sizeBytes: number, { record = true } = {}) {
    this.bytes = new Uint8Array(sizeBytes);
    this.#record = record;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    if (this.#record) this.calls.push(`read ${offset} ${length}`);
    this.#answer(() => done(this.failure, this.bytes.slice(offset, offset + length)));
  }

  write(
    offset: number,
    bytes: Uint8Array,
    fua: boolean,
    done: (error: HoldfastError | null) => void,
  ): void {
    if (this.#record) this.calls.push(`write ${offset} ${bytes.length}${fua ? ' fua' : ''}`);
    if (offset + bytes.length > this.bytes.length) throw new Error('write beyond the end');
    this.writes += 1;
    if (fua) this.fuaWrites += 1;
    this.onWrite?.();
    this.#answer(() => {
      if (this.failure === null) this.bytes.set(bytes, offset);
      done(this.failure);
    });
  }

  zero(
    offset: number,
    length: number,
    { unmap, fua }: ZeroOptions,
    done: (error: HoldfastError | null) => void,
  ): void {
    const flags = `${unmap ? ' unmap' : ''}${fua ? ' fua' : ''}`;
    if (this.#record) this.calls.push(`zero ${offset} ${length}${flags}`);
    if (offset + length > this.bytes.length) throw new Error('zero beyond the end');
    this.zeroes += 1;
    if (unmap) this.unmapped.push([offset, length]);
    this.#answer(() => {
      if (this.failure === null) this.bytes.fill(0, offset, offset + length);
      done(this.failure);
    });
  }

  flush(done: (error: HoldfastError | null) => void): void {
    if (this.#record) this.calls.push('flush');
    this.flushes += 1;
    this.#answer(() => done(this.failure));
  }

  /** Answers all that was held back, and from now on at once. */
  release(): void {
    this.holding = false;
    for (const answer of this.held.splice(0)) answer();
  }

  #answer(answer: () => void): void {
    if (this.holding) this.held.push(answer);
    else answer();
  }
}
