// What the writer of a disk and the hosts of its components say to each other (`component.*`).

import type { ComponentId, ObjectId } from '../../model/ids.ts';
import type { Fence } from '../../model/record.ts';

export interface CreateComponent {
  readonly component: ComponentId;
  readonly object: ObjectId;
  readonly sizeBytes: number;
}

export interface TakeComponent {
  readonly component: ComponentId;
  readonly fence: Fence;
}

/** The payload of the answer is the write-intent bitmap's set regions, see `encodeRegions`. */
export interface TakeAnswer {
  /** To be named in all requests of this writer; another take makes it void. */
  readonly token: string;
  readonly incarnation: string;
  /** Acknowledged writes that were not flushed may be lost; said at each take until a flush. */
  readonly mayHaveLost: boolean;
}

export interface ReadComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly length: number;
}

/** The payload is the data. */
export interface WriteComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly fua: boolean;
}

export interface FlushComponent {
  readonly component: ComponentId;
  readonly token: string;
}

export interface ClearIntent {
  readonly component: ComponentId;
  readonly token: string;
  readonly regions: readonly number[];
}

/** Big-endian numbers of 32 bits. */
export function encodeRegions(regions: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * regions.length);
  const view = new DataView(bytes.buffer);
  for (const [index, region] of regions.entries()) view.setUint32(4 * index, region);
  return bytes;
}

/** The bytes may be any piece of a larger buffer, and begin anywhere in it. */
export function decodeRegions(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.byteLength / 4) }, (_, index) =>
    view.getUint32(4 * index),
  );
}
