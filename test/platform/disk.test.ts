import { execFileSync, spawn } from 'node:child_process';
import {
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { crc32 } from '../../src/model/crc32.ts';
import { openLocalDisk } from '../../src/platform/disk.ts';
import { openDiskFile } from '../../src/platform/disk-file.ts';
import { writeFileDurably } from '../../src/platform/durable-file.ts';
import { DiskError, type DiskFile } from '../../src/ports/disk.ts';
import { canMount } from '../support/can-mount.ts';
import { cleanUp, compiled, temporaryFolder } from './fixture.ts';

type Done = (error: DiskError | null) => void;

function finished(action: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    action((error) => (error === null ? resolve() : reject(error)));
  });
}

const write = (file: DiskFile, offset: number, ...chunks: Uint8Array[]) =>
  finished((done) => file.write(offset, chunks, done));

const discard = (file: DiskFile, offset: number, length: number) =>
  finished((done) => file.discard(offset, length, done));

async function readBack(file: DiskFile, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length, 0xee);
  await finished((done) => file.read(offset, target, done));
  return target;
}

async function makeDisk(folder?: string) {
  const disk = await openLocalDisk(folder ?? join(await temporaryFolder(), 'store'));
  cleanUp(() => disk.close());
  return disk;
}

describe('a file of the store', () => {
  it('reads what was written, zeros beyond the end, and knows its size', async () => {
    const disk = await makeDisk();
    const file = await disk.open('log', { create: true });
    expect(file.sizeBytes).toBe(0);
    await write(file, 3, Buffer.from('abc'), Buffer.alloc(0), Buffer.from('defg'));
    expect(file.sizeBytes).toBe(10);
    expect((await readBack(file, 1, 14)).toString('latin1')).toBe('\0\0abcdefg\0\0\0\0\0');
    expect(await readBack(file, 100, 2)).toEqual(Buffer.alloc(2));
    await finished((done) => file.sync(done));
    await file.resize(5);
    expect(file.sizeBytes).toBe(5);
    await file.resize(8);
    expect((await readBack(file, 0, 8)).toString('latin1')).toBe('\0\0\0ab\0\0\0');
    await write(file, 8);
    await file.close();
    const again = await disk.open('log', { create: false });
    expect(again.sizeBytes).toBe(8);
    await again.close();
  });

  it('does what an array in memory does', async () => {
    const disk = await makeDisk();
    const offset = fc.nat(5000);
    const operation = fc.oneof(
      fc.record({
        kind: fc.constant('write' as const),
        offset,
        parts: fc.array(fc.uint8Array({ maxLength: 600 })),
      }),
      fc.record({ kind: fc.constant('read' as const), offset, length: fc.nat(2000) }),
      fc.record({ kind: fc.constant('resize' as const), size: offset }),
      fc.record({ kind: fc.constant('discard' as const), offset, length: fc.nat(3000) }),
    );
    let count = 0;
    const run = fc.asyncProperty(fc.array(operation), async (operations) => {
      count += 1;
      const file = await disk.open(`f${count}`, { create: true });
      let model = Buffer.alloc(0);
      const grow = (size: number) =>
        Buffer.concat([model, Buffer.alloc(Math.max(0, size - model.length))]);
      for (const step of operations) {
        if (step.kind === 'resize') {
          model = grow(step.size).subarray(0, step.size);
          await file.resize(step.size);
        } else if (step.kind === 'discard') {
          const end = Math.min(model.length, step.offset + step.length);
          if (step.offset >= end) continue;
          model.fill(0, step.offset, end);
          await discard(file, step.offset, end - step.offset);
        } else if (step.kind === 'write') {
          const bytes = Buffer.concat(step.parts);
          if (bytes.length > 0) model = grow(step.offset + bytes.length);
          bytes.copy(model, step.offset);
          await write(file, step.offset, ...step.parts);
        } else {
          const wanted = grow(step.offset + step.length).subarray(
            step.offset,
            step.offset + step.length,
          );
          if (!wanted.equals(await readBack(file, step.offset, step.length))) return false;
        }
        if (file.sizeBytes !== model.length) return false;
      }
      await file.close();
      return true;
    });
    await fc.assert(run, { numRuns: 30 });
  });

  it('does what an array in memory does, with many small requests at a time', async () => {
    const disk = await makeDisk();
    const block = 512;
    const blocks = 100;
    const request = fc.record({ isWrite: fc.boolean(), at: fc.nat(blocks - 1), fill: fc.nat(255) });
    let count = 0;
    const run = fc.asyncProperty(
      fc.array(fc.uniqueArray(request, { maxLength: 80, selector: ({ at }) => at })),
      async (turns) => {
        count += 1;
        const file = await disk.open(`many${count}`, { create: true });
        const model = Buffer.alloc(blocks * block);
        let end = 0;
        for (const turn of turns) {
          // Some begin or end where others do, none overlap; reads beyond the end are among them.
          const requests = turn.map(async ({ isWrite, at, fill }) => {
            if (isWrite) {
              model.fill(fill, at * block, (at + 1) * block);
              end = Math.max(end, (at + 1) * block);
              await write(file, at * block, Buffer.alloc(block, fill));
            } else {
              const expected = Buffer.from(model.subarray(at * block, (at + 1) * block));
              expect((await readBack(file, at * block, block)).equals(expected)).toBe(true);
            }
          });
          await Promise.all(requests);
          expect(file.sizeBytes).toBe(end);
        }
        expect((await readBack(file, 0, model.length)).equals(model)).toBe(true);
        await file.close();
      },
    );
    await fc.assert(run, { numRuns: 30 });
  });

  it('reads many small pieces at a time that are not in memory', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const disk = await makeDisk(folder);
    const file = await disk.open('cold', { create: true });
    const whole = Buffer.alloc(4 * 1024 * 1024);
    for (let at = 0; at < whole.length; at += 4) whole.writeUInt32LE(at, at);
    await write(file, 0, whole);
    await finished((done) => file.sync(done));
    execFileSync('dd', [`of=${join(folder, 'cold')}`, 'oflag=nocache', 'conv=notrunc', 'count=0'], {
      stdio: 'ignore',
    });
    const block = 4096;
    const pieces = await Promise.all(
      Array.from({ length: whole.length / block }, (_, index) =>
        readBack(file, index * block, block),
      ),
    );
    expect(Buffer.concat(pieces).equals(whole)).toBe(true);
    await file.close();
  });

  it('tells each of many small requests what went wrong with it', async () => {
    const full = await openDiskFile(await open('/dev/full', 'r+'), 'device');
    const writes = await Promise.allSettled(
      Array.from({ length: 50 }, (_, index) => write(full, index, Buffer.from('x'))),
    );
    for (const outcome of writes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { kind: 'full' } });
    }
    await full.close();
    const path = join(await temporaryFolder(), 'write-only');
    writeFileSync(path, 'abc');
    const closedToReads = await openDiskFile(await open(path, 'a'), 'write-only');
    const reads = await Promise.allSettled(
      Array.from({ length: 50 }, () => readBack(closedToReads, 0, 3)),
    );
    for (const outcome of reads) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { kind: 'failed' } });
    }
    await closedToReads.close();
  });

  it('takes more chunks at once than one system call does', async () => {
    const disk = await makeDisk();
    const file = await disk.open('many', { create: true });
    const chunks = Array.from({ length: 3000 }, (_, index) => Buffer.from(`${index};`));
    await write(file, 0, ...chunks);
    expect(await readBack(file, 0, file.sizeBytes)).toEqual(Buffer.concat(chunks));
    await file.close();
  });

  it('gives back the space of what is discarded, and keeps its size', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const disk = await makeDisk(folder);
    const file = await disk.open('thin', { create: true });
    const MiB = 1024 * 1024;
    const taken = () => statSync(join(folder, 'thin')).blocks * 512;
    await write(file, 0, Buffer.alloc(8 * MiB, 7));
    await finished((done) => file.sync(done));
    expect(taken()).toBeGreaterThanOrEqual(8 * MiB);
    await discard(file, MiB + 5, 6 * MiB);
    await finished((done) => file.sync(done));
    expect(taken()).toBeLessThan(2.5 * MiB);
    expect(file.sizeBytes).toBe(8 * MiB);
    const whole = await readBack(file, 0, 8 * MiB);
    const expected = Buffer.alloc(8 * MiB, 7).fill(0, MiB + 5, 7 * MiB + 5);
    expect(whole.equals(expected)).toBe(true);
    await file.close();
  });

  it('discards hundreds of ranges at once, beside writes and reads', async () => {
    const disk = await makeDisk();
    const file = await disk.open('busy', { create: true });
    const block = 4096;
    await write(file, 0, Buffer.alloc(600 * block, 1));
    await Promise.all(
      Array.from({ length: 600 }, (_, index) =>
        index % 2 === 0
          ? discard(file, index * block, block)
          : write(file, index * block, Buffer.alloc(block, 2)),
      ),
    );
    const whole = await readBack(file, 0, 600 * block);
    for (let index = 0; index < 600; index += 1) expect(whole[index * block]).toBe((index % 2) * 2);
    await file.close();
  });

  it('refuses to discard beyond its end, and says why a device can not', async () => {
    const disk = await makeDisk();
    const file = await disk.open('short', { create: true });
    await write(file, 0, Buffer.from('abc'));
    await discard(file, 0, 0);
    await expect(discard(file, 1, 3)).rejects.toThrow(/1\+3 of 3 bytes of short: beyond its end/);
    await file.close();
    const path = join(await temporaryFolder(), 'read-only');
    writeFileSync(path, 'abc');
    const readOnly = await openDiskFile(await open(path, 'r'), 'read-only');
    await expect(discard(readOnly, 0, 3)).rejects.toThrow(/read-only: EBADF/);
    await readOnly.close();
  });

  it('writes zeros where the file system has no holes', async () => {
    // A character device knows no fallocate (ENODEV), and takes writes.
    const file = await openDiskFile(await open('/dev/null', 'r+'), 'device');
    await write(file, 0, Buffer.alloc(3 * 1024 * 1024, 1));
    await discard(file, 5, 2 * 1024 * 1024);
    await file.close();
  });

  it('serves all who ask for a sync at the same time', async () => {
    const disk = await makeDisk();
    const file = await disk.open('synced', { create: true });
    await write(file, 0, Buffer.from('x'));
    await Promise.all(Array.from({ length: 50 }, () => finished((done) => file.sync(done))));
    // Also one who asks again from within the callback.
    await finished((done) => file.sync(() => file.sync(done)));
    await file.close();
  });

  it('fails for good when a sync has failed', async () => {
    const handle = await open('/dev/null', 'r+'); // can not be synced: EINVAL
    const file = await openDiskFile(handle, 'device');
    await write(file, 0, Buffer.from('x'));
    expect(file.isSpent).toBe(false);
    await expect(finished((done) => file.sync(done))).rejects.toMatchObject({ kind: 'failed' });
    expect(file.isSpent).toBe(true);
    await expect(finished((done) => file.sync(done))).rejects.toMatchObject({ kind: 'failed' });
    await expect(write(file, 0, Buffer.from('x'))).rejects.toMatchObject({ kind: 'failed' });
    await expect(file.resize(1)).rejects.toMatchObject({ kind: 'failed' });
    await file.close();
  });

  it('reads from the device what it has dropped from memory', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const disk = await makeDisk(folder);
    const file = await disk.open('data', { create: true });
    await write(file, 0, Buffer.alloc(65_536, 7));
    await finished((done) => file.sync(done));
    const cachedBytes = () =>
      Number(execFileSync('fincore', ['-nbo', 'RES', join(folder, 'data')], { encoding: 'utf8' }));
    expect(cachedBytes()).toBe(65_536);
    await file.dropCached();
    // Files of this kind have nothing but memory.
    const isInMemory = /tmpfs/.test(
      execFileSync('stat', ['-fc', '%T', folder], { encoding: 'utf8' }),
    );
    expect(cachedBytes()).toBe(isInMemory ? 65_536 : 0);
    expect((await readBack(file, 65_530, 6)).equals(Buffer.alloc(6, 7))).toBe(true);
    await file.close();
  });

  it('says that the device is full', async () => {
    const device = await openDiskFile(await open('/dev/full', 'r+'), 'device');
    await expect(write(device, 0, Buffer.from('x'))).rejects.toMatchObject({ kind: 'full' });
    expect(device.sizeBytes).toBe(0);
    await device.close();

    const folder = join(await temporaryFolder(), 'store');
    mkdirSync(folder);
    if (!mountTmpfs(folder, '1m')) return; // for root only; the device above has shown the error
    const disk = await makeDisk(folder);
    const file = await disk.open('big', { create: true });
    const block = Buffer.alloc(300_000, 1);
    let written = 0;
    const fill = async () => {
      for (; written < 10; written += 1) await write(file, written * block.length, block);
    };
    await expect(fill()).rejects.toMatchObject({ kind: 'full' });
    expect(written).toBe(3);
    expect(await readBack(file, 0, block.length)).toEqual(block);
    expect(disk.space().freeBytes).toBeLessThan(block.length);
    await file.resize(0); // space can be had again
    await write(file, 0, block);
    await file.close();
  });

  it.each([10, 11])('says that there is no room for a folder: %i inodes', async (inodes) => {
    const folder = join(await temporaryFolder(), 'store');
    mkdirSync(folder);
    if (!mountTmpfs(folder, `1m,nr_inodes=${inodes}`)) return; // for root only
    const disk = await makeDisk(folder);
    const fill = async () => {
      for (let count = 0; count < inodes; count += 1) {
        await (await disk.open(`${count}/file`, { create: true })).close();
      }
    };
    await expect(fill()).rejects.toMatchObject({ kind: 'full' });
  });
});

