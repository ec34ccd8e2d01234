// Bytes that are needed for a moment: frames and requests under way. They are cut from larger pieces,
// because a buffer of its own takes longer to get, and to be rid of, than to fill. No place is given
// out twice, so who keeps such bytes only keeps their neighbours in memory, too.

const slabBytes = 64 * 1024;
/** Longer ones have a buffer of their own. */
const maxSharedBytes = slabBytes / 4;

let slab = new ArrayBuffer(0);
let used = 0;

/** So many zeros. */
export function bytesForAMoment(length: number): Uint8Array {
  if (length > maxSharedBytes) return new Uint8Array(length);
  if (used + length > slab.byteLength) {
    slab = new ArrayBuffer(slabBytes);
    used = 0;
  }
  const bytes = new Uint8Array(slab, used, length);
  used += (length + 7) & ~7;
  return bytes;
}
