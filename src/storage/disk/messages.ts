// What the writer of a disk and the hosts of its components say to each other (`component.*`).

import type { ComponentId, ObjectId, StoreId } from '../../model/ids.ts';
import type { Fence } from '../../model/record.ts';

export interface CreateComponent {
  readonly component: ComponentId;
  readonly object: ObjectId;
  readonly sizeBytes: number;
  /** The device of the host that it goes to; absent: the main one. */
  readonly store?: StoreId;
  /** All of its space is to be allocated before the answer. */
  readonly thick?: true;
  /** It takes the place of another one: all of its data is to be copied. */
  readonly mustCopyAll?: true;
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
  /** In the regions some blocks may not match their checksums because of a crash. */
  readonly isUnsettled: boolean;
}

export interface ReadComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly length: number;
  /** Blocks that a crash may have left half written are good as they are. */
  readonly adopt: boolean;
}

/** The payload is the data. */
export interface WriteComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly fua: boolean;
  /** No payload: nobody knows what so many bytes (whole blocks) should be. */
  readonly badBytes?: number;
}

/** From the scrub of a component to who has taken it: this block does not match its checksum. */
export interface BadBlock {
  readonly component: ComponentId;
  readonly object: ObjectId;
  readonly offset: number;
}

/**
 * `component.zero`: the range is to read as zeros; no payload. In everything else it is a write: intent bits
 * first, a range outside of the component refused, durable before the answer where `fua`. With `unmap`
 * the space goes back to the device (where it can), without it the range may stay allocated.
 */
export interface ZeroComponent {
  readonly component: ComponentId;
  readonly token: string;
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  readonly unmap: boolean;
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
