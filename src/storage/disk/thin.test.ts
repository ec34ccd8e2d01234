// Thin space: what is zeroed with `unmap` is held by no copy, whether it was there, missed it, or is
// made anew; what is zeroed without stays allocated.

import { beforeEach, describe, expect, it } from 'vitest';
import { DiskWorld, type Session } from '../../../test/support/disk-world.ts';
import type { HostId } from '../../model/ids.ts';
import type { BlockDevice } from './block-device.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
let world: DiskWorld;
let one: HostId;
let two: HostId;

/** By copy, the ranges of its data that were written and discarded since. */
let seen: { host: HostId; kind: string; offset: number; bytes: number }[];

beforeEach(async () => {
  world = new DiskWorld({ seed: 1, sizeBytes: 4 * MiB });
  await world.start();
  const [first, second, third] = world.hosts as [HostId, HostId, HostId];
  one = first;
  two = second;
  seen = [];
  for (const host of [one, two]) {
    world.disk(host).fault = ({ kind, file, offset, bytes }) => {
      const isData = file.endsWith('.data') && offset < 4 * MiB;
      if (isData && (kind === 'write' || kind === 'discard'))
        seen.push({ host, kind, offset, bytes });
      return null;
    };
  }
  world.open(third);
  await world.clock.run(400);
});

const device = () => (world.session as Session).disk as BlockDevice;
const wait = <T>(promise: Promise<T>) => world.clock.wait(promise, 60_000);

function write(offset: number, length: number): Promise<unknown> {
  const bytes = new Uint8Array(length).fill(5);
  return wait(new Promise((resolve) => device().write(offset, bytes, false, resolve)));
}

function zero(offset: number, length: number, unmap: boolean): Promise<unknown> {
  return wait(
    new Promise((resolve) => device().zero(offset, length, { unmap, fua: false }, resolve)),
  );
}

const ranges = (host: HostId, kind: string) =>
  seen
    .filter((one) => one.host === host && one.kind === kind)
    .map(({ offset, bytes }) => [offset, bytes]);

describe('thin space', () => {
  it('is given back on both copies where a range is unmapped, and on none where it is not', async () => {
    await write(0, 512 * KiB);
    seen = [];
    await zero(64 * KiB, 128 * KiB, true);
    for (const host of [one, two]) {
      expect(ranges(host, 'discard')).toEqual([[64 * KiB, 128 * KiB]]);
      expect(ranges(host, 'write')).toEqual([]);
    }
    seen = [];
    await zero(0, 64 * KiB, false);
    for (const host of [one, two]) {
      expect(ranges(host, 'discard')).toEqual([]);
      expect(ranges(host, 'write').length).toBeGreaterThan(0);
    }
    expect(world.difference()).toBeNull();
  });

  it('is not taken by a copy that is brought up to date', async () => {
    await write(0, 256 * KiB);
    world.crash(two, false);
    await zero(0, 4 * MiB, true);
    await write(3 * MiB, 4 * KiB);
    seen = [];
    world.startHost(two);
    await world.clock.until(() => world.isWhole(), 60_000);
    // All regions are copied; one grain of them holds data.
    expect(ranges(two, 'write')).toEqual([[3 * MiB, 64 * KiB]]);
    const discarded = ranges(two, 'discard').reduce((sum, [, bytes]) => sum + (bytes as number), 0);
    expect(discarded).toBe(4 * MiB - 64 * KiB);
    expect(world.difference()).toBeNull();
  });

  it('is kept by a disk that was promised all of it', async () => {
    const { policy, blueprint } = world.record;
    world.record = {
      ...world.record,
      policy: { ...policy, thick: true },
      blueprint: { ...blueprint, thick: true },
    };
    world.open(one);
    await world.clock.run(400);
    expect(device().canUnmap).toBe(false);
    await zero(0, 256 * KiB, true);
    world.crash(two, false);
    await zero(MiB, 4 * KiB, true);
    world.startHost(two);
    await world.clock.until(() => world.isWhole(), 60_000);
    expect(seen.filter(({ kind }) => kind === 'discard')).toEqual([]);
    expect(world.difference()).toBeNull();
  });

  it('of a long range is zeroed piece by piece, and durable at the end', async () => {
    world = new DiskWorld({ seed: 2, sizeBytes: 10 * MiB });
    await world.start();
    world.open(world.hosts[2] as HostId);
    await world.clock.run(400);
    await write(0, 10 * MiB);
    await wait(
      new Promise((resolve) => device().zero(MiB, 9 * MiB, { unmap: false, fua: true }, resolve)),
    );
    for (const host of world.hosts.slice(0, 2)) world.crash(host, true);
    for (const [mirror, host] of world.hosts.slice(0, 2).entries()) {
      const bytes = world.disk(host).bytesOf(`components/disk.m${mirror}.s0.data`);
      expect(bytes.subarray(MiB, 10 * MiB).every((byte) => byte === 0)).toBe(true);
    }
  });
});
