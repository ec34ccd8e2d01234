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

export class VirtualTime {
  /** Events that have happened. */
  events = 0;
  #nowMs = 0;
  #order = 0;
  readonly #heap: Scheduled[] = [];
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
    push(this.#heap, scheduled);
    return scheduled;
  }

  /** Lets the next event happen if it is due by `untilMs`; false where there is none. */
  step(untilMs = Number.POSITIVE_INFINITY): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) return false;
      pop(this.#heap);
      const { callback, receiver } = next;
      if (callback === null) continue; // cancelled
      if (next.atMs > this.#nowMs) this.#nowMs = next.atMs;
      this.events += 1;
      if (receiver === null) callback();
      else receiver.receive(callback);
      this.#settle();
      return true;
    }
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

function push(heap: Scheduled[], event: Scheduled): void {
  let index = heap.length;
  heap.push(event);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const above = heap[parent] as Scheduled;
    if (!isBefore(event, above)) break;
    heap[index] = above;
    index = parent;
  }
  heap[index] = event;
}

function pop(heap: Scheduled[]): void {
  const last = heap.pop() as Scheduled;
  const size = heap.length;
  if (size === 0) return;
  let index = 0;
  for (;;) {
    let child = 2 * index + 1;
    if (child >= size) break;
    if (child + 1 < size && isBefore(heap[child + 1] as Scheduled, heap[child] as Scheduled)) {
      child += 1;
    }
    const below = heap[child] as Scheduled;
    if (!isBefore(below, last)) break;
    heap[index] = below;
    index = child;
  }
  heap[index] = last;
}
