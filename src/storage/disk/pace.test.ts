// The pace of copying in the background beside guests of all kinds.

import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import { GuestLoad, longestPauseMs, Pace } from './pace.ts';
import { ProgressMeter, together } from './progress.ts';

let clock: VirtualClock;
let load: GuestLoad;

beforeEach(() => {
  clock = new VirtualClock();
  load = new GuestLoad(clock);
});

/** Copies that take so long each, for a second. */
async function copiesInASecond(copyMs: number): Promise<number> {
  const pace = new Pace(clock, load);
  let copies = 0;
  const step = () =>
    pace.next((copied) =>
      clock.after(copyMs, () => {
        copies += 1;
        copied();
        step();
      }),
    );
  step();
  await clock.run(1000);
  return copies;
}

describe('the pace of copying', () => {
  it('is as fast as can be while no guest wants anything', async () => {
    expect(await copiesInASecond(10)).toBeGreaterThanOrEqual(99);
  });

  it('takes one share beside as many as the guest has requests in flight', async () => {
    load.began();
    expect(await copiesInASecond(10)).toBe(50);
    for (let more = 0; more < 3; more += 1) load.began();
    expect(await copiesInASecond(10)).toBe(20);
    for (let ended = 0; ended < 4; ended += 1) load.ended();
    expect(await copiesInASecond(10)).toBeGreaterThanOrEqual(99);
  });

  it('counts requests for as long as they last', async () => {
    // A request of 5 ms, each 10 ms: half of one is in flight.
    const guest = () => {
      load.began();
      clock.after(5, () => load.ended());
      clock.after(10, guest);
    };
    guest();
    const copies = await copiesInASecond(10);
    expect(copies).toBeGreaterThan(60);
    expect(copies).toBeLessThan(72);
  });

  it('always gets on, however busy the guest is', async () => {
    for (let count = 0; count < 1000; count += 1) load.began();
    const copies = await copiesInASecond(1);
    expect(copies).toBe(Math.floor(1000 / (longestPauseMs + 1)) + 1);
  });
});

describe('progress', () => {
  it('is done, left, and how long that takes at the rate so far', async () => {
    const meter = new ProgressMeter(clock, 1000);
    expect(meter.get()).toEqual({
      bytesDone: 0,
      bytesLeft: 1000,
      bytesPerSecond: 0,
      secondsLeft: null,
    });
    await clock.run(2000);
    meter.add(400);
    const one = { bytesDone: 400, bytesLeft: 600, bytesPerSecond: 200, secondsLeft: 3 };
    expect(meter.get()).toEqual(one);
    expect(together([meter.get(), meter.get()])).toEqual({
      bytesDone: 800,
      bytesLeft: 1200,
      bytesPerSecond: 400,
      secondsLeft: 3,
    });
    expect(together([])).toBeNull();
  });
});
