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
  #lastHeardMs: number | null = null;
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
    return this.#lastHeardMs !== null && !this.#isSilent;
  }

  beat(): void {
    if (this.#ended) return;
    const isNews = !this.isReady;
    const afterSilence = this.#isSilent;
    this.#lastHeardMs = this.#clock.now();
    this.#isSilent = false;
    if (isNews) this.#events.heard(afterSilence);
    this.#watch(this.#silentAfterMs);
  }

  /** The guest goes on after a pause: silence counts from now. */
  resumed(): void {
    if (this.#lastHeardMs !== null) this.#lastHeardMs = this.#clock.now();
  }

  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  #watch(delayMs: number): void {
    this.#timer ??= this.#clock.after(delayMs, () => {
      this.#timer = null;
      if (this.#ended || this.#isSilent) return;
      if (!this.#isRunning()) return this.#watch(this.#silentAfterMs);
      const silentMs = this.#clock.now() - (this.#lastHeardMs ?? 0);
      if (silentMs < this.#silentAfterMs) return this.#watch(this.#silentAfterMs - silentMs + 1);
      this.#isSilent = true;
      this.#events.silent(silentMs);
    });
  }
}
