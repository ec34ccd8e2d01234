// The time-outs of requests. Requests are many and nearly all are answered long before their time is
// up, so they share timers: those with the same time-out are due in the order in which they began,
// and one timer, for the first of them, does for all.

import type { Clock, Timer } from '../ports/clock.ts';

/** Something that is due at a time; a part of the list that it stands in. */
export interface Due {
  dueMs: number;
  previous: Due | null;
  next: Due | null;
}

export class Deadlines<Item extends Due> {
  readonly #clock: Clock;
  readonly #expire: (item: Item) => void;
  readonly #lists = new Map<number, List>();

  /** `expire` is called for each item whose time is up; it stands in no list any more. */
  constructor(clock: Clock, expire: (item: Item) => void) {
    this.#clock = clock;
    this.#expire = expire;
  }

  add(item: Item, timeoutMs: number): void {
    let list = this.#lists.get(timeoutMs);
    if (list === undefined) {
      const head: Due = { dueMs: 0, previous: null, next: null };
      list = { head, last: head, timer: null };
      this.#lists.set(timeoutMs, list);
    }
    item.dueMs = this.#clock.now() + timeoutMs;
    item.previous = list.last;
    list.last.next = item;
    list.last = item;
    if (list.timer === null) this.#arm(list, timeoutMs);
  }

  /** The item was settled in time. */
  remove(item: Item, timeoutMs: number): void {
    const list = this.#lists.get(timeoutMs);
    const { previous, next } = item;
    if (list === undefined || previous === null) return;
    previous.next = next;
    if (next === null) list.last = previous;
    else next.previous = previous;
    item.previous = null;
    item.next = null;
  }

  stop(): void {
    for (const list of this.#lists.values()) {
      list.timer?.cancel();
      list.head.next = null;
    }
    this.#lists.clear();
  }

  /** The timer stays where the first item is settled: it is put off when it fires. */
  #arm(list: List, delayMs: number): void {
    list.timer = this.#clock.after(delayMs, () => this.#fire(list));
  }

  #fire(list: List): void {
    const nowMs = this.#clock.now();
    for (let first = list.head.next; first !== null; first = list.head.next) {
      const leftMs = first.dueMs - nowMs;
      // Less is the rounding of sums of times.
      if (leftMs > roundingMs) return this.#arm(list, leftMs);
      this.#unlinkFirst(list, first);
      this.#expire(first as Item);
    }
    // Only now: what was added meanwhile must not arm it for itself, before those that are due earlier.
    list.timer = null;
  }

  #unlinkFirst(list: List, first: Due): void {
    list.head.next = first.next;
    if (first.next === null) list.last = list.head;
    else first.next.previous = list.head;
    first.previous = null;
    first.next = null;
  }
}

interface List {
  /** Stands before the first item. */
  readonly head: Due;
  last: Due;
  timer: Timer | null;
}

const roundingMs = 1e-6;
