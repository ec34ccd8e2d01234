// What a device holds of one file: what is durable, what reads return, and the changes in between, which a loss of
// power or a failed sync may take.

import { Pages } from './pages.ts';

/** A change of a file that the device may still lose. */
export type Change =
  | {
      readonly kind: 'write';
      readonly offset: number;
      bytes: Uint8Array;
      state: ChangeState;
    }
  | { readonly kind: 'discard'; readonly offset: number; length: number; state: ChangeState }
  | { readonly kind: 'resize'; readonly sizeBytes: number; state: ChangeState };

/** `flying`: not called back; `written`: the next sync takes it; `doomed`: a sync failed on it. */
export type ChangeState = 'flying' | 'written' | 'doomed';

export interface StoredFile {
  /** What survives for certain. */
  durable: Pages;
  /** What reads return. */
  content: Pages;
  changes: Change[];
  /** Pages in which the two images may differ. */
  dirty: Set<number>;
}

export function emptyFile(): StoredFile {
  return { durable: new Pages(), content: new Pages(), changes: [], dirty: new Set() };
}

export function apply(image: Pages, change: Change, dirty: Set<number>): void {
  if (change.kind === 'resize') image.resize(change.sizeBytes, dirty);
  else if (change.kind === 'discard') image.discard(change.offset, change.length, dirty);
  else image.write(change.offset, change.bytes, dirty);
}

/** What a sync failed on stays in the cache as it reads, and must not come back over what was
 * written there since. */
export function supersede(file: StoredFile, newer: Change): void {
  if (!file.changes.some((change) => change.state === 'doomed')) return;
  if (newer.kind === 'resize') return cutOff(file, newer.sizeBytes);
  const start = newer.offset;
  const end = start + (newer.kind === 'write' ? newer.bytes.length : newer.length);
  file.changes = file.changes.flatMap((older) => {
    if (older.state !== 'doomed') return [older];
    if (older.kind === 'write') {
      const from = Math.max(older.offset, start);
      const to = Math.min(older.offset + older.bytes.length, end);
      if (from >= to) return [older];
      older.bytes = older.bytes.slice(); // pages may be parts of what it was
      const place = older.bytes.subarray(from - older.offset, to - older.offset);
      if (newer.kind === 'write') place.set(newer.bytes.subarray(from - start, to - start));
      else place.fill(0);
      return [older];
    }
    if (older.kind === 'discard') {
      const olderEnd = older.offset + older.length;
      const before = { ...older, length: Math.min(olderEnd, start) - older.offset };
      const offset = Math.max(older.offset, end);
      const after = { ...older, offset, length: olderEnd - offset };
      return [before, after].filter((piece) => piece.length > 0);
    }
    return [older];
  });
}

function cutOff(file: StoredFile, sizeBytes: number): void {
  file.changes = file.changes.flatMap((older) => {
    if (older.state !== 'doomed' || older.kind === 'resize') return [older];
    const room = sizeBytes - older.offset;
    if (room <= 0) return [];
    if (older.kind === 'write') older.bytes = older.bytes.slice(0, room);
    else older.length = Math.min(older.length, room);
    return [older];
  });
}
