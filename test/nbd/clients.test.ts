// The server under clients that are not ours, over real Unix sockets: libnbd's nbdinfo and nbdcopy,
// QEMU's qemu-img, and fio. What they write is compared with the bytes of the device itself, so that
// no client's opinion is needed to see that the data is right.

import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { createStreams } from '../../src/platform/streams.ts';
import type { Streams } from '../../src/ports/streams.ts';
import { type NbdServer, serveNbd } from '../../src/storage/nbd/server.ts';
import { MemoryLog } from './fixture.ts';
import { MemoryDevice } from './memory-device.ts';

const MiB = 1024 * 1024;
/** Ends what hangs; how long anything takes is not tested. */
const clientTimeoutMs = 120_000;
vi.setConfig({ testTimeout: 2 * clientTimeoutMs });
const children = new Set<ChildProcess>();
const servers = new Set<NbdServer>();
let directory = '';

beforeAll(() => {
  const missing = ['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'fio'].filter(
    (name) => !installed(name),
  );
  const hint = 'apt-get install libnbd-bin qemu-utils fio';
  if (missing.length > 0) throw new Error(`not installed: ${missing.join(', ')}; ${hint}`);
});

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'nbd-'));
});

afterEach(async () => {
  await Promise.all([...children].map(kill));
  await Promise.all([...servers].map((server) => server.close()));
  servers.clear();
  rmSync(directory, { recursive: true, force: true });
});

function installed(name: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function kill(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('close', () => resolve());
    child.kill('SIGKILL');
  });
}

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a client to its end; one that hangs is killed and then has no exit code. */
function attempt(name: string, ...args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, {
      cwd: directory,
      timeout: clientTimeoutMs,
      killSignal: 'SIGKILL',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.add(child);
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => err.push(bytes));
    child.once('error', reject);
    child.once('close', (code) => {
      children.delete(child);
      const [stdout, stderr] = [Buffer.concat(out).toString(), Buffer.concat(err).toString()];
      resolve({ code, stdout, stderr });
    });
  });
}

async function run(name: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await attempt(name, ...args);
  if (code !== 0) throw new Error(`${name} ${args.join(' ')}: exit ${code}\n${stderr}\n${stdout}`);
  return stdout;
}

async function serve(device: MemoryDevice, { readOnly = false } = {}) {
  const log = new MemoryLog();
  const path = join(directory, 'disk.sock');
  const seen = { most: 0 };
  let server: NbdServer | null = null;
  const streams: Streams = {
    listen: (name, onStream) =>
      createStreams().listen(name, (stream) => {
        onStream(stream);
        seen.most = Math.max(seen.most, server?.connections ?? 0);
      }),
  };
  server = await serveNbd({ streams, path, exportName: 'disk0', device, readOnly, log });
  servers.add(server);
  return { server, log, path, seen, uri: `nbd+unix:///disk0?socket=${path}` };
}

function device(sizeBytes: number): MemoryDevice {
  return new MemoryDevice(sizeBytes, { record: false });
}

/** Bytes that look random, without two equal blocks, and are the same in every run (xorshift). */
function pattern(length: number, seed: number): Buffer {
  const words = new Uint32Array(length / 4);
  let state = seed;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return Buffer.from(words.buffer);
}

/** Compared by digest: a failing `toEqual` of megabytes takes minutes to print. */
function sameBytes(a: Uint8Array, b: Uint8Array): void {
  const [first, second] = [a, b].map((bytes) => createHash('sha256').update(bytes).digest('hex'));
  expect(first).toBe(second);
}