describe('the names of the store', () => {
  it('never lead out of its folder', async () => {
    const folder = await temporaryFolder();
    const disk = await makeDisk(join(folder, 'store'));
    writeFileSync(join(folder, 'secret'), 'secret');
    const bad = [
      '',
      '/',
      '/etc/passwd',
      '../secret',
      'a/../../secret',
      '.',
      './x',
      'a//b',
      'a/',
      'x\0',
      '.lock',
    ];
    for (const name of bad) {
      await expect(disk.open(name, { create: true })).rejects.toBeInstanceOf(DiskError);
      await expect(disk.remove(name)).rejects.toBeInstanceOf(DiskError);
      await expect(disk.rename(name, 'x')).rejects.toBeInstanceOf(DiskError);
    }
    symlinkSync(join(folder, 'secret'), join(folder, 'store', 'link'));
    await expect(disk.open('link', { create: false })).rejects.toMatchObject({ kind: 'failed' });
    expect(readFileSync(join(folder, 'secret'), 'utf8')).toBe('secret');
    await expect(disk.list('../')).rejects.toBeInstanceOf(DiskError);
  });

  it('are made, listed, renamed and removed', async () => {
    const folder = join(await temporaryFolder(), 'deep', 'store');
    const disk = await makeDisk(folder);
    expect(await disk.list('components')).toEqual([]);
    await expect(disk.open('components/b', { create: false })).rejects.toMatchObject({
      kind: 'missing',
    });
    for (const name of ['components/b', 'components/a', 'top']) {
      const file = await disk.open(name, { create: true });
      await write(file, 0, Buffer.from(name));
      await file.close();
    }
    expect(await disk.list('components')).toEqual(['components/a', 'components/b']);
    expect(await disk.list('')).toEqual(['components/a', 'components/b', 'top']);
    await disk.rename('components/a', 'components/b');
    await disk.rename('components/b', 'other/c');
    expect(readFileSync(join(folder, 'other/c'), 'utf8')).toBe('components/a');
    await expect(disk.rename('components/b', 'x')).rejects.toMatchObject({ kind: 'missing' });
    await disk.remove('other/c');
    await disk.remove('other/c');
    await disk.remove('never/was');
    expect(await disk.list('other')).toEqual([]);
  });

  it('belong to the owner alone', async () => {
    const folder = join(await temporaryFolder(), 'store');
    const disk = await makeDisk(folder);
    await (await disk.open('sub/file', { create: true })).close();
    const mode = (path: string) => statSync(join(folder, path)).mode & 0o777;
    expect([mode(''), mode('sub'), mode('sub/file'), mode('.lock')]).toEqual([
      0o700, 0o700, 0o600, 0o600,
    ]);
  });
});

