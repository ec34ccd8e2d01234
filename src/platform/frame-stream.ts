// Frames on a byte stream: each is preceded by its length, u32 big-endian. A frame that lies within
// one piece of the stream is passed on as a view of it; only a longer one is put together.

import type { Writable } from 'node:stream';

const lengthBytes = 4;

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

/** Gathers the frames of one turn of the event loop into one write to the system. */
export class FrameWriter {
  readonly #stream: Writable;
  #corked = false;

  constructor(stream: Writable) {
    this.#stream = stream;
  }

  write(chunks: readonly Uint8Array[]): void {
    if (!this.#corked) {
      this.#corked = true;
      this.#stream.cork();
      setImmediate(this.#uncork);
    }
    let length = 0;
    for (const chunk of chunks) length += chunk.length;
    const head = Buffer.allocUnsafe(lengthBytes);
    head.writeUInt32BE(length, 0);
    this.#stream.write(head);
    for (const chunk of chunks) if (chunk.length > 0) this.#stream.write(chunk);
  }

  readonly #uncork = (): void => {
    this.#corked = false;
    this.#stream.uncork();
  };
}
