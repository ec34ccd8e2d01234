// How far a copy of a disk's data is, how fast it gets on, and when it is likely to be done.

import type { Clock } from '../../ports/clock.ts';

export interface Progress {
  readonly bytesDone: number;
  readonly bytesLeft: number;
  /** Since it began; 0: nothing is done yet. */
  readonly bytesPerSecond: number;
  /** Null: nobody can tell yet. */
  readonly secondsLeft: number | null;
}

/** Of one piece of work, from its beginning. */
export class ProgressMeter {
  private readonly clock: Clock;
  private readonly startedAtMs: number;
  private readonly totalBytes: number;
  private doneBytes = 0;

  constructor(clock: Clock, totalBytes: number) {
    this.clock = clock;
    this.startedAtMs = clock.now();
    this.totalBytes = totalBytes;
  }

  add(bytes: number): void {
    this.doneBytes = Math.min(this.totalBytes, this.doneBytes + bytes);
  }

  get(): Progress {
    const seconds = (this.clock.now() - this.startedAtMs) / 1000;
    const bytesPerSecond = seconds > 0 ? this.doneBytes / seconds : 0;
    return progressOf(this.doneBytes, this.totalBytes - this.doneBytes, bytesPerSecond);
  }
}

/** Of what is done at the same time. */
export function together(all: readonly Progress[]): Progress | null {
  if (all.length === 0) return null;
  const sum = (of: (one: Progress) => number) => all.reduce((total, one) => total + of(one), 0);
  return progressOf(
    sum((one) => one.bytesDone),
    sum((one) => one.bytesLeft),
    sum((one) => one.bytesPerSecond),
  );
}

function progressOf(bytesDone: number, bytesLeft: number, bytesPerSecond: number): Progress {
  const secondsLeft = bytesPerSecond > 0 ? Math.ceil(bytesLeft / bytesPerSecond) : null;
  return { bytesDone, bytesLeft, bytesPerSecond: Math.round(bytesPerSecond), secondsLeft };
}