describe('the store', () => {
  it('has the checksum that the model has', async () => {
    const disk = await makeDisk();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5000 }), (bytes) => {
        expect(disk.crc32(bytes)).toBe(crc32(bytes));
      }),
    );
  });

  it('has the same incarnation until the machine restarts', async () => {
    const folder = await temporaryFolder();
    const first = await openLocalDisk(folder);
    first.close();
    const second = await makeDisk(folder);
    expect(second.incarnation).toBe(first.incarnation);
    expect(second.incarnation).toContain(
      readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    );
    const { totalBytes, freeBytes } = second.space();
    expect(totalBytes).toBeGreaterThanOrEqual(freeBytes);
    expect(freeBytes).toBeGreaterThan(0);
  });

  it.runIf(canMount)(
    'has another incarnation when its device was taken out and put back',
    async () => {
      const folder = await temporaryFolder();
      const image = join(folder, 'image');
      const place = join(folder, 'place');
      mkdirSync(place);
      writeFileSync(image, '');
      truncateSync(image, 2 ** 26);
      run('mkfs.ext4', '-q', image);
      cleanUp(() => {
        const [loop] = run('losetup', '--noheadings', '--output', 'NAME', '-j', image).split('\n');
        if (loop) run('losetup', '--detach', loop.trim());
      });
      const loop = run('losetup', '--find', '--show', image).trim();
      async function look() {
        run('mount', loop, place);
        try {
          const disk = await openLocalDisk(join(place, 'store'));
          disk.close();
          return { dev: statSync(place).dev, incarnation: disk.incarnation };
        } finally {
          run('umount', place);
        }
      }
      const before = await look();
      expect(await look()).toEqual(before);
      run('losetup', '--detach', loop);
      try {
        run('losetup', loop, image);
      } catch {
        return; // another test has it now
      }
      const after = await look();
      expect(after.dev).toBe(before.dev);
      expect(after.incarnation).not.toBe(before.incarnation);
    },
  );

  it('is used by one daemon at a time', async () => {
    const folder = await temporaryFolder();
    const first = await openLocalDisk(folder);
    await expect(openLocalDisk(folder)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining(`process ${process.pid}`),
    });
    first.close();
    (await openLocalDisk(folder)).close();
  });

  it('is waited for as long as a process that was killed has it', async () => {
    const folder = await temporaryFolder();
    const lock = join(folder, '.lock');
    const holder = await holderOf(lock);
    await expect(openLocalDisk(folder)).rejects.toMatchObject({ code: 'conflict' });
    writeFileSync(lock, await zombie());
    let isOpen = false;
    const opening = openLocalDisk(folder).then((disk) => {
      isOpen = true;
      disk.close();
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(isOpen).toBe(false);
    holder.kill('SIGKILL');
    await opening;
  });

  it('is taken from a killed process that goes away just after the lock was refused', async () => {
    const folder = await temporaryFolder();
    const lock = join(folder, '.lock');
    const holder = await holderOf(lock);
    writeFileSync(lock, await zombie());
    const programs = await temporaryFolder();
    const real = execFileSync('sh', ['-c', 'command -v flock'], { encoding: 'utf8' }).trim();
    const script = `#!/bin/sh
      "${real}" "$@"; code=$?
      : > '${lock}'
      kill -9 ${holder.pid}
      exit $code`;
    writeFileSync(join(programs, 'flock'), script, { mode: 0o755 });
    vi.stubEnv('PATH', `${programs}:${process.env['PATH']}`);
    cleanUp(() => vi.unstubAllEnvs());
    (await openLocalDisk(folder)).close();
  });

  it('is free again as soon as its daemon was killed, even if that left children', async () => {
    const folder = await temporaryFolder();
    const script = `
      const { spawn } = await import('node:child_process');
      const { lockStore } = await import(process.argv[1]);
      await lockStore(process.argv[2]);
      const child = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
      console.log(child.pid);
      setInterval(() => {}, 1000);`;
    const module = await compiled('platform/store-lock.ts');
    const holder = spawn(process.execPath, [
      '--input-type=module',
      '-e',
      script,
      module,
      join(folder, '.lock'),
    ]);
    cleanUp(() => holder.kill('SIGKILL'));
    const child = await new Promise<number>((resolve) =>
      holder.stdout.once('data', (bytes) => resolve(Number(bytes))),
    );
    cleanUp(() => process.kill(child, 'SIGKILL'));
    await expect(openLocalDisk(folder)).rejects.toMatchObject({
      message: expect.stringContaining(`process ${holder.pid}`),
    });
    const ended = new Promise((resolve) => holder.once('exit', resolve));
    holder.kill('SIGKILL');
    await ended;
    (await openLocalDisk(folder)).close();
    process.kill(child, 0); // it lives still
  });
});

