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

/** Powers of two: their multiples are exact. */
const pageMs = 2;
const binsPerPage = 128;
const binsPerMs = binsPerPage / pageMs;

/**
 * What is due, in order. A calendar: its pages are bare lists, of which the one that is open has been
 * spread over bins, of which again only the first is kept sorted. Most timers are cancelled before their
 * page is opened; and hosts that were switched on together beat together: 64 of them send 8000
 * frames that are due within a third of a millisecond. (One heap of everything took a seventh of
 * all time with 10,000 VMs; one heap per page still 8% with 64 hosts.)
 */
class Calendar {
  /** A heap of all events before the bin `#nextBin`. */
  readonly #open: Scheduled[] = [];
  /** Of the open page; those before `#nextBin` are empty. */
  readonly #bins: Scheduled[][] = Array.from({ length: binsPerPage }, () => []);
  #nextBin = binsPerPage;
  /** Number of the open page; there is none open before the first. */
  #openPage = -1;
  readonly #pages = new Map<number, Scheduled[]>();
  /** A heap of the numbers of these pages. */
  readonly #numbers: number[] = [];

  add(event: Scheduled): void {
    const number = Math.floor(event.atMs / pageMs);
    if (number > this.#openPage) {
      this.#addToPage(number, event);
      return;
    }
    const bin = binOf(event, this.#openPage);
    if (bin < this.#nextBin) push(this.#open, event, isBefore);
    else (this.#bins[bin] as Scheduled[]).push(event);
  }

  /** The first event that is not cancelled, which stays; undefined where there is none. */
  first(): Scheduled | undefined {
    for (;;) {
      const event = this.#open[0];
      if (event === undefined) {
        if (!this.#openNextBin() && !this.#openNextPage()) return undefined;
      } else if (event.callback === null) pop(this.#open, isBefore);
      else return event;
    }
  }

  takeFirst(): void {
    pop(this.#open, isBefore);
  }

  #addToPage(number: number, event: Scheduled): void {
    const page = this.#pages.get(number);
    if (page !== undefined) page.push(event);
    else {
      this.#pages.set(number, [event]);
      push(this.#numbers, number, isLess);
    }
  }

  /** The next that is not empty; false if the open page has none. */
  #openNextBin(): boolean {
    while (this.#nextBin < binsPerPage) {
      const bin = this.#bins[this.#nextBin] as Scheduled[];
      this.#nextBin += 1;
      if (bin.length === 0) continue;
      for (const event of bin) if (event.callback !== null) push(this.#open, event, isBefore);
      bin.length = 0;
      return true;
    }
    return false;
  }

  #openNextPage(): boolean {
    const number = this.#numbers[0];
    if (number === undefined) return false;
    pop(this.#numbers, isLess);
    const page = this.#pages.get(number) ?? [];
    this.#pages.delete(number);
    this.#openPage = number;
    this.#nextBin = 0;
    for (const event of page) {
      if (event.callback !== null) (this.#bins[binOf(event, number)] as Scheduled[]).push(event);
    }
    return true;
  }
}

/** Where in this page the event belongs; negative for one that is due before it. */
function binOf(event: Scheduled, page: number): number {
  return Math.floor((event.atMs - page * pageMs) * binsPerMs);
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
