// The time-outs of requests. Requests are many and nearly all are answered long before their time is
// up, so they share timers: those with the same time-out are due in the order in which they began,
// and one timer, for the first of them, does for all.

import { type InLine, Line } from '../model/line.ts';
import type { Clock, Timer } from '../ports/clock.ts';

/** Something that is due at a time. */
export interface Due extends InLine {
  dueMs: number;
}

export class Deadlines<Item extends Due> {
  readonly #clock: Clock;
  readonly #expire: (item: Item) => void;
  readonly #lists = new Map<number, List<Item>>();

  /** `expire` is called for each item whose time is up; it stands in no list any more. */
  constructor(clock: Clock, expire: (item: Item) => void) {
    this.#clock = clock;
    this.#expire = expire;
  }

  add(item: Item, timeoutMs: number): void {
    let list = this.#lists.get(timeoutMs);
    if (list === undefined) {
      list = { items: new Line(), timer: null };
      this.#lists.set(timeoutMs, list);
    }
    item.dueMs = this.#clock.now() + timeoutMs;
    list.items.add(item);
    if (list.timer === null) this.#arm(list, timeoutMs);
  }

  /** The item was settled in time. */
  remove(item: Item, timeoutMs: number): void {
    this.#lists.get(timeoutMs)?.items.remove(item);
  }

  stop(): void {
    for (const list of this.#lists.values()) {
      list.timer?.cancel();
      list.items.removeAll();
    }
    this.#lists.clear();
  }

  /** The timer stays where the first item is settled: it is put off when it fires. */
  #arm(list: List<Item>, delayMs: number): void {
    list.timer = this.#clock.after(delayMs, () => this.#fire(list));
  }

  #fire(list: List<Item>): void {
    const nowMs = this.#clock.now();
    for (let { first } = list.items; first !== null; first = list.items.first) {
      const leftMs = first.dueMs - nowMs;
      // Less is the rounding of sums of times.
      if (leftMs > roundingMs) return this.#arm(list, leftMs);
      list.items.remove(first);
      this.#expire(first);
    }
    // Only now: what was added meanwhile must not arm it for itself, before those that are due earlier.
    list.timer = null;
  }
}

interface List<Item extends Due> {
  readonly items: Line<Item>;
  timer: Timer | null;
}

const roundingMs = 1e-6;
