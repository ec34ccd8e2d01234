// The write-intent bitmap of one component (as Linux md's): one bit per region, durable before the
// data of a write to the region, cleared only when every component of the blueprint holds the data
// durably. So the set bits always cover where copies may differ.

import type { DiskError, DiskFile } from '../../ports/disk.ts';

type Done = (error: DiskError | null) => void;

export interface WriteIntent {
  /** Calls back when the bits of these regions are durably set; at once if they are. */
  set(first: number, last: number, done: Done): void;
  /** Clears bits; durable some time later, since a bit too many does no harm. */
  clear(regions: readonly number[]): void;
  regions(): number[];
}

export function createWriteIntent(
  file: DiskFile,
  fileOffset: number,
  bits: Uint8Array,
): WriteIntent {
  /** Bits that are set in the file durably; `bits` may be ahead of it, in both directions. At first
   * none is known to be: what was read may have been written and not synced. */
  const durable = new Uint8Array(bits.length);
  let waiting: Done[] = [];
  let writing = false;

  const has = (map: Uint8Array, region: number) =>
    ((map[region >> 3] as number) & (1 << (region & 7))) !== 0;

  function allDurable(first: number, last: number): boolean {
    for (let region = first; region <= last; region += 1) {
      if (!has(durable, region) || !has(bits, region)) return false;
    }
    return true;
  }

  function writeOut(): void {
    if (writing) return;
    writing = true;
    const batch = waiting;
    waiting = [];
    const image = bits.slice();
    // While a cleared bit is on its way to the file it no longer counts as durably set.
    for (let index = 0; index < durable.length; index += 1) {
      durable[index] = (durable[index] as number) & (image[index] as number);
    }
    const finish = (error: DiskError | null) => {
      writing = false;
      if (error === null) {
        for (let index = 0; index < durable.length; index += 1) {
          durable[index] = (durable[index] as number) | (image[index] as number);
        }
      }
      for (const done of batch) done(error);
      if (waiting.length > 0) writeOut();
    };
    file.write(fileOffset, [image], (error) => {
      if (error !== null) finish(error);
      else file.sync(finish);
    });
  }

  return {
    set(first, last, done) {
      for (let region = first; region <= last; region += 1) {
        bits[region >> 3] = (bits[region >> 3] as number) | (1 << (region & 7));
      }
      // Also while a write is under way: `durable` then holds only bits that its image has too.
      if (allDurable(first, last)) {
        done(null);
        return;
      }
      waiting.push(done);
      writeOut();
    },
    clear(regions) {
      for (const region of regions) {
        if (region >> 3 >= bits.length) continue;
        bits[region >> 3] = (bits[region >> 3] as number) & ~(1 << (region & 7));
      }
    },
    regions() {
      const found: number[] = [];
      for (let index = 0; index < bits.length; index += 1) {
        if (bits[index] === 0) continue;
        for (let bit = 0; bit < 8; bit += 1) {
          if (has(bits, index * 8 + bit)) found.push(index * 8 + bit);
        }
      }
      return found;
    },
  };
}
