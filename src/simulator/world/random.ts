// Randomness that replays: the same seed gives the same run, and each named stream has a sequence of
// its own, so that a new draw in one place leaves the others as they were.

import type { Random } from '../../ports/random.ts';

export class SeededRandom implements Random {
  readonly #seed: string;
  readonly #streams = new Map<string, SeededRandom>();
  #state: number;

  constructor(seed: number | string) {
    this.#seed = String(seed);
    this.#state = hash(this.#seed);
  }

  /** mulberry32: small, and good enough to shuffle faults. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  }

  id(): string {
    let text = '';
    for (let word = 0; word < 4; word += 1) {
      text += Math.floor(this.next() * 2 ** 32)
        .toString(16)
        .padStart(8, '0');
    }
    return text;
  }

  stream(name: string): SeededRandom {
    let stream = this.#streams.get(name);
    if (stream === undefined) {
      stream = new SeededRandom(`${this.#seed}/${name}`);
      this.#streams.set(name, stream);
    }
    return stream;
  }

  /** Uniform integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

/** FNV-1a with a final mix, so that similar seeds begin far apart. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  return (value ^ (value >>> 13)) | 0;
}
