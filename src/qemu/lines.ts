// Lines out of a byte stream that somebody else writes: the guard, QEMU, or a guest that means us
// harm. A line without end must not grow without end, so one that exceeds the bound is dropped as a
// whole, up to its newline, and counted.

const newline = 0x0a;

export class LineReader {
  readonly #maxBytes: number;
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #dropping = false;
  /** Lines that were longer than the bound. */
  dropped = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The lines that end in these bytes, without their ends. */
  push(bytes: Uint8Array): string[] {
    const lines: string[] = [];
    let from = 0;
    for (;;) {
      const end = bytes.indexOf(newline, from);
      this.#keep(bytes.subarray(from, end < 0 ? bytes.length : end));
      if (end < 0) return lines;
      if (!this.#dropping) lines.push(this.#take());
      this.#dropping = false;
      from = end + 1;
    }
  }

  #keep(bytes: Uint8Array): void {
    if (this.#dropping || bytes.length === 0) return;
    this.#bytes += bytes.length;
    if (this.#bytes > this.#maxBytes) {
      this.#take();
      this.#dropping = true;
      this.dropped += 1;
    } else {
      this.#parts.push(bytes);
    }
  }

  #take(): string {
    const text = Buffer.concat(this.#parts).toString('utf8');
    this.#parts = [];
    this.#bytes = 0;
    return text.endsWith('\r') ? text.slice(0, -1) : text;
  }
}