test('nbdinfo understands what is offered', async () => {
  const { uri, path, log } = await serve(device(5 * MiB + 512));
  const { exports } = JSON.parse(await run('nbdinfo', '--json', uri)) as {
    exports: Record<string, unknown>[];
  };
  expect(exports).toHaveLength(1);
  expect(exports[0]).toMatchObject({
    'export-name': 'disk0',
    'export-size': 5 * MiB + 512,
    is_read_only: false,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_df: true,
    can_trim: true,
    can_zero: true,
    can_fast_zero: true,
    contexts: ['base:allocation'],
    can_cache: false,
    block_size_minimum: 1,
    block_size_preferred: 4096,
    block_size_maximum: 32 * MiB,
  });
  const listed = await run('nbdinfo', '--list', '--json', `nbd+unix:///?socket=${path}`);
  const list = JSON.parse(listed) as { protocol: string; exports: Record<string, unknown>[] };
  expect(list.exports.map((entry) => entry['export-name'])).toEqual(['disk0']);
  expect(list.protocol).toBe('newstyle-fixed');
  expect((await attempt('nbdinfo', `nbd+unix:///other?socket=${path}`)).code).not.toBe(0);
  expect(log.of('warn')).toEqual([]);
});

test('nbdinfo --map and qemu-img map see data and holes alike', async () => {
  const disk = device(20 * MiB);
  disk.bytes.fill(1, 5 * MiB, 9 * MiB);
  const { uri } = await serve(disk);
  const expected = [
    [0, 5 * MiB, true],
    [5 * MiB, 4 * MiB, false],
    [9 * MiB, 11 * MiB, true],
  ];
  type Mapped = { offset: number; length: number; type: number }[];
  const mapped = JSON.parse(await run('nbdinfo', '--map', '--json', uri)) as Mapped;
  expect(mapped.map(({ offset, length, type }) => [offset, length, type === 3])).toEqual(expected);
  const text = await run('qemu-img', 'map', '--output=json', '-f', 'raw', uri);
  const blocks = JSON.parse(text) as { start: number; length: number; zero: boolean }[];
  expect(blocks.map(({ start, length, zero }) => [start, length, zero])).toEqual(expected);
});

test('a sparse image is copied by zeroing and not by writing zeros', async () => {
  const disk = device(64 * MiB);
  const { uri } = await serve(disk);
  const image = new Uint8Array(64 * MiB);
  image.set(pattern(MiB, 5), 30 * MiB);
  writeFileSync(join(directory, 'in.img'), image);
  for (const copy of [
    ['nbdcopy', '--connections=2', 'in.img', uri],
    ['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', 'in.img', uri],
  ] as const) {
    disk.bytes.fill(3);
    const before = { zeroes: disk.zeroes, writes: disk.writes };
    await run(copy[0], ...copy.slice(1));
    sameBytes(disk.bytes, image);
    expect(disk.zeroes).toBeGreaterThan(before.zeroes);
    expect(disk.writes - before.writes).toBeLessThan(20);
  }
  // And out again, by block status.
  await run('nbdcopy', uri, 'out.img');
  sameBytes(readFileSync(join(directory, 'out.img')), image);
});

test('QEMU passes on what its guest discards and zeroes', async () => {
  const disk = device(16 * MiB);
  disk.bytes.fill(4);
  const { uri } = await serve(disk);
  const commands = ['discard 1M 2M', 'write -z -u 4M 1M', 'write -z 6M 1M', 'read -P 0 1M 2M'];
  const io = ['-f', 'raw', '-d', 'unmap', ...commands.flatMap((command) => ['-c', command])];
  await run('qemu-io', ...io, uri);
  expect(disk.unmapped).toEqual([
    [MiB, 2 * MiB],
    [4 * MiB, MiB],
  ]);
  expect(disk.zeroes).toBe(3);
  const expected = new Uint8Array(16 * MiB).fill(4);
  for (const [from, to] of [
    [1, 3],
    [4, 5],
    [6, 7],
  ] as const) {
    expected.fill(0, from * MiB, to * MiB);
  }
  sameBytes(disk.bytes, expected);
});

