import { expect, it } from 'vitest';
import { VirtualClock } from '../../test/support/virtual-clock.ts';
import { GuestHeartbeat } from './heartbeat.ts';

function watched() {
  const clock = new VirtualClock();
  const said: string[] = [];
  const guest = { runs: true };
  const heartbeat = new GuestHeartbeat({
    clock,
    silentAfterMs: 1000,
    isRunning: () => guest.runs,
    events: {
      heard: (afterSilence) => said.push(afterSilence ? 'heard again' : 'heard'),
      silent: () => said.push('silent'),
    },
  });
  return { clock, said, guest, heartbeat };
}

it('is ready from the first beat on, and says so once', () => {
  const { clock, said, heartbeat } = watched();
  expect(heartbeat.isReady).toBe(false);
  for (let beats = 0; beats < 20; beats += 1) {
    heartbeat.beat();
    clock.advance(300);
  }
  expect(said).toEqual(['heard']);
  expect(heartbeat.isReady).toBe(true);
});

it('tells of a silence, and of its end', () => {
  const { clock, said, heartbeat } = watched();
  heartbeat.beat();
  clock.advance(1500);
  expect(heartbeat.isReady).toBe(false);
  heartbeat.beat();
  clock.advance(5000);
  expect(said).toEqual(['heard', 'silent', 'heard again', 'silent']);
});

it('does not take a pause for silence', () => {
  const { clock, said, guest, heartbeat } = watched();
  heartbeat.beat();
  guest.runs = false;
  clock.advance(30_000);
  guest.runs = true;
  heartbeat.resumed();
  clock.advance(900);
  expect(said).toEqual(['heard']);
  clock.advance(1200);
  expect(said).toEqual(['heard', 'silent']);
});

it('says nothing of a guest that never spoke, nor after its end', () => {
  const { clock, said, heartbeat } = watched();
  clock.advance(10_000);
  heartbeat.beat();
  heartbeat.end();
  clock.advance(10_000);
  heartbeat.beat();
  expect(said).toEqual(['heard']);
});

it('counts the silence of a guest that an earlier daemon has heard, and takes it for ready when it is heard', () => {
  const { clock, said, heartbeat } = watched();
  heartbeat.expect();
  expect(heartbeat.isReady).toBe(false);
  clock.advance(1500);
  expect(said).toEqual(['silent']);
  heartbeat.beat();
  expect([heartbeat.isReady, said]).toEqual([true, ['silent', 'heard again']]);
});

it('expects nothing of a guest that has reset itself until it is heard anew', () => {
  const { clock, said, heartbeat } = watched();
  heartbeat.beat();
  heartbeat.reset();
  expect(heartbeat.isReady).toBe(false);
  clock.advance(30_000);
  heartbeat.beat();
  clock.advance(1500);
  expect(said).toEqual(['heard', 'heard', 'silent']);
});
