// The driver with real QEMU guests: the project's own guest image, on disks that somebody else's NBD
// server holds. What is asserted are events and states, never how long something took.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { epoch, vmId } from '../../src/model/ids.ts';
import { createClock } from '../../src/platform/clock.ts';
import type { Guest, GuestDriver, GuestEvent, GuestLaunch } from '../../src/ports/guests.ts';
import type { Log } from '../../src/ports/log.ts';
import { bootProblem, probeAccelerator } from '../../src/qemu/accelerator.ts';
import { createQemuDriver, type QemuDriverOptions } from '../../src/qemu/driver.ts';
import {
  cleanUp,
  compileGuard,
  processesWith,
  removeFolders,
  run,
  stateOf,
  tempFolder,
  until,
} from './support.ts';

const image = (name: string): string =>
  new URL(`../../build/guest/${name}`, import.meta.url).pathname;
const append =
  'console=ttyS0 quiet panic=-1 nokaslr no_timer_check mitigations=off nopti random.trust_cpu=on audit=0';
const bootImages = {
  counter: { kernel: image('vmlinuz'), initrd: image('initrd'), append },
  panicking: {
    kernel: image('vmlinuz'),
    initrd: image('initrd'),
    append: `${append} holdfast.panic_after=3`,
  },
  missing: { kernel: '/nonexistent/vmlinuz' },
};

const clock = createClock();
const logged: string[] = [];
const note = (message: string, fields?: unknown): void =>
  void logged.push(`${message} ${JSON.stringify(fields ?? {})}`);
const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log };

const farMs = 10 * 60 * 1000;
const memoryBytes = 96 * 2 ** 20;
/** A guest needs seconds to boot under emulation, many of them on a machine that does other work. */
const patience = 120_000;

let guardPath = '';
beforeAll(() => {
  if (!existsSync(image('initrd'))) throw new Error('the guest image is missing: run `make guest`');
  guardPath = compileGuard();
});
afterEach(cleanUp);
afterAll(removeFolders);

function driverIn(runDir: string, other: Partial<QemuDriverOptions> = {}): Promise<GuestDriver> {
  return createQemuDriver({
    host: 'host-1',
    ...{ runDir, guardPath, clock, log, bootImages, accelerator: 'tcg' as const },
    ...other,
  });
}

/** A disk in the memory of an NBD server. */
async function disk(
  folder: string,
  filter?: string,
  ...parameters: string[]
): Promise<{ socket: string; pid: number }> {
  const socket = join(folder, 'disk.sock');
  const server = run('nbdkit', [
    ...['--foreground', '--unix', socket],
    ...(filter === undefined ? [] : [`--filter=${filter}`]),
    ...['memory', '64M', ...parameters],
  ]);
  await until(() => existsSync(socket));
  return { socket, pid: server.pid as number };
}

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

function launchOf(socket: string | null, other: Partial<GuestLaunch> = {}): GuestLaunch {
  return {
    vm: vmId('0123456789abcdef0123456789abcdef'),
    name: 'vm-1',
    epoch: epoch(4),
    cpus: 1,
    memoryBytes,
    boot: 'counter',
    disks: socket === null ? [] : [{ name: 'disk0', socket }],
    absentDisks: [],
    deadlineMs: clock.now() + farMs,
    ...other,
  };
}

/** Collects the events of a guest. */
function events(guest: Guest): GuestEvent[] {
  const seen: GuestEvent[] = [];
  guest.handle((event) => seen.push(event));
  return seen;
}

const lines = (seen: readonly GuestEvent[]): string[] =>
  seen.flatMap((event) => (event.type === 'heartbeat' ? [event.line] : []));
const typed = <Type extends GuestEvent['type']>(seen: readonly GuestEvent[], type: Type) =>
  seen.find((event): event is Extract<GuestEvent, { type: Type }> => event.type === type);
const numbers = (seen: readonly GuestEvent[]): number[] =>
  lines(seen).flatMap((line) => (line.startsWith('wrote ') ? [Number(line.slice(6))] : []));

function exitOf(guest: Guest) {
  const seen = events(guest);
  return until(() => typed(seen, 'exited'));
}

