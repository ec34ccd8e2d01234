// Whether a guest that has fallen silent hangs. Its silence alone says little: what reports in it may have ended
// while all else goes on. So its disks are the second witness: it hangs when for some time it has neither
// been heard nor asked for anything, and waits for no answer; one that waits hangs on its storage, and would do
// so on any other host. What can not be told (it stands, its disks are not open) counts as activity.

import type { Clock, Timer } from '../ports/clock.ts';
import type { DiskActivity } from '../ports/guests.ts';

/** In the time after which it hangs. */
const looks = 6;
/** Before the last look. A daemon that stood still for a moment may know of the order to end a guest before it has read
 * what the guest said meanwhile. */
const lastChanceMs = 100;

export class HangWatch {
  readonly #clock: Clock;
  readonly #hungAfterMs: number;
  readonly #activity: () => Promise<DiskActivity | null>;
  readonly #changed: (hangs: boolean) => void;
  #timer: Timer | null = null;
  /** Grows with each beginning and end: an answer to an older question is of no use. */
  #round = 0;
  #requests: number | null = null;
  #quietSinceMs = 0;
  #lookedAtMs = 0;
  #hangs = false;

  constructor(options: {
    readonly clock: Clock;
    readonly hungAfterMs: number;
    /** What it has asked of its disks; null: that can not be told now. */
    readonly activity: () => Promise<DiskActivity | null>;
    readonly changed: (hangs: boolean) => void;
  }) {
    this.#clock = options.clock;
    this.#hungAfterMs = options.hungAfterMs;
    this.#activity = options.activity;
    this.#changed = options.changed;
  }

  get hangs(): boolean {
    return this.#hangs;
  }

  /** It is silent from now on. */
  begin(): void {
    this.end();
    this.#requests = null;
    this.#lookedAtMs = this.#clock.now();
    void this.#lookAgain();
  }

  /** It is heard, or its silence says nothing any more. */
  end(): void {
    this.stop();
    this.#set(false);
  }

  /** It is no more, or is being ended for what was seen of it. */
  stop(): void {
    this.#round += 1;
    this.#timer?.cancel();
  }

  /** Looks once more. */
  async stillHangs(): Promise<boolean> {
    const round = this.#round;
    await new Promise<void>((resolve) => this.#clock.after(lastChanceMs, resolve));
    if (round === this.#round) await this.#look();
    return this.#hangs;
  }

  async #lookAgain(): Promise<void> {
    const round = this.#round;
    await this.#look();
    if (round !== this.#round) return;
    const again = () => void this.#lookAgain();
    this.#timer = this.#clock.after(this.#hungAfterMs / looks, again);
  }

  async #look(): Promise<void> {
    const round = this.#round;
    const activity = await this.#activity().catch(() => null);
    if (round !== this.#round) return;
    const nowMs = this.#clock.now();
    // Who stood still himself has not seen whether the guest did.
    const isLate = nowMs - this.#lookedAtMs > (2 * this.#hungAfterMs) / looks;
    const isQuiet = activity?.inFlight === 0 && activity.requests === this.#requests;
    this.#lookedAtMs = nowMs;
    this.#requests = activity?.requests ?? null;
    if (isLate || !isQuiet) this.#quietSinceMs = nowMs;
    this.#set(nowMs - this.#quietSinceMs >= this.#hungAfterMs);
  }

  #set(hangs: boolean): void {
    if (hangs === this.#hangs) return;
    this.#hangs = hangs;
    this.#changed(hangs);
  }
}
