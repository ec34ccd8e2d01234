// A number that stands for the content of a record. Records pass through JSON on their way between
// hosts, which keeps the order of keys, so the text of a record is the same wherever it is.

import type { ObjectRecord } from '../../model/record.ts';

/** A record never changes, so its hash is made once for each copy of it. */
const hashes = new WeakMap<ObjectRecord, number>();

export function contentHash(record: ObjectRecord): number {
  let hash = hashes.get(record);
  if (hash === undefined) {
    hash = hashOf(JSON.stringify(record));
    hashes.set(record, hash);
  }
  return hash;
}

/** 53 bits, in the manner of MurmurHash (cyrb53, Bryc 2018, public domain). */
function hashOf(text: string): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    a = Math.imul(a ^ code, 2654435761);
    b = Math.imul(b ^ code, 1597334677);
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
  return 4294967296 * (2097151 & b) + (a >>> 0);
}
