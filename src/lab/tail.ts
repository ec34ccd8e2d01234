// Reads on in files that others append to, by whole lines: what has been read is not read again. There are thousands
// of them in a large lab, and most are not there or have not grown: those cost no more than a look at their size.

import { closeSync, openSync, readSync, statSync } from 'node:fs';

export class Tail {
  readonly #path: string;
  #offset = 0;
  #rest = '';

  constructor(path: string) {
    this.#path = path;
  }

  /** The lines that have been finished since the last call; none where there is no file yet. */
  lines(): string[] {
    const size = statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0;
    if (size <= this.#offset) return [];
    let file: number;
    try {
      file = openSync(this.#path, 'r');
    } catch {
      return []; // removed in between
    }
    try {
      const bytes = Buffer.alloc(size - this.#offset);
      const read = readSync(file, bytes, 0, bytes.length, this.#offset);
      this.#offset += read;
      const lines = (this.#rest + bytes.toString('latin1', 0, read)).split('\n');
      this.#rest = lines.pop() as string;
      return lines;
    } finally {
      closeSync(file);
    }
  }
}
