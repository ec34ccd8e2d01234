import { expect, test } from 'vitest';
import { hostId } from '../model/ids.ts';
import { haLimits } from './limits.ts';
import { Pace } from './pace.ts';

const h1 = hostId('h1');
const { slowStartMs, startsAtFirst, startsAtLeast, startsAtMost } = haLimits;

test('quick starts let more in, up to a bound, each host for itself', () => {
  const pace = new Pace();
  pace.answered(h1, 0, 300, null);
  expect(pace.startsAtOnce(h1)).toBe(startsAtFirst + 1);
  for (let start = 0; start < 100; start += 1) pace.answered(h1, 0, 300, null);
  expect([pace.startsAtOnce(h1), pace.startsAtOnce(hostId('h2'))]).toEqual([
    startsAtMost,
    startsAtFirst,
  ]);
});

test('slow starts halve the number once, however many of them had been ordered before', () => {
  const pace = new Pace();
  for (let start = 0; start < 100; start += 1) pace.answered(h1, 0, 300, null);
  for (let start = 0; start < 10; start += 1) pace.answered(h1, 300, 301 + slowStartMs, null);
  expect(pace.startsAtOnce(h1)).toBe(startsAtMost / 2);
  for (let round = 1; round < 10; round += 1) {
    pace.answered(h1, round * 10_000, round * 10_000 + slowStartMs + 1, null);
  }
  expect(pace.startsAtOnce(h1)).toBe(startsAtLeast);
});

test('a start whose storage does not answer is slow, one that is refused says nothing', () => {
  const pace = new Pace();
  for (const code of ['lock-held', 'not-protected', 'no-capacity', 'guest-failed'] as const)
    pace.answered(h1, 0, 100, code);
  expect(pace.startsAtOnce(h1)).toBe(startsAtFirst);
  pace.answered(h1, 0, 100, 'inaccessible');
  pace.answered(h1, 100, 200, 'timeout');
  expect(pace.startsAtOnce(h1)).toBe(startsAtLeast);
});