test('fio trims, and reads back zeros where it did', async () => {
  const disk = device(16 * MiB);
  disk.bytes.fill(4);
  const { uri } = await serve(disk);
  const job = ['--name=trim', '--ioengine=nbd', `--uri=${uri}`, '--thread', '--rw=randtrim'];
  await run('fio', ...job, '--bs=64k', '--size=8m', '--iodepth=16');
  expect(disk.zeroes).toBe(128);
  sameBytes(disk.bytes.subarray(0, 8 * MiB), new Uint8Array(8 * MiB));
  sameBytes(disk.bytes.subarray(8 * MiB), new Uint8Array(8 * MiB).fill(4));
});

test('nbdcopy in and out, over several connections at once', async () => {
  const disk = device(48 * MiB);
  const { uri, seen } = await serve(disk);
  const image = pattern(48 * MiB, 1);
  writeFileSync(join(directory, 'in.img'), image);
  await run('nbdcopy', '--flush', '--connections=4', 'in.img', uri);
  sameBytes(disk.bytes, image);
  expect(disk.flushes).toBeGreaterThan(0);
  expect(seen.most).toBeGreaterThan(1);
  await run('nbdcopy', '--connections=4', uri, 'out.img');
  sameBytes(readFileSync(join(directory, 'out.img')), image);
});

test('nbdcopy without asynchronous requests, and with requests of the largest size', async () => {
  const disk = device(48 * MiB);
  const { uri } = await serve(disk);
  const image = pattern(48 * MiB, 2);
  writeFileSync(join(directory, 'in.img'), image);
  await run('nbdcopy', '--synchronous', 'in.img', uri);
  sameBytes(disk.bytes, image);
  disk.bytes.fill(0);
  await run('nbdcopy', '--request-size=33554432', '--connections=2', 'in.img', uri);
  sameBytes(disk.bytes, image);
});

test('a read-only export can be copied and not written', async () => {
  const disk = device(4 * MiB);
  const image = pattern(4 * MiB, 3);
  disk.bytes.set(image);
  const { uri } = await serve(disk, { readOnly: true });
  expect((await attempt('nbdinfo', '--is', 'read-only', uri)).code).toBe(0);
  await run('nbdcopy', uri, 'out.img');
  sameBytes(readFileSync(join(directory, 'out.img')), image);
  writeFileSync(join(directory, 'zero.img'), new Uint8Array(4 * MiB));
  expect((await attempt('nbdcopy', 'zero.img', uri)).code).not.toBe(0);
  sameBytes(disk.bytes, image);
});

test('qemu-img convert, compare and info', async () => {
  const disk = device(24 * MiB);
  const { uri } = await serve(disk);
  const image = pattern(24 * MiB, 4);
  writeFileSync(join(directory, 'in.img'), image);
  await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', 'in.img', uri);
  sameBytes(disk.bytes, image);
  await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', 'in.img', uri);
  disk.bytes[20 * MiB] = (disk.bytes[20 * MiB] as number) ^ 1;
  expect((await attempt('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', 'in.img', uri)).code).toBe(
    1,
  );
  const info = JSON.parse(await run('qemu-img', 'info', '--output=json', uri)) as object;
  expect(info).toMatchObject({ 'virtual-size': 24 * MiB });
  // A format inside the disk: cluster allocation, unaligned metadata, flushes in between.
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', uri, 'packed.qcow2');
  disk.bytes.fill(0);
  await run('qemu-img', 'convert', '-n', '-O', 'raw', 'packed.qcow2', uri);
  await run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', 'packed.qcow2', uri);
});

test('qemu-img bench: deep queues of reads and writes, with flushes, and write-through', async () => {
  const disk = device(16 * MiB);
  const { uri } = await serve(disk);
  const bench = (...args: string[]) =>
    run('qemu-img', 'bench', '-f', 'raw', '-c', '2000', '-d', '64', ...args, uri);
  await bench('-w', '--pattern=165', '--flush-interval=100');
  expect(disk.flushes).toBeGreaterThanOrEqual(20);
  sameBytes(disk.bytes.subarray(0, 2000 * 4096), new Uint8Array(2000 * 4096).fill(165));
  await bench();
  await bench('-s', '12345', '-S', '8000');
  // Write-through makes QEMU ask for each write to be durable.
  await bench('-w', '-t', 'writethrough');
  expect(disk.fuaWrites).toBeGreaterThanOrEqual(2000);
});

