import { expect, it } from 'vitest';
import { VirtualClock } from '../../test/support/virtual-clock.ts';
import type { DiskActivity } from '../ports/guests.ts';
import { HangWatch } from './hang-watch.ts';

function watched() {
  const clock = new VirtualClock();
  const said: boolean[] = [];
  const guest = { activity: { requests: 7, inFlight: 0 } as DiskActivity | null, fails: false };
  const watch = new HangWatch({
    clock,
    hungAfterMs: 30_000,
    activity: async () => {
      if (guest.fails) throw new Error('QEMU does not answer');
      return guest.activity;
    },
    changed: (hangs) => said.push(hangs),
  });
  /** In small steps: each look waits for an answer. */
  const go = async (ms: number) => {
    for (let gone = 0; gone < ms; gone += 500) {
      clock.advance(500);
      for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
    }
  };
  return { clock, said, guest, watch, go };
}

it('hangs when it has asked for nothing for long enough, and is told of once', async () => {
  const { said, watch, go } = watched();
  watch.begin();
  await go(29_000);
  expect([watch.hangs, said]).toEqual([false, []]);
  await go(60_000);
  expect([watch.hangs, said]).toEqual([true, [true]]);
  const still = watch.stillHangs();
  await go(1000);
  expect(await still).toBe(true);
});

it('does not hang while it asks for anything, however rarely', async () => {
  const { said, guest, watch, go } = watched();
  watch.begin();
  for (let requests = 8; requests < 16; requests += 1) {
    await go(25_000);
    guest.activity = { requests, inFlight: 0 };
  }
  expect(said).toEqual([]);
});

it('does not hang while an answer is due to it, nor while nobody can tell', async () => {
  const { said, guest, watch, go } = watched();
  watch.begin();
  guest.activity = { requests: 8, inFlight: 1 };
  await go(200_000);
  guest.activity = null;
  await go(200_000);
  guest.fails = true;
  await go(200_000);
  guest.fails = false;
  guest.activity = { requests: 8, inFlight: 0 };
  await go(29_000);
  expect(said).toEqual([]);
  await go(10_000);
  expect(said).toEqual([true]);
});

it('is taken back when it asks for something, also at the last look', async () => {
  const { said, guest, watch, go } = watched();
  watch.begin();
  await go(40_000);
  guest.activity = { requests: 8, inFlight: 0 };
  const still = watch.stillHangs();
  await go(1000);
  expect(await still).toBe(false);
  expect(said).toEqual([true, false]);
});

it('is heard at the last look, if its sign has come already and only waits to be read', async () => {
  const { clock, said, watch, go } = watched();
  watch.begin();
  await go(40_000);
  const still = watch.stillHangs();
  clock.after(1, () => watch.end()); // the order was read first
  for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
  await go(1000);
  expect(await still).toBe(false);
  expect(said).toEqual([true, false]);
});

it('ends when the guest is heard, and keeps what was seen of one that is being ended', async () => {
  const { said, watch, go } = watched();
  watch.begin();
  await go(20_000);
  watch.end();
  await go(60_000);
  expect(said).toEqual([]);
  watch.begin();
  await go(40_000);
  watch.stop();
  await go(40_000);
  expect([watch.hangs, said]).toEqual([true, [true]]);
  watch.end();
  expect(said).toEqual([true, false]);
});

it('does not count the time in which its host itself stood still', async () => {
  const { clock, said, watch, go } = watched();
  watch.begin();
  await go(4000);
  const now = clock.now.bind(clock);
  clock.now = () => now() + 100_000; // the daemon was frozen
  await go(29_000);
  expect(said).toEqual([]);
  await go(10_000);
  expect(said).toEqual([true]);
});
