// What the server says to requests, as bytes. Replies are many and tiny: their heads are written one
// after another into a slab that is never reused, so that a row of them leaves as one chunk and no
// head costs an allocation; data that was read is passed on uncopied between them.
// (NBD protocol document, doc/proto.md, "Simple reply message", "Structured reply chunk message".)

import { grainBytes, zeroRuns } from '../disk/zero-runs.ts';
import type { Extent } from './allocation.ts';
import type { NbdRequest } from './protocol.ts';
import {
  baseAllocation,
  chunkFlagDone,
  chunkType,
  command,
  commandFlag,
  lengths,
  magic,
} from './wire.ts';

const slabBytes = 8192;
/** A reason given to the client is cut to so many bytes; the protocol allows 4096. */
const maxMessageBytes = 512;
const textEncoder = new TextEncoder();

export class Replies {
  #slab = new Uint8Array(slabBytes);
  #view = new DataView(this.#slab.buffer);
  /** The heads not yet cut off as a chunk are `#slab[#from .. #to]`. */
  #from = 0;
  #to = 0;
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  /** Bytes gathered since the last `take`. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Everything gathered since the last `take`, in order. */
  take(): Uint8Array[] {
    this.#cut();
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#bytes = 0;
    return chunks;
  }

  /** Bytes to be sent as they are. */
  raw(bytes: Uint8Array): void {
    this.#cut();
    this.#chunks.push(bytes);
    this.#bytes += bytes.length;
  }

  /** Success of a request that has no data to return. */
  done(request: NbdRequest, structured: boolean): void {
    // A read must not be answered by a simple reply once structured ones are agreed on.
    if (structured && request.command === command.read) {
      this.#chunk(request, chunkType.none, chunkFlagDone, 0);
    } else this.#simple(request, 0);
  }

  /** Success of a block status: what the blocks from its offset on are. */
  extents(request: NbdRequest, extents: readonly Extent[]): void {
    this.#chunk(request, chunkType.blockStatus, chunkFlagDone, 4 + 8 * extents.length);
    this.#reserve(4);
    this.#u32(baseAllocation.id);
    for (const { length, isZero } of extents) {
      this.#reserve(8);
      this.#u32(length);
      this.#u32(isZero ? baseAllocation.hole | baseAllocation.zero : 0);
    }
  }

  /** Success of a read; the bytes must not change any more. */
  data(request: NbdRequest, bytes: Uint8Array, structured: boolean): void {
    if (bytes.length === 0) return this.done(request, structured);
    if (!structured) {
      this.#simple(request, 0);
      return this.raw(bytes);
    }
    // Holes need not be sent. In small reads there are none, or none worth to be looked for.
    const isWhole = bytes.length < grainBytes || (request.flags & commandFlag.df) !== 0;
    const runs = isWhole
      ? [{ at: 0, length: bytes.length, isZero: false }]
      : zeroRuns(bytes, request.offset);
    for (const { at, length, isZero } of runs) {
      const flags = at + length === bytes.length ? chunkFlagDone : 0;
      const type = isZero ? chunkType.offsetHole : chunkType.offsetData;
      this.#chunk(request, type, flags, isZero ? 12 : 8 + length);
      this.#reserve(12);
      this.#u32(Math.floor((request.offset + at) / 2 ** 32));
      this.#u32((request.offset + at) % 2 ** 32);
      if (isZero) this.#u32(length);
      else this.raw(bytes.subarray(at, at + length));
    }
  }

  failed(request: NbdRequest, error: number, structured: boolean, reason = ''): void {
    if (!structured) return this.#simple(request, error);
    const text = new Uint8Array(maxMessageBytes);
    const length = textEncoder.encodeInto(reason, text).written;
    this.#chunk(request, chunkType.error, chunkFlagDone, 6 + length);
    this.#reserve(6 + length);
    this.#u32(error);
    this.#u16(length);
    this.#slab.set(text.subarray(0, length), this.#to);
    this.#to += length;
    this.#bytes += length;
  }

  #simple(request: NbdRequest, error: number): void {
    this.#reserve(lengths.simpleReply);
    this.#u32(magic.simpleReply);
    this.#u32(error);
    this.#u32(request.cookieHigh);
    this.#u32(request.cookieLow);
  }

  /** The head of a chunk of a structured reply. */
  #chunk(request: NbdRequest, type: number, flags: number, length: number): void {
    this.#reserve(lengths.chunkHeader);
    this.#u32(magic.structuredReply);
    this.#u16(flags);
    this.#u16(type);
    this.#u32(request.cookieHigh);
    this.#u32(request.cookieLow);
    this.#u32(length);
  }

  /** Makes sure that the slab has room; a full one is left to whoever still sends from it. */
  #reserve(count: number): void {
    if (this.#to + count <= slabBytes) return;
    this.#cut();
    this.#slab = new Uint8Array(slabBytes);
    this.#view = new DataView(this.#slab.buffer);
    this.#from = 0;
    this.#to = 0;
  }

  #cut(): void {
    if (this.#to === this.#from) return;
    this.#chunks.push(this.#slab.subarray(this.#from, this.#to));
    this.#from = this.#to;
  }

  #u16(value: number): void {
    this.#view.setUint16(this.#to, value);
    this.#to += 2;
    this.#bytes += 2;
  }

  #u32(value: number): void {
    this.#view.setUint32(this.#to, value);
    this.#to += 4;
    this.#bytes += 4;
  }
}
