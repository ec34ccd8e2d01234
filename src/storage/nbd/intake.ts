// The bytes that have come in and have not been understood yet. A byte stream is cut into chunks
// wherever the network likes, so the parser must never depend on the cuts; nearly always, though, a
// whole message lies within one chunk, and then it is only looked at and never copied.

const nothing = new Uint8Array(0);

export class Intake {
  #front: Uint8Array = nothing;
  #position = 0;
  /** The chunks after the front; those before `#next` have been used up. */
  #rest: Uint8Array[] = [];
  #next = 0;
  #available = 0;

  get available(): number {
    return this.#available;
  }

  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#rest.push(chunk);
    this.#available += chunk.length;
  }

  /**
   * Puts the next `count` bytes into one piece, so that `u16`, `u32` and `take` may be used within
   * them; false where they have not all come yet.
   */
  gather(count: number): boolean {
    if (this.#available < count) return false;
    this.#advance();
    if (this.#front.length - this.#position >= count) return true;
    const piece = new Uint8Array(count);
    this.fill(piece, 0);
    if (this.#position < this.#front.length) this.#putBack(this.#front.subarray(this.#position));
    this.#front = piece;
    this.#position = 0;
    this.#available += count;
    return true;
  }

  u16(at: number): number {
    const index = this.#position + at;
    return (this.#byte(index) << 8) | this.#byte(index + 1);
  }

  u32(at: number): number {
    const index = this.#position + at;
    const high = (this.#byte(index) << 8) | this.#byte(index + 1);
    const low = (this.#byte(index + 2) << 8) | this.#byte(index + 3);
    return ((high << 16) | low) >>> 0;
  }

  /** The next `count` bytes, uncopied, if they lie in one piece; null otherwise. */
  take(count: number): Uint8Array | null {
    this.#advance();
    const end = this.#position + count;
    if (end > this.#front.length) return null;
    const bytes = this.#front.subarray(this.#position, end);
    this.#position = end;
    this.#available -= count;
    return bytes;
  }

  /** Copies what is there into `target` from `at` on; where it stopped. */
  fill(target: Uint8Array, at: number): number {
    let filled = at;
    while (filled < target.length && this.#available > 0) {
      this.#advance();
      const count = Math.min(target.length - filled, this.#front.length - this.#position);
      target.set(this.#front.subarray(this.#position, this.#position + count), filled);
      filled += count;
      this.#position += count;
      this.#available -= count;
    }
    return filled;
  }

  /** Forgets up to `count` bytes; how many it were. */
  skip(count: number): number {
    let skipped = 0;
    while (skipped < count && this.#available > 0) {
      this.#advance();
      const step = Math.min(count - skipped, this.#front.length - this.#position);
      skipped += step;
      this.#position += step;
      this.#available -= step;
    }
    return skipped;
  }

  clear(): void {
    this.#front = nothing;
    this.#position = 0;
    this.#rest = [];
    this.#next = 0;
    this.#available = 0;
  }

  #byte(index: number): number {
    return this.#front[index] as number;
  }

  /** Goes on to the next chunk where the front is used up. */
  #advance(): void {
    if (this.#position < this.#front.length || this.#next === this.#rest.length) return;
    this.#front = this.#rest[this.#next] as Uint8Array;
    this.#position = 0;
    this.#rest[this.#next] = nothing;
    this.#next += 1;
    if (this.#next === this.#rest.length) {
      this.#rest = [];
      this.#next = 0;
    } else if (this.#next >= 1024) {
      this.#rest = this.#rest.slice(this.#next);
      this.#next = 0;
    }
  }

  #putBack(chunk: Uint8Array): void {
    if (this.#next > 0) {
      this.#next -= 1;
      this.#rest[this.#next] = chunk;
    } else {
      this.#rest.unshift(chunk);
    }
  }
}
