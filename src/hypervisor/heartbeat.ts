// What is heard from inside a guest. A guest is ready when it is first heard; one that was heard and
// falls silent while its process runs may hang. A paused guest cannot speak, so its silence says nothing.

import type { Clock, Timer } from '../ports/clock.ts';

export interface GuestHeartbeatEvents {
  /** Heard for the first time, or again after a silence. */
  heard(afterSilence: boolean): void;
  silent(forMs: number): void;
}

export class GuestHeartbeat {
  readonly #clock: Clock;
  readonly #silentAfterMs: number;
  readonly #events: GuestHeartbeatEvents;
  readonly #isRunning: () => boolean;
  /** From when on its silence counts; null: nobody knows whether it ever speaks. */
  #sinceMs: number | null = null;
  #isHeard = false;
  #isSilent = false;
  #timer: Timer | null = null;
  #ended = false;

  constructor(options: {
    readonly clock: Clock;
    readonly silentAfterMs: number;
    readonly isRunning: () => boolean;
    readonly events: GuestHeartbeatEvents;
  }) {
    this.#clock = options.clock;
    this.#silentAfterMs = options.silentAfterMs;
    this.#isRunning = options.isRunning;
    this.#events = options.events;
  }

  /** Heard of late. */
  get isReady(): boolean {
    return this.#isHeard && !this.#isSilent;
  }

  beat(): void {
    if (this.#ended) return;
    const isNews = !this.isReady;
    const afterSilence = this.#isSilent;
    this.#sinceMs = this.#clock.now();
    this.#isHeard = true;
    this.#isSilent = false;
    if (isNews) this.#events.heard(afterSilence);
    this.#watch(this.#silentAfterMs);
  }

  /** An earlier daemon has heard it: silence counts from now. */
  expect(): void {
    this.#sinceMs = this.#clock.now();
    this.#watch(this.#silentAfterMs);
  }

  /** It starts anew: what speaks in it may take any time to come up, if it ever does. */
  reset(): void {
    this.#sinceMs = null;
    this.#isHeard = false;
    this.#isSilent = false;
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** The guest goes on after a pause: silence counts from now. */
  resumed(): void {
    if (this.#sinceMs !== null) this.#sinceMs = this.#clock.now();
  }

  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  #watch(delayMs: number): void {
    this.#timer ??= this.#clock.after(delayMs, () => {
      this.#timer = null;
      if (this.#ended || this.#isSilent || this.#sinceMs === null) return;
      if (!this.#isRunning()) return this.#watch(this.#silentAfterMs);
      const silentMs = this.#clock.now() - this.#sinceMs;
      if (silentMs < this.#silentAfterMs) return this.#watch(this.#silentAfterMs - silentMs + 1);
      this.#isSilent = true;
      this.#events.silent(silentMs);
    });
  }
}
