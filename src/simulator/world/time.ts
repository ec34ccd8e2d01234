// True time, and everything that is due in it. Nothing happens but events; one runs after the other,
// in the order of their times, and of their setting where times are equal. After each event all
// promises that can settle have settled before the next one begins, as on a real event loop.

import type { Timer } from '../../ports/clock.ts';

/** Who receives an event: a process may be frozen or dead when its time has come. */
export interface Receiver {
  receive(callback: () => void): void;
}

class Scheduled implements Timer {
  readonly atMs: number;
  readonly order: number;
  callback: (() => void) | null;
  readonly receiver: Receiver | null;

  constructor(atMs: number, order: number, callback: () => void, receiver: Receiver | null) {
    this.atMs = atMs;
    this.order = order;
    this.callback = callback;
    this.receiver = receiver;
  }

  cancel(): void {
    this.callback = null;
  }
}

const pageMs = 2;

/**
 * What is due, in order. A calendar, of which only the page that is open is kept sorted: most events are
 * frames that are due within half a millisecond, and most timers are cancelled before their page is
 * opened. (With 10,000 VMs one heap of everything took a seventh of all time.)
 */
class Calendar {
  /** A heap of all events before `#openUntilMs`. */
  readonly #open: Scheduled[] = [];
  #openUntilMs = 0;
  readonly #pages = new Map<number, Scheduled[]>();
  /** A heap of the numbers of these pages. */
  readonly #numbers: number[] = [];

  add(event: Scheduled): void {
    if (event.atMs < this.#openUntilMs) {
      push(this.#open, event, isBefore);
      return;
    }
    const number = Math.floor(event.atMs / pageMs);
    const page = this.#pages.get(number);
    if (page !== undefined) page.push(event);
    else {
      this.#pages.set(number, [event]);
      push(this.#numbers, number, isLess);
    }
  }

  /** The first event that is not cancelled, which stays; undefined where there is none. */
  first(): Scheduled | undefined {
    for (;;) {
      const event = this.#open[0];
      if (event === undefined) {
        if (!this.#openNext()) return undefined;
      } else if (event.callback === null) pop(this.#open, isBefore);
      else return event;
    }
  }

  takeFirst(): void {
    pop(this.#open, isBefore);
  }

  #openNext(): boolean {
    const number = this.#numbers[0];
    if (number === undefined) return false;
    pop(this.#numbers, isLess);
    for (const event of this.#pages.get(number) ?? []) {
      if (event.callback !== null) push(this.#open, event, isBefore);
    }
    this.#pages.delete(number);
    this.#openUntilMs = (number + 1) * pageMs;
    return true;
  }
}

export class VirtualTime {
  /** Events that have happened. */
  events = 0;
  #nowMs = 0;
  #order = 0;
  readonly #calendar = new Calendar();
  readonly #settle: () => void;

  /** `settle` runs all promise reactions that are due, before it returns. */
  constructor(settle: () => void) {
    this.#settle = settle;
  }

  /** Milliseconds of true time since the world began. */
  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void, receiver: Receiver | null = null): Timer {
    return this.at(this.#nowMs + (delayMs > 0 ? delayMs : 0), callback, receiver);
  }

  at(atMs: number, callback: () => void, receiver: Receiver | null = null): Timer {
    const scheduled = new Scheduled(atMs, this.#order++, callback, receiver);
    this.#calendar.add(scheduled);
    return scheduled;
  }

  /** Lets the next event happen if it is due by `untilMs`; false where there is none. */
  step(untilMs = Number.POSITIVE_INFINITY): boolean {
    const next = this.#calendar.first();
    if (next === undefined || next.atMs > untilMs) return false;
    this.#calendar.takeFirst();
    const { callback, receiver } = next;
    if (next.atMs > this.#nowMs) this.#nowMs = next.atMs;
    this.events += 1;
    if (receiver === null) callback?.();
    else if (callback !== null) receiver.receive(callback);
    this.#settle();
    return true;
  }

  /** Moves time on, and lets happen what is due. */
  advance(ms: number): void {
    this.advanceTo(this.#nowMs + ms);
  }

  advanceTo(atMs: number): void {
    this.#settle();
    while (this.step(atMs));
    if (atMs > this.#nowMs) this.#nowMs = atMs;
  }

  /** Runs until the condition holds, looking after each `everyMs`; false if `limitMs` passed before. */
  advanceUntil(condition: () => boolean, limitMs: number, everyMs = 10): boolean {
    const endMs = this.#nowMs + limitMs;
    while (!condition()) {
      if (this.#nowMs >= endMs) return false;
      this.advance(everyMs);
    }
    return true;
  }

  /** Runs until the promise has settled and gives its value, or throws what it was rejected with. */
  await<T>(promise: Promise<T>, limitMs = 60_000): T {
    const outcome: { value?: T; error?: unknown; state: 'open' | 'kept' | 'broken' } = {
      state: 'open',
    };
    promise.then(
      (value) => {
        outcome.value = value;
        outcome.state = 'kept';
      },
      (error: unknown) => {
        outcome.error = error;
        outcome.state = 'broken';
      },
    );
    const endMs = this.#nowMs + limitMs;
    this.#settle();
    while (outcome.state === 'open' && this.step(endMs));
    if (outcome.state === 'kept') return outcome.value as T;
    if (outcome.state === 'broken') throw outcome.error;
    throw new Error(`no answer after ${limitMs} ms of virtual time`);
  }
}

function isBefore(a: Scheduled, b: Scheduled): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function isLess(a: number, b: number): boolean {
  return a < b;
}

function push<T>(heap: T[], item: T, isFirst: (a: T, b: T) => boolean): void {
  let index = heap.length;
  heap.push(item);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const above = heap[parent] as T;
    if (!isFirst(item, above)) break;
    heap[index] = above;
    index = parent;
  }
  heap[index] = item;
}

function pop<T>(heap: T[], isFirst: (a: T, b: T) => boolean): void {
  const last = heap.pop() as T;
  const size = heap.length;
  if (size === 0) return;
  let index = 0;
  for (;;) {
    let child = 2 * index + 1;
    if (child >= size) break;
    if (child + 1 < size && isFirst(heap[child + 1] as T, heap[child] as T)) child += 1;
    const below = heap[child] as T;
    if (!isFirst(below, last)) break;
    heap[index] = below;
    index = child;
  }
  heap[index] = last;
}
