// What a component must remember durably besides its data: which object it belongs to, the newest
// fence that it took, and the incarnation of the disk at that time. Two slots are written in turn,
// each with a checksum, so that a torn write leaves the older state readable.

import { crc32 } from '../../model/crc32.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, ObjectId } from '../../model/ids.ts';
import type { Fence } from '../../model/record.ts';

export interface ComponentMeta {
  readonly component: ComponentId;
  readonly object: ObjectId;
  readonly sizeBytes: number;
  readonly fence: Fence;
  /** `LocalDisk.incarnation` when all that was acknowledged was there for certain: if the disk has
   * another one now, writes that were not flushed may be lost. Empty: a sync has failed. */
  readonly incarnation: string;
}

export const slotBytes = 4096;
const headerBytes = 16;
const magic = 0x48464331; // "HFC1"

/** One slot: magic, sequence, length, checksum of all that follows, JSON. */
export function encodeSlot(meta: ComponentMeta, sequence: number): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify(meta));
  const slot = new Uint8Array(slotBytes);
  if (headerBytes + body.length > slotBytes)
    throw new Error('component meta does not fit its slot');
  const view = new DataView(slot.buffer);
  view.setUint32(0, magic);
  view.setUint32(4, sequence);
  view.setUint32(8, body.length);
  slot.set(body, headerBytes);
  view.setUint32(12, checksum(slot, body.length));
  return slot;
}

/** The newer of the two slots that is whole; throws `store-damaged` if none is. */
export function decodeSlots(
  bytes: Uint8Array,
  name: string,
): { meta: ComponentMeta; sequence: number } {
  const whole = [0, 1]
    .map((index) => decodeSlot(bytes.subarray(index * slotBytes, (index + 1) * slotBytes)))
    .filter((slot) => slot !== null)
    .sort((a, b) => b.sequence - a.sequence);
  if (whole[0] === undefined) {
    throw new HoldfastError(
      'store-damaged',
      `Both copies of the head of component ${name} are damaged`,
    );
  }
  return whole[0];
}

function decodeSlot(slot: Uint8Array): { meta: ComponentMeta; sequence: number } | null {
  const view = new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
  const length = view.getUint32(8);
  if (view.getUint32(0) !== magic || headerBytes + length > slotBytes) return null;
  if (view.getUint32(12) !== checksum(slot, length)) return null;
  const text = new TextDecoder().decode(slot.subarray(headerBytes, headerBytes + length));
  return { meta: JSON.parse(text) as ComponentMeta, sequence: view.getUint32(4) };
}

function checksum(slot: Uint8Array, length: number): number {
  return crc32(slot.subarray(headerBytes, headerBytes + length), crc32(slot.subarray(0, 12)));
}
