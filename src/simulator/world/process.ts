// One run of a program on a machine: the daemon from its start to its end. It is where time, frames
// and answers of the disk come in, and it can be frozen (SIGSTOP: what comes in waits) or dead
// (what comes in is lost, and what it still tries to do has no effect).

import type { Clock } from '../../ports/clock.ts';
import type { Receiver, VirtualTime } from './time.ts';

/** The monotonic clock of a machine since its boot; it runs at its own rate. */
export class MachineClock {
  readonly #time: VirtualTime;
  readonly #bootedAtMs: number;
  /** How much faster than true time it runs, as a fraction. */
  readonly drift: number;

  constructor(time: VirtualTime, drift: number) {
    this.#time = time;
    this.drift = drift;
    this.#bootedAtMs = time.now();
  }

  now(): number {
    return (this.#time.now() - this.#bootedAtMs) * (1 + this.drift);
  }

  /** True time that passes while this clock goes on by so much. */
  trueDelay(delayMs: number): number {
    // A little more, so that rounding never lets a timer fire before its time.
    return delayMs <= 0 ? 0 : delayMs / (1 + this.drift) + 1e-6;
  }
}

/** 2026-01-01: what the machines' calendars show when the world begins. */
const wallTimeAtStart = 1_767_225_600_000;

export class Process implements Receiver, Clock {
  readonly #time: VirtualTime;
  readonly #clock: MachineClock;
  #state: 'running' | 'frozen' | 'dead' = 'running';
  #held: (() => void)[] = [];

  constructor(time: VirtualTime, clock: MachineClock) {
    this.#time = time;
    this.#clock = clock;
  }

  get isAlive(): boolean {
    return this.#state !== 'dead';
  }

  get isFrozen(): boolean {
    return this.#state === 'frozen';
  }

  receive(callback: () => void): void {
    if (this.#state === 'running') callback();
    else if (this.#state === 'frozen') this.#held.push(callback);
  }

  freeze(): void {
    if (this.#state === 'running') this.#state = 'frozen';
  }

  /** What waited comes in now, in the order in which it came. */
  thaw(): void {
    if (this.#state !== 'frozen') return;
    this.#state = 'running';
    const held = this.#held;
    this.#held = [];
    for (const callback of held) this.#time.after(0, callback, this);
  }

  kill(): void {
    this.#state = 'dead';
    this.#held = [];
  }

  now(): number {
    return this.#clock.now();
  }

  wallTime(): number {
    return wallTimeAtStart + Math.floor(this.#time.now());
  }

  after(delayMs: number, callback: () => void) {
    return this.#time.after(this.#clock.trueDelay(delayMs), callback, this);
  }

  defer(callback: () => void): void {
    this.#time.after(0, callback, this);
  }
}