/** Proof that the guest runs: it reports two more numbers. */
async function untilItCounts(seen: readonly GuestEvent[]): Promise<void> {
  const before = numbers(seen).length;
  await until(() => numbers(seen).length >= before + 2);
}

/** The process of the guest, as an outsider finds it. */
function qemuPid(name: string, runDir: string): number {
  const found = processesWith(`guest=${name},`).filter((pid) => {
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
    return argv[0] !== guardPath && argv.join(' ').includes(runDir);
  });
  expect(found).toHaveLength(1);
  return found[0] as number;
}

/** Only logs may stay of a guest that is gone. */
function expectNothingLeft(runDir: string): void {
  expect(processesWith(`${runDir}/`)).toEqual([]);
  const files = readdirSync(runDir, { recursive: true }).map(String);
  expect(files.filter((file) => /\.(sock|json|new)$/.test(file))).toEqual([]);
}

describe('a guest', { timeout: patience }, () => {
  test('boots, reports, pauses, resumes and switches itself off', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
    const { socket } = await disk(tempFolder());
    const guest = await driver.start(launchOf(socket));
    expect(guest).toMatchObject({ name: 'vm-1', epoch: 4, state: 'running' });
    const seen = events(guest);
    await untilItCounts(seen);
    expect(lines(seen)[0]).toBe('read 0');
    const pid = qemuPid('vm-1', runDir);
    for (const file of ['qmp.sock', 'heartbeat.sock', 'guard.sock', 'serial.log', 'launch.json']) {
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
    const driver = await driverIn(runDir);
    const guest = await driver.start(launchOf(null, { deadlineMs: clock.now() + 700 }));
    const seen = events(guest);
    await until(() => typed(seen, 'paused'));
    expect(guest.state).toBe('paused');
    const pid = qemuPid('vm-1', runDir);
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
    const first = await driverIn(runDir);
    const { socket } = await disk(tempFolder());
    const before = await first.start(launchOf(socket));
    const seenBefore = events(before);
    await untilItCounts(seenBefore);
    before.detach();
    const pid = qemuPid('vm-1', runDir);

    const [running, ...others] = await (await driverIn(runDir)).recover();
    expect(others).toEqual([]);
    expect(running).toMatchObject({ vm: before.vm, name: 'vm-1', epoch: 4, state: 'running' });
    const seen = events(running as Guest);
    await untilItCounts(seen);
    expect(numbers(seen)[0]).toBeGreaterThan(numbers(seenBefore).at(-1) as number);
    expect(qemuPid('vm-1', runDir)).toBe(pid);
    await running?.pause();
    running?.detach();

    const second = await driverIn(runDir);
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

    const third = await driverIn(runDir);
    const [ended] = await third.recover();
    expect(await exitOf(ended as Guest)).toMatchObject({ clean: true });
    expect(ended?.state).toBe('exited');
    ended?.detach();
    // Told again until somebody says that it is known.
    const [still] = await (await driverIn(runDir)).recover();
    expect(still?.state).toBe('exited');
    await still?.kill();
    expect(await (await driverIn(runDir)).recover()).toEqual([]);
    await until(() => processesWith(`${runDir}/`).length === 0);
    expectNothingLeft(runDir);
  });

  test('gets a disk that it was started without while it runs, once', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
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

    const [found] = await (await driverIn(runDir)).recover();
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
    const driver = await driverIn(runDir);
    const path = join(tempFolder(), `o d,d"'\\=x: {}.img`);
    writeFileSync(path, '');
    truncateSync(path, 64 * 2 ** 20);
    const guest = await driver.start(
      launchOf(null, { disks: [{ name: 'disk0', path, format: 'raw' }] }),
    );
    const seen = events(guest);
    await untilItCounts(seen);
    const pid = qemuPid('vm-1', runDir);
    const open = readdirSync(`/proc/${pid}/fd`).filter(
      (fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === path,
    );
    const infos = open.map((fd) => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'));
    const oDirect = 0o40000;
    for (const info of infos) {
      expect(Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '', 8) & oDirect).toBe(oDirect);
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

  test('that died with its guard is told, and cleared away', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
    const guest = await driver.start(launchOf(null));
    const seen = events(guest);
    const pid = qemuPid('vm-1', runDir);
    const guard = processesWith(`${runDir}/`).find((other) => other !== pid) as number;
    process.kill(guard, 'SIGKILL');
    expect(await until(() => typed(seen, 'exited'))).toMatchObject({ clean: false });
    expect(stateOf(pid)).toBeNull();
    expect(await (await driverIn(runDir)).recover()).toEqual([]);
    expectNothingLeft(runDir);
  });

  test('that somebody ends with SIGTERM did not switch itself off', async () => {
    const runDir = tempFolder();
    const driver = await driverIn(runDir);
    const guest = await driver.start(launchOf(null));
    process.kill(qemuPid('vm-1', runDir), 'SIGTERM');
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
    process.kill(qemuPid('vm-1', runDir), 'SIGTERM');
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

  test('that panics stands still', async () => {
    const driver = await driverIn(tempFolder());
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
    const driver = await driverIn(tempFolder());
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
    const driver = await driverIn(tempFolder());
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
  async function failure(launch: GuestLaunch, other: Partial<QemuDriverOptions> = {}) {
    const runDir = other.runDir ?? tempFolder();
    const driver = await driverIn(runDir, other);
    const error = await driver.start(launch).catch((reason: unknown) => reason);
    expectNothingLeft(runDir);
    return error;
  }

  const cases: [string, () => GuestLaunch, Partial<QemuDriverOptions>, string, RegExp][] = [
    [
      'no QEMU',
      () => launchOf(null),
      { qemuPath: '/nonexistent/qemu' },
      'guest-failed',
      /No such file/,
    ],
    [
      'no guard',
      () => launchOf(null),
      { guardPath: '/nonexistent/guard' },
      'guest-failed',
      /guard/,
    ],
    ['no image file', () => launchOf(null, { boot: 'missing' }), {}, 'guest-failed', /vmlinuz/],
    [
      'no such image',
      () => launchOf(null, { boot: 'b' }),
      {},
      'guest-failed',
      /it has: counter, pan/,
    ],
    ['no disk', () => launchOf('/nonexistent/nbd'), {}, 'guest-failed', /nonexistent\/nbd.*log: /s],
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
    [
      'too much memory for the machine',
      () => launchOf(null, { memoryBytes: 2 ** 47 }),
      { capacity: { memoryBytes: 2 ** 48 } },
      'no-capacity',
      /memory/,
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
    const driver = await driverIn(runDir);
    const results = await Promise.allSettled([
      driver.start(launchOf(null)),
      driver.start(launchOf(null)),
    ]);
    expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(qemuPid('vm-1', runDir)).toBeGreaterThan(0);
    for (const result of results) if (result.status === 'fulfilled') await result.value.kill();
  });
});

describe('the accelerator', { timeout: patience }, () => {
  const qemu = 'qemu-system-x86_64';

  test('the firmware and the kernel boot under emulation, so the probe can tell', async () => {
    expect(await bootProblem('tcg', { qemu, kernel: null, clock })).toBeNull();
    expect(await bootProblem('tcg', { qemu, kernel: image('vmlinuz'), clock })).toBeNull();
    expect(await bootProblem('tcg', { qemu: '/nonexistent/qemu', kernel: null, clock })).toMatch(
      /ENOENT/,
    );
    expect(await bootProblem('tcg', { qemu, kernel: guardPath, clock })).not.toBeNull();
  });

  test('what the probe chose is said, and works', async () => {
    const probe = await probeAccelerator({ qemu, kernel: image('vmlinuz'), clock });
    expect(probe.reason).not.toBe('');
    expect(await bootProblem(probe.accelerator, { qemu, kernel: null, clock })).toBeNull();
    logged.length = 0;
    const runDir = tempFolder();
    const driver = await createQemuDriver({
      host: 'host-1',
      runDir,
      guardPath,
      clock,
      log,
      bootImages,
    });
    expect(driver.accelerator).toBe(probe.accelerator);
    expect(logged.join()).toContain(`guests run with ${probe.accelerator}`);
    expect(driver.capacity().cpus).toBeGreaterThan(0);
    expect(driver.capacity().memoryBytes).toBeGreaterThan(0);
  });
});
