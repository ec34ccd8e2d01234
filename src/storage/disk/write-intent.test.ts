// The write-intent bitmap on a disk that loses its power at any moment: whatever `set` has let
// through is in the bitmap that is found afterwards, unless it was cleared since.

import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import { DiskError, type DiskFile } from '../../ports/disk.ts';
import { createWriteIntent } from './write-intent.ts';

const regions = 40;

async function live(seed: number): Promise<void> {
  const clock = new VirtualClock();
  const random = new SeededRandom(seed);
  const device = new MemoryDisk(clock);
  device.latencyMs = () => random.next() * 3;
  device.fault = (operation) =>
    random.chance(0.05) && (operation.kind === 'sync' || operation.kind === 'write')
      ? new DiskError('failed', 'injected')
      : null;
  /** Regions whose data may be on the disk. */
  const covered = new Set<number>();
  const image = async (file: DiskFile) => {
    const bits = new Uint8Array(regions / 8);
    device.fault = () => null;
    await clock.wait(new Promise<void>((resolve) => file.read(0, bits, () => resolve())));
    return bits;
  };
  for (let life = 0; life < 4; life += 1) {
    const file = await clock.wait(device.attach().open('bitmap', { create: true }));
    const { fault } = device;
    const intent = createWriteIntent(file, 0, await image(file));
    device.fault = fault;
    for (const region of covered) {
      expect(intent.regions(), `seed ${seed}, life ${life}`).toContain(region);
    }
    const inFlight = new Map<number, number>();
    for (let step = 0; step < 30; step += 1) {
      const first = random.below(regions);
      if (random.chance(0.7)) {
        const last = Math.min(regions - 1, first + random.below(3));
        for (let at = first; at <= last; at += 1) inFlight.set(at, (inFlight.get(at) ?? 0) + 1);
        intent.set(first, last, (error) => {
          for (let at = first; at <= last; at += 1) {
            inFlight.set(at, (inFlight.get(at) as number) - 1);
            if (error === null) covered.add(at);
          }
        });
      } else if ((inFlight.get(first) ?? 0) === 0) {
        covered.delete(first);
        intent.clear([first]);
      }
      await clock.run(random.next() * 4);
    }
    if (random.chance(0.5)) device.cutPower(random);
    else device.kill(random);
  }
}

describe('the write-intent bitmap', () => {
  it('covers all data that was let through, after any crash', async () => {
    for (let seed = 0; seed < 60; seed += 1) await live(seed);
  });

  it('knows a bit that was read, but perhaps never synced, not as durable', async () => {
    const clock = new VirtualClock();
    const device = new MemoryDisk(clock);
    const first = await clock.wait(device.attach().open('bitmap', { create: true }));
    device.latencyMs = ({ kind }) => (kind === 'sync' ? 1000 : 0.1);
    createWriteIntent(first, 0, new Uint8Array(1)).set(3, 3, () => {});
    await clock.run(10);
    device.kill(); // written, not synced
    const again = await clock.wait(device.attach().open('bitmap', { create: true }));
    let passed = false;
    createWriteIntent(again, 0, device.bytesOf('bitmap').slice()).set(3, 3, () => {
      passed = true;
    });
    await clock.run(10);
    expect(passed).toBe(false);
    await clock.run(2000);
    expect(passed).toBe(true);
    device.cutPower();
    expect(device.bytesOf('bitmap')[0]).toBe(8);
  });
});
