// What every guest driver must do, whatever runs its guests: the hosts rely on it (src/ports/guests.ts).

import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { vmId } from '../../src/model/ids.ts';
import type { Guest, GuestDriver, GuestLaunch } from '../../src/ports/guests.ts';
import type { GuestDriverOptions } from '../../src/qemu/driver.ts';
import {
  cleanUp,
  isLocked,
  processesWith,
  removeFolders,
  run,
  stateOf,
  tempFolder,
  until,
} from '../qemu/support.ts';
import {
  clock,
  disk,
  events,
  exitOf,
  expectNothingLeft,
  farMs,
  guestPid,
  launchOf,
  lines,
  logged,
  numbers,
  typed,
  untilItCounts,
} from './guests.ts';

/** A guest needs seconds to boot under emulation, many of them on a machine that does other work. */
export const patience = 120_000;

export type OpenDriver = (
  runDir: string,
  other?: Partial<GuestDriverOptions>,
) => Promise<GuestDriver>;

export function guestConformance(open: OpenDriver): void {
  afterEach(cleanUp);
  afterAll(removeFolders);

  describe('a guest', { timeout: patience }, () => {
    test('boots, reports, pauses, resumes and switches itself off', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const { socket } = await disk(tempFolder());
      const guest = await driver.start(launchOf(socket));
      expect(guest).toMatchObject({ name: 'vm-1', epoch: 4, state: 'running' });
      const seen = events(guest);
      await untilItCounts(seen);
      expect(lines(seen)[0]).toBe('read 0');
      const pid = guestPid(runDir);
      for (const file of [
        'qmp.sock',
        'heartbeat.sock',
        'guard.sock',
        'serial.log',
        'launch.json',
      ]) {
        expect(statSync(join(runDir, guest.vm, file)).mode & 0o077).toBe(0);
      }

      await guest.pause();
      expect(guest.state).toBe('paused');
      expect(stateOf(pid)).toBe('T');
      await expect(guest.powerDown()).rejects.toMatchObject({ code: 'not-running' });
      guest.extend(clock.now() + farMs);
      await guest.resume(clock.now() + farMs);
      expect(guest.state).toBe('running');
      await untilItCounts(seen);
      expect(typed(seen, 'paused')).toBeUndefined();

      await guest.powerDown();
      const exited = await until(() => typed(seen, 'exited'));
      expect(exited).toMatchObject({ clean: true });
      expect(guest.state).toBe('exited');
      expect(lines(seen)).toContain('off');
      await guest.kill();
      const serial = readFileSync(join(runDir, guest.vm, 'serial.log'), 'utf8');
      for (const line of lines(seen)) expect(serial).toContain(`holdfast: ${line}`);
      await until(() => processesWith(`${runDir}/`).length === 0);
      expectNothingLeft(runDir);

      // Started again, its disk is as it was left, and the serial log goes on.
      const again = await driver.start(launchOf(socket));
      const seenAgain = events(again);
      await untilItCounts(seenAgain);
      expect(lines(seenAgain)[0]).toBe(`read ${numbers(seen).at(-1)}`);
      expect(readFileSync(join(runDir, guest.vm, 'serial.log'), 'utf8').startsWith(serial)).toBe(
        true,
      );
      await again.kill();
      expect(typed(seenAgain, 'exited')).toBeUndefined();
      await until(() => processesWith(`${runDir}/`).length === 0);
      expectNothingLeft(runDir);
    });

    test('is paused when its deadline passes, and killed while paused', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const guest = await driver.start(launchOf(null, { deadlineMs: clock.now() + 700 }));
      const seen = events(guest);
      await until(() => typed(seen, 'paused'));
      expect(guest.state).toBe('paused');
      const pid = guestPid(runDir);
      expect(stateOf(pid)).toBe('T');
      guest.extend(clock.now() + farMs);
      await expect(guest.resume(clock.now() - 1)).rejects.toMatchObject({ code: 'guest-failed' });
      expect(stateOf(pid)).toBe('T');
      await guest.kill();
      expect(stateOf(pid)).toBeNull();
      expect(guest.state).toBe('exited');
      await until(() => processesWith(`${runDir}/`).length === 0);
      expectNothingLeft(runDir);
    });

    test('is found again by a restarted daemon, running, paused or ended', async () => {
      const runDir = tempFolder();
      const first = await open(runDir);
      const { socket } = await disk(tempFolder());
      const before = await first.start(launchOf(socket));
      const seenBefore = events(before);
      await untilItCounts(seenBefore);
      before.detach();
      const pid = guestPid(runDir);

      const [running, ...others] = await (await open(runDir)).recover();
      expect(others).toEqual([]);
      expect(running).toMatchObject({ vm: before.vm, name: 'vm-1', epoch: 4, state: 'running' });
      expect(running?.wasHeard).toBe(true);
      const seen = events(running as Guest);
      await untilItCounts(seen);
      expect(numbers(seen)[0]).toBeGreaterThan(numbers(seenBefore).at(-1) as number);
      expect(guestPid(runDir)).toBe(pid);
      await running?.pause();
      running?.detach();

      const second = await open(runDir);
      const [paused] = await second.recover();
      expect(paused?.state).toBe('paused');
      await expect(second.start(launchOf(socket))).rejects.toMatchObject({ code: 'guest-failed' });
      const seenLater = events(paused as Guest);
      await paused?.resume(clock.now() + farMs);
      await untilItCounts(seenLater);
      // The button is pressed through a QMP that the new daemon had to connect to again.
      await until(async () => {
        await paused?.powerDown().catch(() => null);
        return lines(seenLater).includes('off');
      });
      paused?.detach();
      await until(() => stateOf(pid) === null);

      const third = await open(runDir);
      const [ended] = await third.recover();
      expect(await exitOf(ended as Guest)).toMatchObject({ clean: true });
      expect(ended?.state).toBe('exited');
      ended?.detach();
      // Told again until somebody says that it is known.
      const [still] = await (await open(runDir)).recover();
      expect(still?.state).toBe('exited');
      await still?.kill();
      expect(await (await open(runDir)).recover()).toEqual([]);
      await until(() => processesWith(`${runDir}/`).length === 0);
      expectNothingLeft(runDir);
    });

    test('gets a disk that it was started without while it runs, once', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const [first, second] = [await disk(tempFolder()), await disk(tempFolder())];
      const guest = await driver.start(launchOf(first.socket, { absentDisks: ['disk1'] }));
      const seen = events(guest);
      await untilItCounts(seen);
      expect(guest.disks).toEqual(['disk0']);
      const late = { name: 'disk1', socket: second.socket };
      // Nothing was kept free for it.
      await expect(guest.attachDisk({ ...late, name: 'disk2' })).rejects.toMatchObject({
        code: 'guest-failed',
      });
      await guest.attachDisk(late);
      await until(() => lines(seen).includes('disks disk0 disk1'));
      await guest.attachDisk(late);
      guest.detach();

      const [found] = await (await open(runDir)).recover();
      expect(found?.disks).toEqual(['disk0', 'disk1']);
      const after = events(found as Guest);
      await untilItCounts(after);
      await found?.attachDisk(late);
      await untilItCounts(after);
      await found?.kill();
      expect(lines(after).filter((line) => line.startsWith('disks'))).toEqual([]);
      expectNothingLeft(runDir);
    });

    test('has a disk at a path of any name, past the page cache and without locks', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const path = join(tempFolder(), `o d,d"'\\=x: {}.img`);
      writeFileSync(path, '');
      truncateSync(path, 64 * 2 ** 20);
      const guest = await driver.start(
        launchOf(null, { disks: [{ name: 'disk0', path, format: 'raw' }] }),
      );
      const seen = events(guest);
      await untilItCounts(seen);
      const pid = guestPid(runDir);
      const fds = readdirSync(`/proc/${pid}/fd`).filter(
        (fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === path,
      );
      const infos = fds.map((fd) => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'));
      const oDirect = 0o40000;
      for (const info of infos) {
        expect(Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '', 8) & oDirect).toBe(
          oDirect,
        );
        expect(info).not.toMatch(/^lock:/m);
      }
      expect(infos.length).toBeGreaterThan(0);
      await guest.kill();
      const again = await driver.start(
        launchOf(null, { disks: [{ name: 'disk0', path, format: 'raw' }] }),
      );
      const seenAgain = events(again);
      await untilItCounts(seenAgain);
      expect(Number(lines(seenAgain)[0]?.slice('read '.length))).toBeGreaterThan(0);
      await again.kill();
      expectNothingLeft(runDir);
    });

    test('that died with its guard is told, and cleared away', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const guest = await driver.start(launchOf(null));
      const seen = events(guest);
      const pid = guestPid(runDir);
      const guard = processesWith(`${runDir}/`).find((other) => other !== pid) as number;
      process.kill(guard, 'SIGKILL');
      expect(await until(() => typed(seen, 'exited'))).toMatchObject({ clean: false });
      expect(isLocked(join(runDir, guest.vm, 'guest.log'))).toBe(false);
      await until(() => stateOf(pid) === null);
      expect(await (await open(runDir)).recover()).toEqual([]);
      expectNothingLeft(runDir);
    });

    test('whose end can not be told for certain is told when it can', async () => {
      const runDir = tempFolder();
      const guest = await (await open(runDir)).start(launchOf(null));
      const seen = events(guest);
      const pid = guestPid(runDir);
      const guard = processesWith(`${runDir}/`).find((other) => other !== pid) as number;
      const log = join(runDir, guest.vm, 'guest.log');
      unlinkSync(log);
      symlinkSync(log, log); // nobody can open it
      process.kill(guard, 'SIGKILL');
      await until(() => logged.some((line) => line.includes('ELOOP')));
      expect(typed(seen, 'exited')).toBeUndefined();
      await expect(guest.kill()).rejects.toMatchObject({ code: 'ELOOP' });
      unlinkSync(log);
      await guest.kill();
      expectNothingLeft(runDir);
    });

    test('of which no file is left is ended when a daemon starts', async () => {
      const runDir = tempFolder();
      const guest = await (await open(runDir)).start(launchOf(null));
      const pid = guestPid(runDir);
      guest.detach();
      rmSync(join(runDir, guest.vm), { recursive: true });
      const driver = await open(runDir);
      expect(await driver.recover()).toEqual([]);
      await until(() => stateOf(pid) === null);
      await (await driver.start(launchOf(null))).kill();
      expectNothingLeft(runDir);
    });

    test('that somebody ends with SIGTERM did not switch itself off', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const { socket } = await disk(tempFolder());
      const guest = await driver.start(launchOf(socket));
      const seen = events(guest);
      await untilItCounts(seen);
      process.kill(guestPid(runDir), 'SIGTERM');
      expect(await until(() => typed(seen, 'exited'))).toMatchObject({ clean: false });
      guest.detach();
      // Told again by a daemon that was not there when it happened.
      const [ended] = await (await open(runDir)).recover();
      expect(await exitOf(ended as Guest)).toMatchObject({ clean: false });
      await ended?.kill();
      expectNothingLeft(runDir);
    });

    test('that panics stands still', async () => {
      const driver = await open(tempFolder());
      const { socket } = await disk(tempFolder());
      const guest = await driver.start(launchOf(socket, { boot: 'panicking' }));
      const seen = events(guest);
      await until(() => typed(seen, 'panicked'));
      expect(numbers(seen)).not.toContain(4);
      await guest.kill();
    });

    test('whose disk reports an error is stopped, and goes on when it is resumed', async () => {
      const folder = tempFolder();
      const trouble = join(folder, 'trouble');
      const { socket } = await disk(
        folder,
        'error',
        'error=EIO',
        `error-file=${trouble}`,
        'error-rate=1',
      );
      const driver = await open(tempFolder());
      const guest = await driver.start(launchOf(socket));
      const seen = events(guest);
      await untilItCounts(seen);
      writeFileSync(trouble, '');
      expect(await until(() => typed(seen, 'ioError'))).toMatchObject({ disk: 'disk0' });

      unlinkSync(trouble);
      await guest.resume(clock.now() + farMs);
      await untilItCounts(seen);
      expect(lines(seen).filter((line) => line.startsWith('error'))).toEqual([]);
      await guest.kill();
    });

    test('tells what it asks of a disk at a path, and whether it was heard', async () => {
      const driver = await open(tempFolder());
      const path = join(tempFolder(), 'disk.img');
      writeFileSync(path, '');
      truncateSync(path, 64 * 2 ** 20);
      const disks = [{ name: 'disk0', path, format: 'raw' as const }];
      const guest = await driver.start(launchOf(null, { disks }));
      expect(guest.wasHeard).toBe(false);
      const seen = events(guest);
      await untilItCounts(seen);
      // Each number is written and flushed; what is under way is counted later.
      const before = await guest.pathActivity();
      await untilItCounts(seen);
      const after = await guest.pathActivity();
      expect(after?.requests).toBeGreaterThanOrEqual((before?.requests ?? Infinity) + 2);
      expect([guest.wasHeard, after?.inFlight]).toEqual([true, 0]);
      await guest.kill();
    });

    test('waits while its disk is away', async () => {
      const folder = tempFolder();
      const file = join(folder, 'disk.img');
      const socket = join(folder, 'disk.sock');
      const serve = async (): Promise<number> => {
        const { pid } = run('nbdkit', ['--foreground', '--unix', socket, 'file', file]);
        await until(() => existsSync(socket));
        return pid as number;
      };
      writeFileSync(file, Buffer.alloc(64 * 2 ** 20));
      const server = await serve();
      const driver = await open(tempFolder());
      const guest = await driver.start(launchOf(socket));
      const seen = events(guest);
      await untilItCounts(seen);
      process.kill(server, 'SIGKILL');
      await until(() => stateOf(server) === null);

      unlinkSync(socket);
      await serve();
      await untilItCounts(seen);
      expect(typed(seen, 'ioError')).toBeUndefined();
      expect(lines(seen).filter((line) => line.startsWith('error'))).toEqual([]);
      await guest.kill();
    });
  });

  describe('a start that fails leaves nothing', { timeout: patience }, () => {
    async function failure(launch: GuestLaunch, other: Partial<GuestDriverOptions> = {}) {
      const runDir = other.runDir ?? tempFolder();
      const driver = await open(runDir, other);
      const error = await driver.start(launch).catch((reason: unknown) => reason);
      expectNothingLeft(runDir);
      return error;
    }

    const cases: [string, () => GuestLaunch, Partial<GuestDriverOptions>, string, RegExp][] = [
      [
        'no guard',
        () => launchOf(null),
        { guardPath: '/nonexistent/guard' },
        'guest-failed',
        /guard/,
      ],
      [
        'no such image',
        () => launchOf(null, { boot: 'b' }),
        {},
        'guest-failed',
        /it has: counter, pan/,
      ],
      [
        'no disk',
        () => launchOf('/nonexistent/nbd'),
        {},
        'guest-failed',
        /nonexistent\/nbd.*log: /s,
      ],
      [
        'a deadline that has passed',
        () => launchOf(null, { deadlineMs: 1 }),
        {},
        'guest-failed',
        /passed/,
      ],
      [
        'no memory',
        () => launchOf(null),
        { capacity: { memoryBytes: 1024 } },
        'no-capacity',
        /96 MiB/,
      ],
      ['a name that is no word', () => launchOf(null, { name: 'a b' }), {}, 'guest-failed', /word/],
      [
        'an id that leaves the folder',
        () => launchOf(null, { vm: vmId('../x') }),
        {},
        'guest-failed',
        /word/,
      ],
    ];
    test.each(cases)('%s', async (_, launch, other, code, message) => {
      const error = await failure(launch(), other);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    });

    test('a run directory that is too long for sockets', async () => {
      const runDir = join(tempFolder(), 'x'.repeat(100));
      expect(await failure(launchOf(null), { runDir })).toMatchObject({
        code: 'guest-failed',
        message: expect.stringMatching(/at most 107/),
      });
    });

    test('a clock that runs ahead of the guard', async () => {
      const ahead = { ...clock, now: () => clock.now() + 5000 };
      expect(
        await failure(launchOf(null, { deadlineMs: clock.now() + farMs }), { clock: ahead }),
      ).toMatchObject({
        code: 'guest-failed',
        message: expect.stringMatching(/ahead/),
      });
    });

    test('two starts of one VM', async () => {
      const runDir = tempFolder();
      const driver = await open(runDir);
      const results = await Promise.allSettled([
        driver.start(launchOf(null)),
        driver.start(launchOf(null)),
      ]);
      expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
      expect(guestPid(runDir)).toBeGreaterThan(0);
      for (const result of results) if (result.status === 'fulfilled') await result.value.kill();
    });
  });
}