describe('a file that is replaced', () => {
  it('has the mode asked for, and leaves no draft', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'key');
    writeFileSync(join(folder, '.key.new'), 'of a killed writer', { mode: 0o644 });
    await writeFileDurably(path, 'one');
    await writeFileDurably(path, 'two');
    expect(readFileSync(path, 'utf8')).toBe('two');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    mkdirSync(join(folder, 'occupied', 'x'), { recursive: true });
    await expect(writeFileDurably(join(folder, 'occupied'), 'x')).rejects.toThrow(/rename/);
    expect(execFileSync('ls', ['-A', folder], { encoding: 'utf8' }).split('\n')).toEqual([
      'key',
      'occupied',
      '',
    ]);
  });
});

const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });

function mountTmpfs(folder: string, size: string): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder], {
      stdio: 'ignore',
    });
  } catch {
    return false;
  }
  cleanUp(() => execFileSync('umount', ['-l', folder]));
  return true;
}

/** A process that has the lock until it is killed. */
async function holderOf(lock: string) {
  const holder = spawn('flock', ['--no-fork', lock, 'sh', '-c', 'echo has it; exec sleep 60']);
  cleanUp(() => holder.kill('SIGKILL'));
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  return holder;
}

/** The id of a process that was killed and is not gone: its parent is a program that does not ask for it. */
async function zombie(): Promise<string> {
  const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 60']);
  cleanUp(() => parent.kill('SIGKILL'));
  const pid = await new Promise<string>((resolve) =>
    parent.stdout.once('data', (bytes) => resolve(String(bytes).trim())),
  );
  const status = (id?: number | string) => readFileSync(`/proc/${id}/status`, 'utf8');
  await vi.waitFor(() => expect(status(parent.pid)).toMatch(/^Name:\s*sleep$/m), 10_000);
  process.kill(Number(pid), 'SIGKILL');
  await vi.waitFor(() => expect(status(pid)).toMatch(/^State:\s*Z/m), 10_000);
  return pid;
}
