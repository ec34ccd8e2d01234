// The guest itself: that its reports can be believed. Everything that the other end-to-end tests say
// about acknowledged writes rests on this.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LoneGuest, type LoneGuestOptions } from './support/lone-guest.ts';

const MiB = 1024 * 1024;

let folder: string;
let image: string;
let guests: LoneGuest[];
let servers: ChildProcess[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-guest-'));
  image = join(folder, 'disk.raw');
  guests = [];
  servers = [];
  await blankDisk(64 * MiB);
});

afterEach(async () => {
  for (const server of servers) server.kill('SIGKILL');
  for (const guest of guests) await guest.kill();
  await rm(folder, { recursive: true });
});

async function blankDisk(bytes: number): Promise<void> {
  const file = await open(image, 'w');
  await file.truncate(bytes);
  await file.close();
}

async function overwrite(bytes: Uint8Array, offset: number): Promise<void> {
  const file = await open(image, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
  await file.close();
}

async function boot(options: Partial<LoneGuestOptions> = {}): Promise<LoneGuest> {
  const guest = await LoneGuest.boot({
    folder,
    disk: ['-blockdev', `driver=file,filename=${image},node-name=disk`],
    kernelArguments: 'holdfast.interval_ms=10',
    ...options,
  });
  guests.push(guest);
  return guest;
}

/** Where the guest puts the block of a number: see `block_offset` in guest/init.c. */
function blockOffset(number: number, areaBlocks: number): number {
  const mask = (1n << 64n) - 1n;
  let x = (BigInt(number) + 0x9e3779b97f4a7c15n) & mask;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & mask;
  x ^= x >> 31n;
  return MiB + Number(x % BigInt(areaBlocks)) * 4096;
}

describe('the guest', () => {
  test('goes on where it was when its power was cut, again and again', async () => {
    let last = 0;
    for (let round = 0; round < 4; round += 1) {
      const guest = await boot();
      const read = Number((await guest.heartbeat.next(/^read/)).slice('read '.length));
      expect(guest.heartbeat.all[0]).toBe(`read ${read}`);
      // One more than was reported may have reached the disk: its report was cut off.
      expect(read).toBeGreaterThanOrEqual(last);
      expect(read).toBeLessThanOrEqual(last + 1);
      expect(await guest.heartbeat.next(/^verify/)).toMatch(/^verify ok \d+$/);
      await guest.heartbeat.next(new RegExp(`^wrote ${read + 30}$`));
      await guest.kill();
      last = guest.heartbeat.lastWritten;
      expect(guest.console.all.filter((line) => line.includes('error'))).toEqual([]);
    }
  });

  test('says the same on its serial console, one report a line', async () => {
    const guest = await boot();
    await guest.console.next(/^holdfast: wrote 3$/);
    expect(guest.console.all.filter((line) => line.startsWith('holdfast:')).slice(0, 5)).toEqual([
      'holdfast: read 0',
      'holdfast: verify ok 0',
      'holdfast: wrote 1',
      'holdfast: wrote 2',
      'holdfast: wrote 3',
    ]);
  });

  test('notices that a flushed write is missing, and says which', async () => {
    const first = await boot();
    await first.heartbeat.next(/^wrote 40$/);
    await first.kill();
    const victim = first.heartbeat.lastWritten - 5;
    const areaBlocks = (64 * MiB - MiB) / 4096;
    await overwrite(new Uint8Array(4096), blockOffset(victim, areaBlocks));
    const second = await boot();
    expect(await second.heartbeat.next(/^verify/)).toBe(`verify bad ${victim}`);
  });

  test('is not confused by a number that was torn while it was written', async () => {
    const first = await boot();
    await first.heartbeat.next(/^wrote 20$/);
    await first.kill();
    const second = await boot({ kernelArguments: 'holdfast.interval_ms=100000' });
    const read = Number((await second.heartbeat.next(/^read/)).slice('read '.length));
    await second.heartbeat.next(new RegExp(`^wrote ${read + 1}$`));
    await second.kill();
    // As if the step after that had been cut off in the middle of its number.
    await overwrite(new Uint8Array(512).fill(7), ((read + 2) % 2) * 4096 + 1024);
    const third = await boot();
    expect(await third.heartbeat.next(/^read/)).toBe(`read ${read + 1}`);
    expect(await third.heartbeat.next(/^verify/)).toMatch(/^verify ok/);
  });

  test('works on a disk that is too small for anything but the number', async () => {
    await blankDisk(MiB / 2);
    const guest = await boot();
    await guest.heartbeat.next(/^wrote 3$/);
    expect(guest.heartbeat.all.slice(0, 2)).toEqual(['read 0', 'verify ok 0']);
  });

  test('reports a write that failed, tries it again and misses no number', async () => {
    const fault = 'inject-error.0';
    const guest = await boot({
      disk: [
        '-blockdev',
        `driver=blkdebug,node-name=disk,${fault}.event=none,${fault}.iotype=write,` +
          `${fault}.errno=5,${fault}.once=on,image.driver=file,image.filename=${image}`,
      ],
    });
    expect(await guest.heartbeat.next(/^error/)).toMatch(
      /^error write at \d+: Input\/output error$/,
    );
    await guest.heartbeat.next(/^wrote 2$/);
    expect(guest.heartbeat.all.filter((line) => line.startsWith('wrote')).slice(0, 2)).toEqual([
      'wrote 1',
      'wrote 2',
    ]);
  });

  test('reports a flush that failed, and not its number as written', async () => {
    const fault = 'inject-error.0';
    const guest = await boot({
      disk: [
        '-blockdev',
        `driver=blkdebug,node-name=disk,${fault}.event=none,${fault}.iotype=flush,` +
          `${fault}.errno=5,${fault}.once=on,image.driver=file,image.filename=${image}`,
      ],
    });
    await guest.heartbeat.next(/^wrote 1$/);
    expect(guest.heartbeat.all.slice(0, 4)).toEqual([
      'read 0',
      'verify ok 0',
      'error flush: Input/output error',
      'wrote 1',
    ]);
  });

  test('switches itself off when the power button is pressed', async () => {
    const guest = await boot();
    await guest.heartbeat.next(/^wrote 5$/);
    guest.command('system_powerdown');
    await guest.exit();
    expect(guest.heartbeat.all.at(-1)).toBe('off');
    expect(guest.console.all).toContain('holdfast: off');
    expect(guest.qmp.all.filter((line) => line.includes('guest-shutdown'))).toHaveLength(1);
  });

  test('switches itself off as soon as a disk that hangs answers again', async () => {
    const server = await serveImage();
    const socket = join(folder, 'nbd');
    const guest = await boot({
      disk: ['-blockdev', `driver=nbd,server.type=unix,server.path=${socket},node-name=disk`],
    });
    await guest.heartbeat.next(/^wrote 5$/);
    server.kill('SIGSTOP');
    await sleep(500); // a write each 10 ms: by now one of them hangs
    const last = guest.heartbeat.lastWritten;
    guest.command('system_powerdown');
    await guest.qmp.next(/POWERDOWN/);
    expect(guest.heartbeat.all.at(-1)).toBe(`wrote ${last}`);
    server.kill('SIGCONT');
    await guest.exit();
    expect(guest.heartbeat.all.slice(-2)).toEqual([`wrote ${last + 1}`, 'off']);
  });

  test('is never held up by those who listen badly or not at all', async () => {
    const guest = await boot({ listen: false, kernelArguments: 'holdfast.interval_ms=1' });
    await guest.console.next(/^holdfast: wrote 50$/);
    // Someone who connects and does not read fills every buffer on the way.
    const deaf = await guest.connect('heartbeat');
    deaf.pause();
    await guest.console.next(/^holdfast: wrote 1500$/);
    deaf.destroy();
  });

  test('tells a late listener first of all what it read', async () => {
    const guest = await boot({ listen: false });
    await guest.console.next(/^holdfast: wrote 50$/);
    await guest.listen();
    await guest.heartbeat.next(/^wrote/);
    expect(guest.heartbeat.all.slice(0, 2)).toEqual(['read 0', 'verify ok 0']);
    expect(Number(guest.heartbeat.all[2]?.slice('wrote '.length))).toBeGreaterThanOrEqual(50);
  });

  test('crashes when told to, once', async () => {
    const kernelArguments = 'holdfast.interval_ms=10 holdfast.panic_after=7';
    const first = await boot({ kernelArguments });
    await first.qmp.next(/GUEST_PANICKED/);
    await first.kill();
    expect(first.heartbeat.all.at(-1)).toBe('wrote 7');
    const second = await boot({ kernelArguments });
    expect(await second.heartbeat.next(/^read/)).toBe('read 7');
    await second.heartbeat.next(/^wrote 12$/);
  });
});

/** The image behind an NBD server of QEMU's, which can be stopped. */
async function serveImage(): Promise<ChildProcess> {
  const socket = join(folder, 'nbd');
  const server = spawn('qemu-nbd', ['--persistent', '-f', 'raw', '-k', socket, image], {
    stdio: 'inherit',
  });
  servers.push(server);
  await once(server, 'spawn');
  while (!existsSync(socket)) await sleep(20);
  return server;
}
