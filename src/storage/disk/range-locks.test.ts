// Range locks on random schedules against the dumb rule: a request is granted exactly when no earlier
// one that conflicts with it is still there.

import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { createRangeLocks } from './range-locks.ts';

interface Request {
  readonly from: number;
  readonly to: number;
  readonly exclusive: boolean;
  release: (() => void) | null;
  over: boolean;
}

const conflict = (a: Request, b: Request) =>
  (a.exclusive || b.exclusive) && a.from < b.to && b.from < a.to;

function live(seed: number): void {
  const random = new SeededRandom(seed);
  const locks = createRangeLocks();
  const requests: Request[] = [];
  /** Some are released, and new ones made, from within a grant. */
  const acquire = (depth: number) => {
    const from = random.below(20);
    const exclusive = random.chance(0.5);
    const request: Request = {
      from,
      to: from + random.below(8),
      exclusive,
      release: null,
      over: false,
    };
    requests.push(request);
    locks.acquire(request.from, request.to - request.from, exclusive, (release) => {
      expect(request.release).toBe(null);
      request.release = release;
      if (depth < 3 && random.chance(0.2)) acquire(depth + 1);
      if (random.chance(0.2)) finish(request);
    });
  };
  const finish = (request: Request) => {
    if (request.over) return;
    request.over = true;
    request.release?.();
    if (random.chance(0.1)) request.release?.(); // once more does nothing
  };
  const check = () => {
    const there = requests.filter((request) => !request.over);
    there.forEach((request, index) => {
      const blocked = there.slice(0, index).some((earlier) => conflict(earlier, request));
      expect(request.release !== null, `request ${requests.indexOf(request)}`).toBe(!blocked);
    });
  };
  for (let step = 0; step < 120; step += 1) {
    const active = requests.filter((request) => request.release !== null && !request.over);
    if (active.length > 0 && random.chance(0.5)) finish(random.pick(active));
    else acquire(0);
    check();
  }
  for (let active = 1; active > 0; ) {
    const granted = requests.filter((request) => request.release !== null && !request.over);
    for (const request of granted) finish(request);
    active = granted.length;
  }
  expect(requests.every((request) => request.over)).toBe(true);
}

describe('range locks', () => {
  it('grant what they should, in the order of arrival, and lose nothing', () => {
    for (let seed = 0; seed < 150; seed += 1) live(seed);
  });
});
