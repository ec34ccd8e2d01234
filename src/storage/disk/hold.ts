// Holds requests back for a moment, until none is in flight, so that something can be done between them.

import type { DiskState } from './disk-state.ts';

/** So long may requests be held up while others are in flight: what waits for a host that is away must not make
 * all others wait. */
const longestHoldMs = 1000;

export class Hold {
  private readonly state: DiskState;
  private held: (() => void)[] | null = null;

  constructor(state: DiskState) {
    this.state = state;
  }

  get isOn(): boolean {
    return this.held !== null;
  }

  /** While it is on: until it is not. */
  keep(request: () => void): void {
    this.held?.push(request);
  }

  /** Does it when nothing is in flight, before anything is again; false: that was not so soon enough. */
  async whileIdle(action: () => Promise<void>): Promise<boolean> {
    this.held = [];
    try {
      const isIdle = await this.isIdleSoon();
      if (isIdle) await action();
      return isIdle;
    } finally {
      this.letGo();
    }
  }

  letGo(): void {
    const held = this.held ?? [];
    this.held = null;
    for (const resume of held) resume();
  }

  private isIdleSoon(): Promise<boolean> {
    return new Promise((resolve) => {
      const limit = this.state.options.clock.after(longestHoldMs, () => resolve(false));
      this.state.io.idle(() => {
        limit.cancel();
        resolve(true);
      });
    });
  }
}
