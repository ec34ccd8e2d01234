// Reads on in files that others append to, by whole lines: what has been read is not read again.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

export class Tail {
  readonly #path: string;
  #offset = 0;
  #rest = '';

  constructor(path: string) {
    this.#path = path;
  }

  /** The lines that have been finished since the last call; none where there is no file yet. */
  lines(): string[] {
    let file: number;
    try {
      file = openSync(this.#path, 'r');
    } catch {
      return [];
    }
    try {
      const bytes = Buffer.alloc(Math.max(0, fstatSync(file).size - this.#offset));
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
