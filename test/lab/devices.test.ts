// The devices of the lab, as those who use them meet them: what fails, what is lost, and what is there again.

import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { detachLoops, LabDevice } from '../../src/lab/devices.ts';
import { listPids, mentions, readArguments, signal } from '../../src/lab/processes.ts';
import { run } from '../../src/lab/program.ts';
import { canMount } from '../support/can-mount.ts';

describe.runIf(canMount)('a device of the lab', () => {
  let folder: string;
  let device: LabDevice;
  beforeEach(async () => {
    folder = mkdtempSync('/tmp/hf-lab-');
    device = new LabDevice(join(folder, 'place'), join(folder, 'device'));
    await device.install();
  });
  afterEach(async () => {
    await device.pull();
    await detachLoops(folder);
    rmSync(folder, { recursive: true });
  });

  const files = () => readdirSync(device.place).sort();

  /** Left open, as a daemon has its files. */
  function write(name: string, isSynced: boolean): number {
    const file = openSync(join(device.place, name), 'w');
    writeSync(file, name);
    if (isSynced) fsyncSync(file);
    return file;
  }

  it('loses what was not synced with its power, and is another one to who looks afterwards', async () => {
    expect(files()).toEqual([]);
    closeSync(write('kept', true));
    closeSync(write('lost', false));
    const before = statSync(device.place).dev;
    await device.losePower();
    expect(files()).toEqual([]); // of the folder that it was mounted at
    await device.getPower();
    expect(files()).toEqual(['kept']);
    const between = statSync(device.place).dev;
    await device.losePower();
    await device.getPower();
    expect(new Set([before, between, statSync(device.place).dev]).size).toBe(3);
  });

  it('is not filled while it is away', async () => {
    await device.pull();
    await expect(device.fill()).rejects.toThrow('it is not there');
    await device.plug();
    await device.fill();
    expect(() => closeSync(write('more', true))).toThrow('ENOSPC');
  });

  it('fails for open files, too, until an empty one is in its place', async () => {
    const file = write('open', true);
    await device.fail();
    expect(() => write('new', false)).toThrow('EIO');
    expect(() => writeSync(file, 'more')).toThrow('EIO');
    expect(() => fsyncSync(file)).toThrow('EIO');
    await device.losePower();
    await device.getPower();
    expect(() => write('new', false)).toThrow('EIO');
    await device.install();
    expect(files()).toEqual([]);
    expect(() => writeSync(file, 'more')).toThrow('EIO');
    closeSync(file);
  });

  it('can be taken out while it is in use, and put back', async () => {
    closeSync(write('kept', true));
    const file = write('lost', false);
    await device.pull();
    expect(() => writeSync(file, 'more')).toThrow('EIO');
    await device.plug();
    expect(files()).toEqual(['kept']);
    closeSync(file);
    expect(files()).toEqual(['kept']);
  });

  it('that was taken out while its host had no power stays out until it is put back', async () => {
    closeSync(write('kept', true));
    await device.losePower();
    await device.pull();
    await device.getPower();
    expect(files()).toEqual([]);
    await device.plug();
    expect(files()).toEqual(['kept']);
  });

  it('takes one request after the other while it is slow, also with its power back', async () => {
    const slow = new LabDevice(join(folder, 'slow'), join(folder, 'behind'), ['env']);
    try {
      await slow.install();
      const add = (name: string): number => {
        const file = openSync(join(slow.place, name), 'w');
        const beganMs = performance.now();
        writeSync(file, 'word');
        fsyncSync(file); // what was written, and twice the journal
        const tookMs = performance.now() - beganMs;
        closeSync(file);
        return tookMs;
      };
      add('a');
      await slow.slow(100);
      expect(add('b')).toBeGreaterThan(50);
      await slow.losePower();
      await slow.getPower();
      expect(readdirSync(slow.place).sort()).toEqual(['a', 'b']);
      expect(add('c')).toBeGreaterThan(50);
      await slow.slow(0);
      add('d');
    } finally {
      await slow.pull();
      await detachLoops(folder);
      for (const image of ['behind.1.img', 'behind.2.img']) {
        await run(['umount', `${join(folder, image)}.throttled`]);
      }
    }
    // What served its files ends with the lab otherwise.
    const serving = () => listPids().filter((pid) => mentions(readArguments(pid), folder));
    for (const pid of serving()) signal(pid, 'SIGTERM');
    await vi.waitUntil(() => serving().length === 0);
  });

  it('is full, and has room again', async () => {
    await device.fill();
    const file = openSync(join(device.place, 'new'), 'w');
    expect(() => writeSync(file, Buffer.alloc(2 ** 20))).toThrow('ENOSPC');
    device.free();
    expect(writeSync(file, Buffer.alloc(2 ** 20))).toBe(2 ** 20);
    closeSync(file);
  });
});