test('fio verifies what it wrote, from several jobs at once', async () => {
  const disk = device(64 * MiB);
  const { uri, seen } = await serve(disk);
  const fio = async (...args: string[]) => {
    const fixed = ['--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--thread', '--randseed=7'];
    const verify = [
      '--verify=crc32c',
      '--verify_fatal=1',
      '--do_verify=1',
      '--verify_state_save=0',
    ];
    const stdout = await run('fio', ...fixed, ...verify, '--output-format=json', ...args);
    const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
      jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[];
    };
    for (const job of jobs) expect(job.error).toBe(0);
    return jobs.map(({ read, write }) => [read.total_ios, write.total_ios]);
  };
  const mixed = ['--rw=randwrite', '--bsrange=512-64k', '--bs_unaligned', '--iodepth=32'];
  const jobs = await fio(
    ...mixed,
    '--size=16m',
    '--numjobs=4',
    '--offset_increment=16m',
    '--fsync=64',
  );
  expect(jobs).toHaveLength(4);
  expect(seen.most).toBeGreaterThanOrEqual(4);
  expect(disk.flushes).toBeGreaterThan(0);
  const [counts] = await fio('--rw=randwrite', '--bs=4k', '--size=32m', '--iodepth=64');
  expect(counts).toEqual([8192, 8192]);
});

test('fio notices when the device changes a bit: the verification above is worth something', async () => {
  const disk = device(4 * MiB);
  const { uri } = await serve(disk);
  const job = ['--name=v', '--ioengine=nbd', `--uri=${uri}`, '--thread', '--rw=write', '--bs=4k'];
  const verify = ['--size=4m', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0'];
  await run('fio', ...job, ...verify, '--do_verify=0');
  disk.bytes[3 * MiB + 100] = (disk.bytes[3 * MiB + 100] as number) ^ 1;
  expect((await attempt('fio', ...job, ...verify, '--verify_only')).code).not.toBe(0);
});

test('QEMU goes on when the server is closed and served again in the middle of its writes', async () => {
  const disk = device(16 * MiB);
  const first = await serve(disk);
  const again: Promise<unknown>[] = [];
  // Closed from within a write: that one is never answered, those just before it were carried out
  // but not answered yet, and the rest of what has come in is not carried out.
  disk.onWrite = () => {
    if (disk.writes !== 700) return;
    disk.holding = true;
    again.push(first.server.close().then(() => serve(disk)));
  };
  const outcome = attempt(
    'qemu-img',
    ...['bench', '-w', '-c', '2000', '-d', '16', '--pattern=90', '--image-opts'],
    `driver=raw,file.driver=nbd,file.export=disk0,file.reconnect-delay=100,file.server.type=unix,file.server.path=${first.path}`,
  );
  await expect.poll(() => again.length, { timeout: clientTimeoutMs, interval: 5 }).toBe(1);
  await again[0];
  disk.release();
  const { code, stderr } = await outcome;
  expect([code, stderr]).toEqual([0, '']);
  sameBytes(disk.bytes.subarray(0, 2000 * 4096), new Uint8Array(2000 * 4096).fill(90));
  expect(disk.writes).toBeGreaterThan(2000);
});

test('a client is hung up on when the server closes, and leaves nothing behind', async () => {
  const disk = device(MiB);
  disk.holding = true;
  const { server, uri, path } = await serve(disk);
  const outcome = attempt('nbdcopy', uri, 'out.img');
  await expect.poll(() => disk.held.length, { timeout: clientTimeoutMs, interval: 5 }).not.toBe(0);
  await server.close();
  expect((await outcome).code).not.toBe(0);
  expect(server.connections).toBe(0);
  expect(() => accessSync(path)).toThrow('ENOENT');
});
