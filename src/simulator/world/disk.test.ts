// The virtual device's discards: they read as zeros at once, survive what a write survives, are lost or torn
// as a write is, and give their space back.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DiskError, type DiskFile } from '../../ports/disk.ts';
import { VirtualDisk } from './disk.ts';
import { SeededRandom } from './random.ts';
import { VirtualTime } from './time.ts';

const fileBytes = 32 * 1024;

async function device(seed: number, capacityBytes = 2 ** 30) {
  const time = new VirtualTime(() => {});
  const disk = new VirtualDisk(time, new SeededRandom(seed), capacityBytes);
  const open = async (): Promise<DiskFile> => {
    const local = disk.attach({ receive: (callback) => callback() });
    const opening = local.open('components/c.data', { create: true });
    time.advance(5);
    const file = await opening;
    const resizing = file.resize(fileBytes);
    time.advance(5);
    await resizing;
    return file;
  };
  const read = (file: DiskFile): Uint8Array => {
    const bytes = new Uint8Array(fileBytes);
    file.read(0, bytes, () => {});
    time.advance(5);
    return bytes;
  };
  return { time, disk, open, read };
}

const change = fc.record({
  kind: fc.constantFrom('write' as const, 'discard' as const, 'sync' as const),
  offset: fc.nat(fileBytes / 512 - 1).map((sector) => sector * 512),
  length: fc.integer({ min: 1, max: 24 }).map((sectors) => sectors * 512),
  /** Whether it is called back before the next one begins. */
  isWaited: fc.boolean(),
});

describe('a discard of the virtual device', () => {
  it('after a loss of power leaves each sector as it was at the last sync, or at some point since', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 25 }), fc.nat(1000), async (changes, seed) => {
        const { time, disk, open, read } = await device(seed);
        const file = await open();
        file.sync(() => {});
        time.advance(5);
        /** What each sector may hold; the last one is what it reads as now. */
        const possible = Array.from({ length: fileBytes / 512 }, () => [0]);
        let stamp = 0;
        for (const { kind, offset, length: wanted, isWaited } of changes) {
          const length = Math.min(wanted, fileBytes - offset);
          if (kind === 'sync') {
            time.advance(5); // so that it covers all
            file.sync(() => {});
            time.advance(5);
            for (const values of possible) values.splice(0, values.length - 1);
            continue;
          }
          stamp += 1;
          const value = kind === 'write' ? stamp : 0;
          if (kind === 'write') file.write(offset, [new Uint8Array(length).fill(value)], () => {});
          else file.discard(offset, length, () => {});
          for (let at = offset; at < offset + length; at += 512) {
            (possible[at / 512] as number[]).push(value);
          }
          if (isWaited) time.advance(5);
        }
        time.advance(5);
        const now = read(file);
        possible.forEach((values, sector) => expect(now[sector * 512]).toBe(values.at(-1)));
        disk.cutPower();
        const after = read(await open());
        possible.forEach((values, sector) => {
          const bytes = after.subarray(sector * 512, (sector + 1) * 512);
          expect(values).toContain(bytes[0]);
          expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
        });
      }),
      { numRuns: 150 },
    );
  });

  it('may be lost, and is not always', async () => {
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 40; seed += 1) {
      const { time, disk, open, read } = await device(seed);
      const file = await open();
      file.write(0, [new Uint8Array(fileBytes).fill(9)], () => {});
      time.advance(5);
      file.sync(() => {});
      time.advance(5);
      file.discard(0, fileBytes, () => {});
      time.advance(5);
      disk.cutPower();
      const bytes = read(await open());
      const kept = bytes.filter((byte) => byte === 9).length;
      outcomes.add(kept === 0 ? 'done' : kept === fileBytes ? 'lost' : 'torn');
    }
    expect([...outcomes].sort()).toEqual(['done', 'lost', 'torn']);
  });

  it('does not come back over what was written after its sync had failed', async () => {
    const { time, disk, open, read } = await device(3);
    const file = await open();
    file.discard(0, fileBytes, () => {});
    time.advance(5);
    disk.fault = (operation) =>
      operation === 'sync' ? Object.assign(new Error('no'), { kind: 'failed' as const }) : null;
    file.sync(() => {});
    time.advance(5);
    disk.fault = null;
    expect(file.isSpent).toBe(true);
    const again = await open();
    again.write(4096, [new Uint8Array(4096).fill(8)], () => {});
    time.advance(5);
    again.sync(() => {});
    time.advance(5);
    disk.kill();
    expect(read(await open())[5000]).toBe(8);
    disk.cutPower();
    expect(read(await open())[5000]).toBe(8);
  });

  it('gives the space back, also to a device that was full', async () => {
    const { time, disk, open } = await device(1, 16 * 1024);
    const file = await open();
    expect(disk.usedBytes).toBe(0);
    const errors: (string | null)[] = [];
    const write = (offset: number, length: number): void => {
      file.write(offset, [new Uint8Array(length).fill(1)], (error) =>
        errors.push(error?.kind ?? null),
      );
      time.advance(5);
    };
    write(0, 16 * 1024);
    write(16 * 1024, 4096);
    write(0, 4096); // what it has already takes no more
    expect(disk.usedBytes).toBe(16 * 1024);
    file.discard(100, 8192, () => {});
    time.advance(5);
    // Two pages are touched in part, one is wholly within.
    expect(disk.usedBytes).toBe(12 * 1024);
    write(16 * 1024, 4096);
    write(20 * 1024, 1);
    expect(errors).toEqual([null, 'full', null, null, 'full']);
  });
});

describe('the length of a file', () => {
  it('stays what it was made where a sync failed, and cuts off what that had lost', async () => {
    const { time, disk } = await device(3);
    const after = async <T>(promise: Promise<T>): Promise<T> => {
      time.advance(5);
      return await promise;
    };
    const open = () =>
      after(disk.attach({ receive: (callback) => callback() }).open('journal', { create: true }));
    const synced = (file: DiskFile) => after(new Promise((done) => file.sync(done)));
    const write = (file: DiskFile, offset: number, value: number) =>
      after(new Promise((done) => file.write(offset, [new Uint8Array(4096).fill(value)], done)));
    const failing = async (file: DiskFile) => {
      disk.fault = () => new DiskError('failed', 'no');
      expect(await synced(file)).not.toBe(null);
      disk.fault = null;
    };
    const first = await open();
    await write(first, 4096, 7);
    await failing(first);
    const second = await open();
    await after(second.resize(4096));
    await failing(second);
    const third = await open();
    expect(third.sizeBytes).toBe(4096);
    await write(third, 8192, 8);
    expect(await synced(third)).toBe(null);
    for (const end of ['kill', 'cutPower'] as const) {
      disk[end]();
      const file = await open();
      expect(file.sizeBytes).toBe(12288);
      const bytes = new Uint8Array(12288);
      file.read(0, bytes, () => {});
      time.advance(5);
      expect([bytes[4096], bytes[8192]]).toEqual([0, 8]);
    }
  });
});
