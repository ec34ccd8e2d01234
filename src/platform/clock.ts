// The host's clock: CLOCK_BOOTTIME in milliseconds, which Node does not offer. Node offers
// CLOCK_MONOTONIC with nanoseconds, and the kernel shows CLOCK_BOOTTIME cut to hundredths of a
// second in /proc/uptime. The two clocks tick alike and differ by the time that the machine slept.
//
// Each reading of the uptime is at most the true boot time, so `uptime - monotonic` is at most the
// true difference, and the largest such value ever seen is the best estimate that can not be too
// large. Hence `now` is never ahead of CLOCK_BOOTTIME, never steps back, and is late by
// microseconds, because the first calibration waits for the uptime to tick over. The guard compares
// the deadlines that the daemon hands to it with the true clock: late here means early to pause.

import { uptime } from 'node:os';
import { performance } from 'node:perf_hooks';
import type { Clock, Timer } from '../ports/clock.ts';

/** Where the time comes from; replaced in tests. */
export interface TimeSources {
  /** CLOCK_MONOTONIC from any origin, in milliseconds with fractions. */
  monotonic(): number;
  /** CLOCK_BOOTTIME cut to whole hundredths of a second, in seconds. */
  uptime(): number;
}

/** How long a sleep of the machine may stay unnoticed, in time awake. */
const remeasureAfterMs = 100;
/** A growth of the difference beyond the uptime's resolution is a sleep, not a better estimate. */
const sleptMs = 25;
/** The uptime ticks over within this time. */
const calibrationMs = 11;
const maxTimeoutMs = 2 ** 31 - 1;
/** Outweighs the rounding of the sums below. */
const roundingMs = 0.001;

const systemSources: TimeSources = { monotonic: () => performance.now(), uptime };

export function createClock(sources: TimeSources = systemSources): Clock {
  const timers = new Set<() => void>();
  let offset = Number.NEGATIVE_INFINITY;
  let measuredAt = 0;

  function measure(): number {
    // The uptime is read before the monotonic time, so the difference errs to the late side only.
    const bootedMs = Math.floor(sources.uptime() * 100 + 1e-6) * 10;
    measuredAt = sources.monotonic();
    const seen = bootedMs - measuredAt - roundingMs;
    const grownBy = seen - offset;
    if (grownBy > 0) offset = seen;
    return grownBy;
  }

  function calibrate(): void {
    const until = sources.monotonic() + calibrationMs;
    do measure();
    while (measuredAt < until);
  }

  function now(): number {
    const monotonic = sources.monotonic();
    if (monotonic - measuredAt < remeasureAfterMs) return monotonic + offset;
    if (measure() > sleptMs) {
      calibrate();
      // The event loop's timers stood still while the machine slept; what is due now must not wait
      // for the rest of its delay.
      for (const rearm of timers) rearm();
    }
    return sources.monotonic() + offset;
  }

  calibrate();

  return {
    now,
    wallTime: () => Date.now(),
    after(delayMs, callback): Timer {
      const due = now() + Math.max(0, delayMs);
      let handle: NodeJS.Timeout;
      const arm = () => {
        // The event loop counts whole milliseconds and may call a little early.
        handle = setTimeout(fire, Math.min(maxTimeoutMs, Math.max(0, Math.ceil(due - now()))));
      };
      const rearm = () => {
        clearTimeout(handle);
        arm();
      };
      const fire = () => {
        if (now() < due) return rearm();
        timers.delete(rearm);
        callback();
      };
      arm();
      timers.add(rearm);
      return {
        cancel() {
          clearTimeout(handle);
          timers.delete(rearm);
        },
      };
    },
    defer(callback) {
      setImmediate(callback);
    },
  };
}
