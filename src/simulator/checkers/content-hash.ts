// A number that stands for the content of a record. On their way between hosts records are patched, so a key
// that one host has put in the middle another one has at the end: the order of keys is no content.

import type { ObjectRecord } from '../../model/record.ts';

/** A record never changes, so its hash is made once for each copy of it. */
const hashes = new WeakMap<ObjectRecord, number>();

export function contentHash(record: ObjectRecord): number {
  let hash = hashes.get(record);
  if (hash === undefined) {
    hash = hashOf(textOf(record));
    hashes.set(record, hash);
  }
  return hash;
}

function textOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? '';
  if (Array.isArray(value)) return `[${value.map(textOf).join()}]`;
  const of = value as Readonly<Record<string, unknown>>;
  const keys = Object.keys(of).filter((key) => of[key] !== undefined);
  return `{${keys
    .sort()
    .map((key) => `${key}:${textOf(of[key])}`)
    .join()}}`;
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
