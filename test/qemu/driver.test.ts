// The driver with real QEMU guests: the project's own guest image, on disks that somebody else's NBD
// server holds. What every driver must do is in test/support/guest-conformance.ts.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Guest, GuestDriver, GuestLaunch } from '../../src/ports/guests.ts';
import { bootProblem, probeAccelerator } from '../../src/qemu/accelerator.ts';
import { createQemuDriver, type QemuDriverOptions } from '../../src/qemu/driver.ts';
import { guestConformance, patience } from '../support/guest-conformance.ts';
import {
  bootImages,
  clock,
  disk,
  events,
  exitOf,
  expectNothingLeft,
  guestPid,
  kernel,
  launchOf,
  log,
  logged,
  needGuestImage,
  typed,
  untilItCounts,
} from '../support/guests.ts';
import { compileGuard, tempFolder, until } from './support.ts';

let guardPath = '';
beforeAll(() => {
  needGuestImage();
  guardPath = compileGuard();
});

function driverIn(runDir: string, other: Partial<QemuDriverOptions> = {}): Promise<GuestDriver> {
  return createQemuDriver({
    ...{ host: 'host-1', runDir, guardPath, clock, log, bootImages, accelerator: 'tcg' as const },
    ...other,
  });
}

guestConformance(driverIn);

/** What QEMU 7.2 is like when a command is under way while it ends: it says so, and stays. */
function hangingQemu(folder: string): string {
  const path = join(folder, 'qemu.cjs');
  const program = `#!${process.execPath}
    const socket = /path=([^,]*qmp[^,]*),/.exec(process.argv.join('\\n'))[1];
    const say = (to, what) => to.write(JSON.stringify(what) + '\\n');
    require('node:net').createServer((client) => {
      say(client, { QMP: { version: {}, capabilities: [] } });
      client.on('data', (asked) => {
        say(client, { return: {}, id: JSON.parse(asked).id });
        say(client, { event: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' } });
      });
    }).listen(socket);
  `;
  writeFileSync(path, program, { mode: 0o755 });
  return path;
}

describe('QEMU', { timeout: patience }, () => {
  test('that somebody ends with SIGTERM did not switch itself off', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
    const guest = await driver.start(launchOf(null));
    process.kill(guestPid(runDir), 'SIGTERM');
    expect(await exitOf(guest)).toMatchObject({
      clean: false,
      detail: expect.stringContaining('host-signal'),
    });
    guest.detach();
    // The same without QMP's word, from the log alone.
    const [ended] = await (await driverIn(runDir)).recover();
    expect(await exitOf(ended as Guest)).toMatchObject({
      clean: false,
      detail: expect.stringContaining('terminating on signal 15'),
    });
    await ended?.kill();
  });

  test('that somebody ends with SIGTERM while it works is told in the same way', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
    const { socket } = await disk(tempFolder());
    const guest = await driver.start(launchOf(socket));
    const seen = events(guest);
    await untilItCounts(seen);
    process.kill(guestPid(runDir), 'SIGTERM');
    expect(await until(() => typed(seen, 'exited'))).toMatchObject({
      clean: false,
      detail: expect.stringContaining('host-signal'),
    });
    await guest.kill();
  });

  test('whose QEMU hangs while it ends is ended, and was switched off all the same', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir, { qemuPath: hangingQemu(tempFolder()) });
    const guest = await driver.start(launchOf(null));
    expect(await exitOf(guest)).toMatchObject({ clean: true });
    await guest.kill();
    expectNothingLeft(runDir);
  });

  test('is not started with what is no disk, which is told and left as it is', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
    const folder = tempFolder();
    const start = (name: string, format: 'raw' | 'qcow2') => {
      const path = join(folder, name);
      return driver.start(launchOf(null, { disks: [{ name: 'disk0', path, format }] }));
    };
    const refused = (why: string) => ({
      code: 'path-unusable',
      message: expect.stringMatching(
        new RegExp(`^VM vm-1: its disk0, ${folder}/\\S+, can not be used on host-1: ${why}`),
      ),
    });
    await expect(start('none', 'raw')).rejects.toMatchObject(refused('No such file or directory$'));
    expect(await driver.pathProblem(join(folder, 'none'))).toBe('No such file or directory');
    expect(existsSync(join(folder, 'none'))).toBe(false);
    mkdirSync(join(folder, 'folder'));
    await expect(start('folder', 'raw')).rejects.toMatchObject(refused('it is a directory'));
    writeFileSync(join(folder, 'text'), 'x'.repeat(4096));
    await expect(start('text', 'qcow2')).rejects.toMatchObject(
      refused('Image is not in qcow2 format'),
    );
    expect(await driver.pathProblem(join(folder, 'text'))).toBeNull();
    expectNothingLeft(runDir);
  });

  const cases: [string, GuestLaunch, Partial<QemuDriverOptions>, string, RegExp][] = [
    ['no QEMU', launchOf(null), { qemuPath: '/nonexistent/qemu' }, 'guest-failed', /No such file/],
    ['no image file', launchOf(null, { boot: 'missing' }), {}, 'guest-failed', /vmlinuz/],
    [
      'too much memory for the machine',
      launchOf(null, { memoryBytes: 2 ** 47 }),
      { capacity: { memoryBytes: 2 ** 48 } },
      'no-capacity',
      /memory/,
    ],
  ];
  test.each(cases)('leaves nothing of a start with %s', async (_, launch, other, code, message) => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir, other);
    const error = await driver.start(launch).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    expectNothingLeft(runDir);
  });
});

describe('the accelerator', { timeout: patience }, () => {
  const qemu = 'qemu-system-x86_64';

  test('the firmware and the kernel boot under emulation, so the probe can tell', async () => {
    expect(await bootProblem('tcg', { qemu, kernel: null, clock })).toBeNull();
    expect(await bootProblem('tcg', { qemu, kernel: kernel, clock })).toBeNull();
    expect(await bootProblem('tcg', { qemu: '/nonexistent/qemu', kernel: null, clock })).toMatch(
      /ENOENT/,
    );
    expect(await bootProblem('tcg', { qemu, kernel: guardPath, clock })).not.toBeNull();
  });

  test('what the probe chose is said, and works', async () => {
    const probe = await probeAccelerator({ qemu, kernel: kernel, clock });
    expect(probe.reason).not.toBe('');
    expect(await bootProblem(probe.accelerator, { qemu, kernel: null, clock })).toBeNull();
    logged.length = 0;
    const runDir = tempFolder();
    const driver = await createQemuDriver({
      host: 'host-1',
      ...{ runDir, guardPath, clock, log, bootImages },
    });
    expect(driver.accelerator).toBe(probe.accelerator);
    expect(logged.join()).toContain(`guests run with ${probe.accelerator}`);
    expect(driver.capacity().cpus).toBeGreaterThan(0);
    expect(driver.capacity().memoryBytes).toBeGreaterThan(0);
  });
});
