// The checksums of a component: what they find, and that no crash makes them refuse what was flushed.

import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import type { HoldfastError } from '../../model/errors.ts';
import { componentId, epoch, objectId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { type Component, createComponentFiles, openComponent } from './component.ts';

const name = 'disk.m0.s0';
const file = `components/${name}.data`;
const sizeBytes = 6 * 4096 - 512;
const sectorBytes = 512;
let clock: VirtualClock;
let device: MemoryDisk;
let component: Component;
let token: string;
let tokens = 0;

/** Small regions, so that a small component has several. */
beforeAll(() => {
  Object.assign(limits, { regionBytes: 8192 });
});

async function create(): Promise<void> {
  clock = new VirtualClock();
  device = new MemoryDisk(clock);
  const fence = { epoch: epoch(0), open: 0 };
  const meta = { component: componentId(name), object: objectId('disk'), sizeBytes, fence };
  await clock.wait(createComponentFiles(device.attach(), meta));
}

async function reopen(): Promise<number[]> {
  tokens += 1;
  component = await clock.wait(openComponent(device.attach(), name, () => `token-${tokens}`));
  const fence = { epoch: epoch(tokens), open: 1 };
  const taken = await clock.wait(component.take(fence));
  token = taken.answer.token;
  return taken.regions;
}

beforeEach(async () => {
  await create();
  await reopen();
});

type Result = HoldfastError | null;

const write = (offset: number, bytes: Uint8Array, fua = false) =>
  new Promise<Result>((resolve) => component.write(token, offset, bytes, fua, resolve));
const zero = (offset: number, length: number, unmap: boolean) =>
  new Promise<Result>((resolve) =>
    component.zero(token, offset, length, { fua: false, unmap }, resolve),
  );
const flush = () => new Promise<Result>((resolve) => component.flush(token, resolve));
const read = (offset: number, length: number, adopt = false) =>
  new Promise<{ error: Result; bytes: Uint8Array }>((resolve) =>
    component.read(token, offset, length, adopt, (error, bytes) => resolve({ error, bytes })),
  );
const filled = (length: number, value: number) => new Uint8Array(length).fill(value);
const wait = <T>(promise: Promise<T>) => clock.wait(promise);

/** As a writer does that has seen all copies flushed. */
async function settleDown(): Promise<void> {
  await wait(flush());
  component.clearIntent(token, [0, 1, 2]);
  // The bitmap is written with the next bit that is set and was not.
  await wait(write(16384, filled(sectorBytes, 1)));
  await wait(flush());
}

describe('a component', () => {
  it('refuses a block in which a bit has flipped, says which, and serves the others', async () => {
    await wait(write(4096, filled(8192, 7)));
    await settleDown();
    device.damage(file, 8192 + 17, 0x10);
    await reopen();
    const { error } = await wait(read(8192, 512));
    expect(error).toMatchObject({ code: 'bad-block' });
    expect(error?.message).toContain(`${file} of object disk: the block at offset 8192`);
    expect((await wait(read(4096, 4096))).error).toBe(null);
    expect(await wait(component.verify(0, sizeBytes))).toEqual([8192]);
    expect((await wait(read(8192, 512, true))).error).toMatchObject({ code: 'bad-block' });
  });

  it('takes a write to a part of a bad block, which stays bad until it is overwritten whole', async () => {
    await wait(write(8192, filled(4096, 7)));
    await settleDown();
    device.damage(file, 8192 + 17, 0x10);
    await reopen();
    expect(await wait(write(8192, filled(512, 9)))).toBe(null);
    expect((await wait(read(8192, 4096))).error).toMatchObject({ code: 'bad-block' });
    await wait(flush());
    device.cutPower();
    await reopen();
    expect((await wait(read(8192, 4096, true))).error).toMatchObject({ code: 'bad-block' });
    expect(await wait(write(8192, filled(4096, 8)))).toBe(null);
    expect((await wait(read(8192, 4096))).bytes).toEqual(filled(4096, 8));
  });

  it('needs no checksums where nothing was written, and notices what appears there', async () => {
    expect((await wait(read(0, sizeBytes))).bytes).toEqual(new Uint8Array(sizeBytes));
    device.damage(file, 3 * 4096, 1);
    expect((await wait(read(3 * 4096, 512))).error).toMatchObject({ code: 'bad-block' });
  });

  it.each([true, false])(
    'zeroes a range that begins and ends within blocks (unmap %s)',
    async (unmap) => {
      await wait(write(0, filled(sizeBytes, 7)));
      expect(await wait(zero(512, 3 * 4096, unmap))).toBe(null);
      const expected = filled(sizeBytes, 7);
      expected.fill(0, 512, 512 + 3 * 4096);
      expect(await wait(read(0, sizeBytes))).toEqual({ error: null, bytes: expected });
      await wait(flush());
      await reopen();
      expect(await wait(read(0, sizeBytes))).toEqual({ error: null, bytes: expected });
    },
  );

  it('keeps the bit of a region in which a crash may have left something', async () => {
    await wait(write(8192, filled(4096, 7)));
    device.kill();
    expect(await reopen()).toEqual([1]);
    expect((await wait(read(8192, 512))).error).toMatchObject({ code: 'unsettled-block' });
    await settleDown();
    device.cutPower();
    expect(await reopen()).toContain(1);
    await wait(read(8192, 8192, true));
    await settleDown();
    device.cutPower();
    expect(await reopen()).not.toContain(1);
    expect(await wait(read(8192, 4096))).toEqual({ error: null, bytes: filled(4096, 7) });
  });

  it('marked bad by its writer says so', async () => {
    await wait(write(0, filled(8192, 7)));
    const marked = new Promise<Result>((done) => component.writeBad(token, 4096, 4096, done));
    expect(await wait(marked)).toBe(null);
    expect((await wait(read(0, 8192))).error).toMatchObject({ code: 'bad-block' });
    expect((await wait(read(0, 4096))).error).toBe(null);
  });

  it('that was made before there were checksums is taken as it is', async () => {
    await wait(write(4096, filled(4096, 7)));
    await settleDown();
    const raw = await wait(device.attach().open(file, { create: false }));
    await wait(raw.resize(sizeBytes));
    expect(await reopen()).toEqual([0, 1, 2]);
    expect(await wait(read(4096, 4096, true))).toEqual({ error: null, bytes: filled(4096, 7) });
  });
});

/** Random requests; the power is cut in the middle of the write that reaches `cutAt` bytes. */
async function live(seed: string, cutAt: number): Promise<string | null> {
  await create();
  await reopen();
  const random = new SeededRandom(seed);
  const sectors = sizeBytes / sectorBytes;
  /** What each sector may hold, oldest first; the first is durable. */
  const versions = Array.from({ length: sectors }, () => [0]);
  device.cutPowerAfter(cutAt);
  let stamp = 0;
  const within = async (request: Promise<Result>) => {
    let isOver = false;
    void request.then(() => {
      isOver = true;
    });
    await clock.until(() => isOver || device.isOff, 1000);
    return isOver && !device.isOff;
  };
  for (let step = 0; step < 40 && !device.isOff; step += 1) {
    const first = random.below(sectors);
    const count = Math.min(sectors - first, 1 + random.below(random.pick([1, 8, 20])));
    const range = versions.slice(first, first + count);
    const kept = versions.map((of) => of.length);
    if (random.chance(0.25)) {
      if (await within(flush()))
        for (const [at, of] of versions.entries()) of.splice(0, (kept[at] ?? 1) - 1);
      // All copies have it: whoever writes may clear the bits.
      if (random.chance(0.5)) component.clearIntent(token, [0, 1, 2]);
      continue;
    }
    stamp = (stamp % 200) + 1;
    const isZero = random.chance(0.2);
    for (const of of range) of.push(isZero ? 0 : stamp);
    const fua = random.chance(0.2);
    const offset = first * sectorBytes;
    const request = isZero
      ? zero(offset, count * sectorBytes, random.chance(0.5))
      : write(offset, filled(count * sectorBytes, stamp), fua);
    if ((await within(request)) && fua && !isZero)
      for (const of of range) of.splice(0, of.length - 1);
  }
  const wasOff = device.isOff;
  device.cutPower(random);
  const regions = await reopen();
  for (let block = 0; block * 4096 < sizeBytes; block += 1) {
    const offset = block * 4096;
    const length = Math.min(4096, sizeBytes - offset);
    const strict = (await wait(read(offset, length))).error;
    const isMarked = regions.includes(Math.floor(offset / limits.regionBytes));
    if (strict?.code === 'bad-block') return `block ${block} is refused: ${strict.message}`;
    if (strict !== null && !isMarked) return `block ${block} is in doubt, and its bit is clear`;
    const { error, bytes } = await wait(read(offset, length, true));
    if (error !== null) return `block ${block} is not served: ${error.message}`;
    for (const [index, byte] of bytes.entries()) {
      const sector = Math.floor((offset + index) / sectorBytes);
      if (!versions[sector]?.includes(byte)) {
        return `sector ${sector} holds ${byte}, not one of ${versions[sector]?.join()} (${wasOff})`;
      }
    }
    // A block that was taken as it is counts as that from then on.
    if ((await wait(read(offset, length))).error !== null) return `block ${block} did not settle`;
  }
  return null;
}

describe('after a power cut at any write', () => {
  it('all that was flushed is served, and no block is refused', async () => {
    const problems: string[] = [];
    for (let seed = 0; seed < 8; seed += 1) {
      const random = new SeededRandom(`cuts ${seed}`);
      for (let cutAt = 0; cutAt < 60_000; cutAt += random.pick([1, 512, 700, 4096, 9000])) {
        const problem = await live(`life ${seed}`, cutAt);
        if (problem !== null) problems.push(`seed ${seed}, cut at ${cutAt}: ${problem}`);
      }
    }
    expect(problems).toEqual([]);
  });
});
