// Where a piece of data is all zeros: what need not be sent, stored or kept as bytes. It is looked at
// in grains, aligned to the disk, because a hole much smaller than that saves nobody anything.

export interface Run {
  /** Within the bytes. */
  readonly at: number;
  readonly length: number;
  readonly isZero: boolean;
}

/** One grain costs about 10 us to look at, and a hole of this size saves an operation of the disk. */
export const grainBytes = 64 * 1024;

/** The pieces of `bytes`, which lie at `offset` of the disk, in order; two that follow each other
 * differ. None for no bytes. */
export function zeroRuns(bytes: Uint8Array, offset: number): Run[] {
  const runs: Run[] = [];
  let at = 0;
  while (at < bytes.length) {
    const length = Math.min(bytes.length - at, grainBytes - ((offset + at) % grainBytes));
    const isZero = isAllZero(bytes, at, length);
    const last = runs.at(-1);
    if (last?.isZero === isZero) runs[runs.length - 1] = { ...last, length: last.length + length };
    else runs.push({ at, length, isZero });
    at += length;
  }
  return runs;
}

/** Words of four bytes where they are aligned: four times as fast. Most data ends it at once. */
function isAllZero(bytes: Uint8Array, from: number, length: number): boolean {
  const end = from + length;
  let at = from;
  for (; at < end && (bytes.byteOffset + at) % 4 !== 0; at += 1) if (bytes[at] !== 0) return false;
  if (at === end) return true;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, Math.floor((end - at) / 4));
  for (let index = 0; index < words.length; index += 1) if (words[index] !== 0) return false;
  for (at += 4 * words.length; at < end; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
