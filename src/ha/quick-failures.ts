// Guests that end soon after each start: after some such failures in a row the pauses between the
// attempts become long, so that a guest that can not live does not keep the cluster busy.

import type { VmId } from '../model/ids.ts';
import { haLimits } from './limits.ts';

interface History {
  startedAtMs: number;
  inARow: number;
}

export class QuickFailures {
  readonly #histories = new Map<VmId, History>();

  started(vm: VmId, nowMs: number): void {
    const history = this.#histories.get(vm);
    if (history === undefined) this.#histories.set(vm, { startedAtMs: nowMs, inARow: 0 });
    else history.startedAtMs = nowMs;
  }

  /** The guest ended by itself: how long to wait before it is started again. */
  pauseMs(vm: VmId, nowMs: number): number {
    const history = this.#histories.get(vm);
    if (history === undefined) return 0;
    if (nowMs - history.startedAtMs >= haLimits.quickFailureMs) {
      this.#histories.delete(vm);
      return 0;
    }
    history.inARow += 1;
    const over = history.inARow - haLimits.quickFailures;
    if (over < 0) return 0;
    return Math.min(haLimits.quickPauseMaxMs, haLimits.quickPauseMinMs * 2 ** over);
  }
}
