import { expect, test } from 'vitest';
import { SeededRandom } from '../../test/support/seeded-random.ts';
import { VirtualClock } from '../../test/support/virtual-clock.ts';
import { Deadlines, type Due } from './deadlines.ts';

class Item implements Due {
  dueMs = 0;
  previous: Due | null = null;
  next: Due | null = null;
  readonly timeoutMs: number;
  readonly addedAtMs: number;
  constructor(timeoutMs: number, addedAtMs: number) {
    this.timeoutMs = timeoutMs;
    this.addedAtMs = addedAtMs;
  }
}

test.each([1, 2, 3, 4, 5])('each item expires exactly in time, or not at all (seed %i)', (seed) => {
  const random = new SeededRandom(seed);
  const clock = new VirtualClock();
  const waiting = new Set<Item>();
  let expired = 0;
  const deadlines = new Deadlines<Item>(clock, (item) => {
    expect(waiting.delete(item)).toBe(true);
    expect(clock.now()).toBeCloseTo(item.addedAtMs + item.timeoutMs, 6);
    expired += 1;
    if (random.next() < 0.3) add();
  });
  function add(): void {
    const timeoutMs = [7, 100, 1000.5][Math.floor(random.next() * 3)] as number;
    const item = new Item(timeoutMs, clock.now());
    waiting.add(item);
    deadlines.add(item, timeoutMs);
  }
  for (let step = 0; step < 3000; step += 1) {
    if (random.next() < 0.6) add();
    for (const item of waiting) {
      if (random.next() > 0.02) continue;
      waiting.delete(item);
      deadlines.remove(item, item.timeoutMs);
      deadlines.remove(item, item.timeoutMs); // harmless
    }
    clock.advance(random.next() * 20);
    for (const item of waiting) {
      expect(item.addedAtMs + item.timeoutMs).toBeGreaterThan(clock.now() - 1e-6);
    }
  }
  expect(expired).toBeGreaterThan(100);
  deadlines.stop();
  const atStop = expired;
  clock.advance(10_000);
  expect(expired).toBe(atStop);
});

test('time-outs that are all met cost no timer each', () => {
  const clock = new VirtualClock();
  let timers = 0;
  const counting = {
    now: () => clock.now(),
    wallTime: () => clock.wallTime(),
    defer: (callback: () => void) => clock.defer(callback),
    after(delayMs: number, callback: () => void) {
      timers += 1;
      return clock.after(delayMs, callback);
    },
  };
  const deadlines = new Deadlines<Item>(counting, () => expect.unreachable());
  for (let round = 0; round < 1000; round += 1) {
    const item = new Item(100, clock.now());
    deadlines.add(item, 100);
    clock.advance(1);
    deadlines.remove(item, 100);
  }
  clock.advance(1000);
  expect(timers).toBeLessThanOrEqual(11);
});
