// One batch of the journal: what goes to the disk with one write and one sync. The header has a
// checksum of its own, so that a whole header tells its number even where the payload is torn; it
// covers the payload's checksum, so that both together cover the batch.
//
// Header, 32 bytes, big-endian: magic u32, generation u32, sequence u64, payload length u32, entry
// count u32, CRC of the payload u32, CRC of the header before it u32. Payload: per entry its length
// u32 and its bytes. A batch begins at a multiple of 512 bytes and is filled up with zeros, so that
// no sector of an acknowledged batch is ever written again with other bytes.

import { crc32 } from '../../model/crc32.ts';

export const blockBytes = 512;
export const headerBytes = 32;
/** "\xffHFJ": 0xff stands in no UTF-8 text, so no entry of JSON can look like a header. */
const magic = 0xff48464a;

export interface BatchHeader {
  readonly generation: number;
  readonly sequence: number;
  readonly payloadBytes: number;
  readonly entryCount: number;
  readonly payloadCrc: number;
}

/** Bytes of a batch with so much payload, on the disk. */
export function batchBytes(payloadBytes: number): number {
  return Math.ceil((headerBytes + payloadBytes) / blockBytes) * blockBytes;
}

/** `checksum` is CRC-32 too, where there is a quicker one. */
export function encodeBatch(
  generation: number,
  sequence: number,
  entries: readonly Uint8Array[],
  checksum: (bytes: Uint8Array) => number = crc32,
): Uint8Array {
  const payloadBytes = entries.reduce((sum, entry) => sum + 4 + entry.length, 0);
  const bytes = new Uint8Array(batchBytes(payloadBytes));
  const view = new DataView(bytes.buffer);
  let offset = headerBytes;
  for (const entry of entries) {
    view.setUint32(offset, entry.length);
    bytes.set(entry, offset + 4);
    offset += 4 + entry.length;
  }
  view.setUint32(0, magic);
  view.setUint32(4, generation);
  view.setBigUint64(8, BigInt(sequence));
  view.setUint32(16, payloadBytes);
  view.setUint32(20, entries.length);
  view.setUint32(24, checksum(bytes.subarray(headerBytes, headerBytes + payloadBytes)));
  view.setUint32(28, crc32(bytes.subarray(0, 28)));
  return bytes;
}

/** The header at the beginning of `bytes`, or null where there is no whole one. */
export function decodeHeader(bytes: Uint8Array): BatchHeader | null {
  if (bytes.length < headerBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, headerBytes);
  if (view.getUint32(0) !== magic) return null;
  if (view.getUint32(28) !== crc32(bytes.subarray(0, 28))) return null;
  return {
    generation: view.getUint32(4),
    sequence: Number(view.getBigUint64(8)),
    payloadBytes: view.getUint32(16),
    entryCount: view.getUint32(20),
    payloadCrc: view.getUint32(24),
  };
}

/** The entries of a batch, copied, or null where the payload is not what the header says. */
export function decodeEntries(header: BatchHeader, payload: Uint8Array): Uint8Array[] | null {
  if (payload.length !== header.payloadBytes || crc32(payload) !== header.payloadCrc) return null;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const entries: Uint8Array[] = [];
  let offset = 0;
  for (let index = 0; index < header.entryCount; index += 1) {
    if (offset + 4 > payload.length) return null;
    const end = offset + 4 + view.getUint32(offset);
    if (end > payload.length) return null;
    entries.push(payload.slice(offset + 4, end));
    offset = end;
  }
  return offset === payload.length ? entries : null;
}
