import { uptime } from 'node:os';
import { performance } from 'node:perf_hooks';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createClock } from '../../src/platform/clock.ts';

describe('the clock of the real machine', () => {
  it('agrees with the uptime and is never ahead of it', () => {
    const clock = createClock();
    let last = 0;
    for (let round = 0; round < 2000; round += 1) {
      const before = uptime() * 1000;
      const now = clock.now();
      const after = uptime() * 1000;
      expect(now).toBeGreaterThanOrEqual(last);
      expect(now).toBeGreaterThan(before - 10);
      expect(now).toBeLessThan(after + 10.001); // the uptime is cut to 10 ms
      last = now;
    }
  });

  it('calls back not before the time, and not at all when cancelled', async () => {
    const clock = createClock();
    const early: number[] = [];
    let cancelled = true;
    clock
      .after(5, () => {
        cancelled = false;
      })
      .cancel();
    await Promise.all(
      [0, 1, 2.5, 7, 20, 20.9].map(
        (delayMs) =>
          new Promise<void>((resolve) => {
            const due = clock.now() + delayMs;
            clock.after(delayMs, () => {
              if (clock.now() < due) early.push(delayMs);
              resolve();
            });
          }),
      ),
    );
    expect(early).toEqual([]);
    expect(cancelled).toBe(true);
  });

  it('defers to after what runs now', async () => {
    const order: string[] = [];
    await new Promise<void>((resolve) => {
      createClock().defer(() => {
        order.push('deferred');
        resolve();
      });
      order.push('now');
    });
    expect(order).toEqual(['now', 'deferred']);
  });
});

describe('a machine that sleeps', () => {
  it('is noticed: time has gone on, and timers that are due by then do not wait', async () => {
    let sleptMs = 0;
    const clock = createClock({
      monotonic: () => performance.now(),
      uptime: () => Math.floor((performance.now() + sleptMs) / 10) / 100,
    });
    const before = clock.now();
    const fired = new Promise<void>((resolve) => void clock.after(3_600_000, resolve));
    sleptMs = 3_600_000;
    const heartbeat = setInterval(() => clock.now(), 10); // somebody uses the clock
    await fired;
    clearInterval(heartbeat);
    expect(clock.now() - before).toBeGreaterThanOrEqual(3_600_000);
  });

  it('never makes the clock step back or run ahead', () => {
    const step = fc.record({
      awakeMs: fc.double({ min: 0, max: 300, noNaN: true }),
      asleepMs: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1e6, noNaN: true })),
    });
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e8, noNaN: true }), fc.array(step), (bootMs, steps) => {
        let monotonic = 0;
        let offset = bootMs;
        const clock = createClock({
          monotonic: () => {
            monotonic += 0.02; // reading takes time
            return monotonic;
          },
          uptime: () => {
            monotonic += 0.05;
            return Math.floor((monotonic + offset) / 10) / 100;
          },
        });
        let last = 0;
        for (const { awakeMs, asleepMs } of steps) {
          monotonic += awakeMs;
          offset += asleepMs;
          const now = clock.now();
          expect(now).toBeGreaterThanOrEqual(last);
          expect(now).toBeLessThanOrEqual(monotonic + offset);
          last = now;
        }
        // A sleep is noticed after 100 ms awake; a short one may be taken for a better estimate.
        monotonic += 101;
        clock.now();
        expect(clock.now()).toBeGreaterThan(monotonic + offset - 10.2);
      }),
      { numRuns: 50 },
    );
  });
});
