// The counts, their pauses, and what is recorded of them.

import { expect, test } from 'vitest';
import { vmId } from '../model/ids.ts';
import { AttemptLog } from './attempts.ts';
import { haLimits } from './limits.ts';

const v = vmId('v');
const { forgetMs, quickPauseMinMs, saveAgainMs, settledMs, sweepMs } = haLimits;

/** Guests that end soon after their starts, in a row; returns the pauses. */
function endings(log: AttemptLog, count: number): number[] {
  return Array.from({ length: count }, (_, round) => {
    log.started(v, round * 1000);
    return log.missing(v, 'guest', round * 1000 + 500);
  });
}

test('pauses begin with the third guest that ended soon, and grow', () => {
  expect(endings(new AttemptLog(), 5)).toEqual([
    ...[0, 0, quickPauseMinMs],
    ...[2 * quickPauseMinMs, 4 * quickPauseMinMs],
  ]);
});

test('the death of its host is not its guest’s doing, nor does it begin the count anew', () => {
  const log = new AttemptLog();
  endings(log, 3);
  log.started(v, 10_000);
  expect(log.missing(v, 'host', 11_000)).toBe(0);
  log.started(v, 12_000);
  expect(log.missing(v, 'guest', 13_000)).toBe(2 * quickPauseMinMs);
});

test('who has run for a minute begins anew', () => {
  const log = new AttemptLog();
  endings(log, 3);
  log.started(v, 10_000);
  expect(log.missing(v, 'guest', 10_000 + settledMs)).toBe(0);
});

test('each change is recorded, once, again if it could not be, and the end of it', () => {
  const log = new AttemptLog();
  log.startFailed(v, 0);
  const save = { vm: v, attempts: { failed: 1, endedSoon: 0 } };
  expect([log.toSave(0), log.toSave(1)]).toEqual([[save], []]);
  log.saved(save, false, 10);
  expect([log.toSave(saveAgainMs), log.toSave(saveAgainMs + 10)]).toEqual([[], [save]]);
  log.startFailed(v, 6000); // while it is being recorded
  expect(log.toSave(6000)).toEqual([]);
  log.saved(save, true, 6100);
  const [second] = log.toSave(6100);
  expect(second?.attempts).toEqual({ failed: 2, endedSoon: 0 });
  log.saved({ vm: v, attempts: { failed: 2, endedSoon: 0 } }, true, 6200);
  log.started(v, 7000);
  expect(log.toSave(7000)).toEqual([{ vm: v, attempts: null }]);
});

test('what another master recorded is gone on with, and removed when the VM has run for long enough', () => {
  const log = new AttemptLog();
  log.know(v, { failed: 2, endedSoon: 3 }, 0);
  expect([log.failed(v), log.missing(v, 'unknown', 1000)]).toEqual([2, quickPauseMinMs]);
  log.startFailed(v, 2000);
  expect(log.toSave(2000)).toEqual([{ vm: v, attempts: { failed: 3, endedSoon: 3 } }]);
  const running = new AttemptLog();
  running.know(v, { failed: 0, endedSoon: 3 }, 0);
  expect(running.toSave(forgetMs - sweepMs)).toEqual([]);
  expect(running.toSave(forgetMs)).toEqual([{ vm: v, attempts: null }]);
  running.saved({ vm: v, attempts: null }, true, forgetMs);
  expect(running.missing(v, 'guest', forgetMs + 1)).toBe(0);
});

test('whose host died while it was known to run waits for nothing', () => {
  const log = new AttemptLog();
  log.know(v, { failed: 0, endedSoon: 5 }, 0);
  expect(log.missing(v, 'host', 1000)).toBe(0);
});

test('a guest that hung soon after its start has ended soon, though that is found out late', () => {
  const log = new AttemptLog();
  log.started(v, 0);
  log.toSave(settledMs + sweepMs);
  log.missing(v, 'guest', settledMs - 1);
  expect(log.hasEndedSoon(v)).toBe(true);
  const fine = new AttemptLog();
  fine.started(v, 0);
  fine.toSave(settledMs + sweepMs);
  fine.missing(v, 'guest', settledMs);
  expect(fine.hasEndedSoon(v)).toBe(false);
});
