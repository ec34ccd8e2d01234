// What happens again and again while a host's HA module runs, and ends with it.

import type { Clock, Timer } from '../../ports/clock.ts';

interface Repeated {
  readonly everyMs: number;
  readonly action: () => void;
  timer: Timer | null;
}

export class Life {
  readonly #clock: Clock;
  readonly #repeated: Repeated[] = [];
  readonly #endings: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The first time one interval after the beginning. */
  every(everyMs: number, action: () => void): void {
    this.#repeated.push({ everyMs, action, timer: null });
  }

  atEnd(action: () => void): void {
    this.#endings.push(action);
  }

  begin(): void {
    for (const one of this.#repeated) this.#arm(one);
  }

  end(): void {
    for (const { timer } of this.#repeated) timer?.cancel();
    for (const action of this.#endings) action();
  }

  #arm(one: Repeated): void {
    one.timer = this.#clock.after(one.everyMs, () => {
      this.#arm(one);
      one.action();
    });
  }
}
