// The bytes of a sparse file in pages. Two images of a file share the pages that are alike: a page is
// copied when one of them is written to, so that making everything durable costs only what changed.
// A whole page that is written is not even copied then: it stays a part of what was handed over.

const pageBytes = 4096;

const zeros = new Uint8Array(pageBytes);

export class Pages {
  sizeBytes = 0;
  readonly #pages = new Map<number, Uint8Array>();
  /** Pages that nobody else sees: they are changed in place. */
  readonly #own = new Set<number>();

  /** Bytes that are really held. */
  get heldBytes(): number {
    return this.#pages.size * pageBytes;
  }

  /** How much of a write from there on fits where so many bytes may be held in addition. */
  fitting(offset: number, length: number, roomBytes: number): number {
    let room = roomBytes;
    for (let done = 0; done < length; ) {
      const within = (offset + done) % pageBytes;
      if (!this.#pages.has((offset + done - within) / pageBytes)) {
        room -= pageBytes;
        if (room < 0) return done;
      }
      done += pageBytes - within;
    }
    return length;
  }

  /** What lies beyond the end, or was never written, reads as zeros. */
  read(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const within = at % pageBytes;
      const count = Math.min(pageBytes - within, target.length - done);
      const page = this.#pages.get((at - within) / pageBytes) ?? zeros;
      target.set(
        within === 0 && count === pageBytes ? page : page.subarray(within, within + count),
        done,
      );
      done += count;
    }
    const beyond = Math.max(0, this.sizeBytes - offset);
    if (beyond < target.length) target.fill(0, beyond);
  }

  /** Adds the pages that it wrote to. The bytes are kept, and must not change any more. */
  write(offset: number, bytes: Uint8Array, touched?: Set<number>): void {
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const within = at % pageBytes;
      const count = Math.min(pageBytes - within, bytes.length - done);
      const index = (at - within) / pageBytes;
      touched?.add(index);
      const piece = count === bytes.length ? bytes : bytes.subarray(done, done + count);
      if (count < pageBytes) this.#toChange(index).set(piece, within);
      else {
        this.#pages.set(index, piece);
        this.#own.delete(index);
      }
      done += count;
    }
    this.sizeBytes = Math.max(this.sizeBytes, offset + bytes.length);
  }

  /** Makes the range read as zeros; pages that lie wholly within it are held no longer. */
  discard(offset: number, length: number, touched?: Set<number>): void {
    const end = Math.min(offset + length, this.sizeBytes);
    for (let at = offset; at < end; ) {
      const within = at % pageBytes;
      const count = Math.min(pageBytes - within, end - at);
      const index = (at - within) / pageBytes;
      if (this.#pages.has(index)) {
        touched?.add(index);
        if (count === pageBytes) this.#drop(index);
        else this.#toChange(index).fill(0, within, within + count);
      }
      at += count;
    }
  }

  resize(sizeBytes: number, touched?: Set<number>): void {
    if (sizeBytes < this.sizeBytes) {
      const within = sizeBytes % pageBytes;
      const last = (sizeBytes - within) / pageBytes;
      for (const index of this.#pages.keys()) {
        if (index < last || (index === last && within > 0)) continue;
        this.#drop(index);
        touched?.add(index);
      }
      if (within > 0 && this.#pages.has(last)) {
        this.#toChange(last).fill(0, within);
        touched?.add(last);
      }
    }
    this.sizeBytes = sizeBytes;
  }

  /** Takes over the given pages of another image; both share them from now on. */
  share(from: Pages, indices: Iterable<number>): void {
    for (const index of indices) {
      const page = from.#pages.get(index);
      if (page === undefined) this.#pages.delete(index);
      else this.#pages.set(index, page);
      this.#own.delete(index);
      from.#own.delete(index);
    }
    this.sizeBytes = from.sizeBytes;
  }

  indices(): Iterable<number> {
    return this.#pages.keys();
  }

  /** An image that shares all pages of this one. */
  copy(): Pages {
    const copy = new Pages();
    copy.share(this, this.#pages.keys());
    return copy;
  }

  #drop(index: number): void {
    this.#pages.delete(index);
    this.#own.delete(index);
  }

  #toChange(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page !== undefined && this.#own.has(index)) return page;
    const fresh = page === undefined ? new Uint8Array(pageBytes) : page.slice();
    this.#pages.set(index, fresh);
    this.#own.add(index);
    return fresh;
  }
}
