// How fast a disk's data is copied in the background while guests use it: region by region, and between two
// regions a pause that is as many times as long as the copy took as the guests had requests in flight
// meanwhile (Little's law: a mean of n in flight is n requests served in the time of one). So the copying
// has one share among n + 1, whatever the devices are able to do: with an idle guest it never pauses, with
// a busy one it yields, and where it slows the guest down, more is in flight and it yields more.
// The pause is bounded, so that it always gets on.

import type { Clock } from '../../ports/clock.ts';

/** With it at least four regions a second are begun, if they can be copied as fast. */
export const longestPauseMs = 250;
/** Less is not worth a timer. */
const leastPauseMs = 1;

/** Requests of guests to one disk. */
export class GuestLoad {
  private readonly clock: Clock;
  private inFlight = 0;
  private area = 0;
  private atMs = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  began(): void {
    this.tick();
    this.inFlight += 1;
  }

  ended(): void {
    this.tick();
    this.inFlight -= 1;
  }

  /** Requests in flight, summed up over time: the mean of a span is its growth by its length. */
  total(): number {
    this.tick();
    return this.area;
  }

  private tick(): void {
    const now = this.clock.now();
    this.area += this.inFlight * (now - this.atMs);
    this.atMs = now;
  }
}

/** For one copy after the other of one piece of work. */
export class Pace {
  private readonly clock: Clock;
  private readonly load: GuestLoad;
  private pauseMs = 0;

  constructor(clock: Clock, load: GuestLoad) {
    this.clock = clock;
    this.load = load;
  }

  /** Begins a copy when it is time to; `copied` is to be called when it is done. */
  next(begin: (copied: () => void) => void): void {
    if (this.pauseMs < leastPauseMs) this.copy(begin);
    else this.clock.after(this.pauseMs, () => this.copy(begin));
  }

  private copy(begin: (copied: () => void) => void): void {
    const before = this.load.total();
    begin(() => {
      // The mean in flight times the time that it took.
      this.pauseMs = Math.min(longestPauseMs, this.load.total() - before);
    });
  }
}
