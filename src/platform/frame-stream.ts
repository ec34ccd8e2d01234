// Frames on a byte stream: each is preceded by its length, u32 big-endian. A frame that lies within
// one piece of the stream is passed on as a view of it; only a longer one is put together.

import type { Writable } from 'node:stream';

const lengthBytes = 4;
const nothing = Buffer.alloc(0);

/**
 * The same bytes as what the inside knows. A Buffer is a Uint8Array with other habits: its `slice`
 * does not copy, and what it is a part of belongs to others.
 */
export function plainBytes(bytes: Buffer): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export class FrameReader {
  readonly #maxFrameBytes: number;
  readonly #head = Buffer.alloc(lengthBytes);
  #headFilled = 0;
  #frame: Buffer | null = null;
  #frameFilled = 0;

  constructor(maxFrameBytes: number) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Passes each frame that is now complete; stops as soon as `onFrame` returns false. Returns false
   * if the stream announces a frame that is longer than allowed. */
  push(bytes: Buffer, onFrame: (frame: Uint8Array) => boolean): boolean {
    let at = 0;
    while (at < bytes.length) {
      if (this.#frame !== null) {
        at += this.#fill(this.#frame, bytes, at);
        if (this.#frameFilled < this.#frame.length) return true;
        const frame = plainBytes(this.#frame);
        this.#frame = null;
        if (!onFrame(frame)) return true;
        continue;
      }
      const missing = Math.min(lengthBytes - this.#headFilled, bytes.length - at);
      bytes.copy(this.#head, this.#headFilled, at, at + missing);
      this.#headFilled += missing;
      at += missing;
      if (this.#headFilled < lengthBytes) return true;
      this.#headFilled = 0;
      const length = this.#head.readUInt32BE(0);
      if (length > this.#maxFrameBytes) return false;
      if (length <= bytes.length - at) {
        const frame = plainBytes(bytes.subarray(at, at + length));
        at += length;
        if (!onFrame(frame)) return true;
      } else {
        this.#frame = Buffer.allocUnsafeSlow(length);
        this.#frameFilled = 0;
      }
    }
    return true;
  }

  #fill(frame: Buffer, bytes: Buffer, at: number): number {
    const copied = bytes.copy(frame, this.#frameFilled, at);
    this.#frameFilled += copied;
    return copied;
  }
}

/** Above so many bytes pieces are not put together any further: it takes longer than it saves. */
const maxJoinedBytes = 1024 * 1024;

/**
 * Gathers the frames of one turn of the event loop into one write to the system. They are put into one
 * buffer here: a stream takes each piece with an object of its own (2 us for a small frame), and TLS
 * copies several pieces into one anyway, but encrypts a single one where it lies.
 */
export class FrameWriter {
  readonly #stream: Writable;
  #pieces: Uint8Array[] = [];
  /** The length that goes before the piece; -1 where the piece goes on with a frame. */
  #lengths: number[] = [];
  #bytes = 0;
  #isFlushing = false;

  constructor(stream: Writable) {
    this.#stream = stream;
  }

  /** What has not been handed to the stream yet. */
  get pendingBytes(): number {
    return this.#bytes;
  }

  /** The chunks must not be changed afterwards. */
  write(chunks: readonly Uint8Array[]): void {
    let length = 0;
    for (const chunk of chunks) length += chunk.length;
    let prefix = length;
    for (const chunk of chunks) {
      this.#pieces.push(chunk);
      this.#lengths.push(prefix);
      prefix = -1;
    }
    this.#bytes += length + lengthBytes;
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    setImmediate(this.#flush);
  }

  readonly #flush = (): void => {
    const pieces = this.#pieces;
    const lengths = this.#lengths;
    let left = this.#bytes;
    this.#pieces = [];
    this.#lengths = [];
    this.#bytes = 0;
    this.#isFlushing = false;
    if (this.#stream.destroyed || this.#stream.writableEnded) return;
    let target: Buffer = nothing;
    let filled = 0;
    this.#stream.cork();
    for (const [index, piece] of pieces.entries()) {
      const length = lengths[index] as number;
      const needed = piece.length + (length < 0 ? 0 : lengthBytes);
      if (target.length - filled < needed) {
        if (filled > 0) this.#stream.write(target.subarray(0, filled));
        target = Buffer.allocUnsafeSlow(Math.max(needed, Math.min(left, maxJoinedBytes)));
        filled = 0;
      }
      if (length >= 0) filled = target.writeUInt32BE(length, filled);
      target.set(piece, filled);
      filled += piece.length;
      left -= needed;
    }
    if (filled > 0) this.#stream.write(target.subarray(0, filled));
    this.#stream.uncork();
  };
}
