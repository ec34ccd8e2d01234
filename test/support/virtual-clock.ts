// Time in the test's hand. Nothing happens until the test moves the clock; what is due then runs in
// the order of its time, and of its setting where times are equal. One clock serves a whole cluster:
// each host gets its own `process()`, whose timers die with it when the test "kills" that host.

import type { Clock, Timer } from '../../src/ports/clock.ts';

interface Event {
  readonly atMs: number;
  readonly order: number;
  callback: (() => void) | null;
}

export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  readonly #heap: Event[] = [];

  now(): number {
    return this.#nowMs;
  }

  wallTime(): number {
    return 1_700_000_000_000 + Math.floor(this.#nowMs);
  }

  after(delayMs: number, callback: () => void): Timer {
    const atMs = this.#nowMs + Math.max(0, delayMs);
    const event: Event = { atMs, order: this.#order++, callback };
    push(this.#heap, event);
    return {
      cancel() {
        event.callback = null;
      },
    };
  }

  defer(callback: () => void): void {
    this.after(0, callback);
  }

  /** A clock of one process: after `kill` none of its timers fires any more. */
  process(): Clock & { kill(): void } {
    let alive = true;
    const guarded = (callback: () => void) => () => {
      if (alive) callback();
    };
    return {
      now: () => this.now(),
      wallTime: () => this.wallTime(),
      after: (delayMs, callback) => this.after(delayMs, guarded(callback)),
      defer: (callback) => this.defer(guarded(callback)),
      kill() {
        alive = false;
      },
    };
  }

  /** Runs the next event if it is due by `untilMs`; false where there is none. */
  step(untilMs = Number.POSITIVE_INFINITY): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) return false;
      pop(this.#heap);
      if (next.callback === null) continue; // cancelled
      this.#nowMs = next.atMs;
      next.callback();
      return true;
    }
  }

  /** Moves time on and runs what is due. Promises settle only afterwards: see `run`. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    while (this.step(untilMs));
    this.#nowMs = untilMs;
  }

  /** As `advance`, but lets all promises settle between two events. */
  async run(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    do await settle();
    while (this.step(untilMs));
    this.#nowMs = untilMs;
  }

  /** Runs until the promise is settled; throws if that takes longer than `limitMs`. */
  async wait<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    await this.until(() => settled, limitMs);
    return promise;
  }

  /** Runs until the condition holds; throws if that takes longer than `limitMs`. */
  async until(condition: () => boolean, limitMs = 60_000): Promise<void> {
    const untilMs = this.#nowMs + limitMs;
    // Somebody else may be waiting in the same way, and take some turns after the last event.
    for (let idleTurns = 0; idleTurns < 10; idleTurns += 1) {
      await settle();
      if (condition()) return;
      if (this.step(untilMs)) idleTurns = 0;
    }
    throw new Error(`still not so after ${limitMs} ms of virtual time`);
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function push(heap: Event[], event: Event): void {
  let index = heap.length;
  heap.push(event);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    if (!isBefore(event, heap[parent] as Event)) break;
    heap[index] = heap[parent] as Event;
    index = parent;
  }
  heap[index] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop() as Event;
  if (heap.length === 0) return;
  let index = 0;
  for (;;) {
    let child = 2 * index + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event))
      child += 1;
    if (!isBefore(heap[child] as Event, last)) break;
    heap[index] = heap[child] as Event;
    index = child;
  }
  heap[index] = last;
}
