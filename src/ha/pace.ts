// How many starts a target works on at once. It begins with a few; each that is done quickly lets one more in, and
// one that takes long, or fails for want of an answer of its storage, halves the number: what a dead host leaves
// behind must not storm the storage of those that are left, and must not wait where there is room. (Additive
// increase, multiplicative decrease: Chiu and Jain, 1989.)

import type { ErrorCode } from '../model/errors.ts';
import type { HostId } from '../model/ids.ts';
import { haLimits } from './limits.ts';
import { unknownOutcomes } from './messages.ts';

interface Window {
  starts: number;
  /** What was ordered before says nothing about the smaller number. */
  halvedAtMs: number;
}

const signsOfStorms: readonly ErrorCode[] = [...unknownOutcomes, 'inaccessible'];

export class Pace {
  readonly #windows = new Map<HostId, Window>();

  startsAtOnce(host: HostId): number {
    return this.#windows.get(host)?.starts ?? haLimits.startsAtFirst;
  }

  /** A start has ended; with a code if it failed. */
  answered(host: HostId, orderedAtMs: number, nowMs: number, code: ErrorCode | null): void {
    const isStorm = nowMs - orderedAtMs > haLimits.slowStartMs;
    if (code !== null && !signsOfStorms.includes(code) && !isStorm) return;
    const before = this.#windows.get(host);
    const starts = before?.starts ?? haLimits.startsAtFirst;
    const halvedAtMs = before?.halvedAtMs ?? Number.NEGATIVE_INFINITY;
    if (code === null && !isStorm) {
      this.#windows.set(host, { starts: Math.min(haLimits.startsAtMost, starts + 1), halvedAtMs });
    } else if (orderedAtMs >= halvedAtMs) {
      const fewer = Math.max(haLimits.startsAtLeast, Math.floor(starts / 2));
      this.#windows.set(host, { starts: fewer, halvedAtMs: nowMs });
    }
  }
}
