// The tally against the obvious way to put it: sort what counts, take the one that completes a majority.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { Tally } from './tally.ts';

describe('a tally', () => {
  it.each([1, 2, 3, 4])('finds the oldest heartbeat in the freshest majority (seed %i)', (seed) => {
    const random = new SeededRandom(seed);
    const tally = new Tally();
    const leases = new Map<number, number[]>();
    for (let nowMs = 0; nowMs < 3000; nowMs += 1) {
      const slots = [...leases.keys()];
      if (slots.length < 40 && random.chance(0.05)) {
        const voters = random.pick([1, 2, 3, 3, 3, 5, 7, 9]);
        leases.set(tally.open(voters), Array(voters).fill(Number.NEGATIVE_INFINITY));
      }
      if (slots.length === 0) continue;
      const slot = random.pick(slots);
      const counted = leases.get(slot) as number[];
      if (random.chance(0.01)) {
        tally.close(slot);
        leases.delete(slot);
        continue;
      }
      if (random.chance(0.02)) {
        tally.clear(slot);
        counted.fill(Number.NEGATIVE_INFINITY);
      }
      const before = oldestOfMajority(counted);
      const seat = random.below(counted.length);
      const sentAtMs = nowMs - random.below(40); // they come in any order
      counted[seat] = Math.max(counted[seat] as number, sentAtMs);
      const isFresher = tally.count(tally.place(slot, seat), sentAtMs);
      expect(isFresher).toBe(oldestOfMajority(counted) > before);
      if (nowMs % 50 > 0) continue;
      const all = [...leases];
      expect(all.map(([other]) => tally.oldest(other))).toEqual(
        all.map(([, times]) => oldestOfMajority(times)),
      );
    }
  });
});

function oldestOfMajority(times: readonly number[]): number {
  return times.toSorted((a, b) => b - a)[Math.floor(times.length / 2)] as number;
}
