// `holdfast disk serve` on real daemons, with NBD clients that we did not write: what they write is on all
// copies, what they trim takes no space on any, and while one of them is served nobody else has the VM.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { DiskServices, type Service, Tools } from './support/disk-service.ts';
import { RealCluster, until } from './support/real-cluster.ts';

const MiB = 1024 * 1024;
const sizeMiB = 96;
const hosts = ['host-1', 'host-2', 'host-3'];

let cluster: RealCluster;
let services: DiskServices;
let tools: Tools;
const done = (name: string, ...args: string[]): Promise<string> => tools.done(name, ...args);

beforeAll(async () => {
  cluster = new RealCluster();
  services = new DiskServices(cluster, 'db/disk0');
  tools = new Tools(cluster.folder);
  await cluster.start(3);
  await cluster.ask('host-1', 'vm', 'create', 'db', '--memory', '96MiB', '--disk', `${sizeMiB}MiB`);
});
afterEach(async () => {
  await services.endAll();
});
afterAll(async () => {
  await cluster.end();
});

const serve = (host = 'host-1', ...flags: string[]): Promise<Service> =>
  services.serve(host, ...flags);

/** The lock is given back: nothing says any more that the disk is served. */
async function isFree(): Promise<void> {
  await until('the lock is free', async () => {
    const { note } = await cluster.json<{ note: string | null }>('host-1', 'vm', 'show', 'db');
    return note === null;
  });
}

/** Bytes that the disk takes on each host that has a copy of it, as `du` counts them. */
function taken(): number[] {
  return hosts.flatMap((host) => {
    const folder = join(cluster.folder, host, 'data', 'store', 'components');
    if (!existsSync(folder)) return [];
    const files = readdirSync(folder).filter((name) => name.endsWith('.data'));
    return files.map((name) => statSync(join(folder, name)).blocks * 512);
  });
}

function image(name: string, fromMiB: number, toMiB: number): string {
  const bytes = new Uint8Array(sizeMiB * MiB);
  for (let at = fromMiB * MiB, state = fromMiB + 1; at < toMiB * MiB; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
    bytes[at] = (state >>> 16) | 1;
  }
  const path = join(cluster.folder, name);
  writeFileSync(path, bytes);
  return path;
}

const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

describe('holdfast disk serve', () => {
  it('serves what NBD clients need to know', async () => {
    const { uri } = await serve();
    const info = JSON.parse(await done('nbdinfo', '--json', uri)) as { exports: object[] };
    expect(info.exports[0]).toMatchObject({
      'export-size': sizeMiB * MiB,
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_trim: true,
      can_zero: true,
      can_multi_conn: true,
      contexts: ['base:allocation'],
    });
    expect(await done('nbdinfo', '--map', '--totals', uri)).toMatch(/100\.0%\s+3 hole,zero/);
  });

  it('takes images in and gives them out, and gives space back where they are empty', async () => {
    const { uri } = await serve();
    const full = image('full.img', 0, 64);
    await done('nbdcopy', '--flush', '--connections=4', full, uri);
    expect(taken()).toHaveLength(2);
    for (const bytes of taken()) expect(bytes).toBeGreaterThan(63 * MiB);
    await done('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', full, uri);
    await done('nbdcopy', uri, 'out.img');
    expect(digest(join(cluster.folder, 'out.img'))).toBe(digest(full));

    // A sparse image over it: its holes are zeroed, which frees them on every copy.
    const sparse = image('sparse.img', 40, 44);
    await done('nbdcopy', '--flush', sparse, uri);
    await done('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', sparse, uri);
    for (const bytes of taken()) expect(bytes).toBeLessThan(8 * MiB);
    const map = await done('qemu-img', 'map', '--output=json', '-f', 'raw', uri);
    const blocks = (JSON.parse(map) as { length: number; data: boolean }[]).filter(
      (one) => one.data,
    );
    expect(blocks.map((one) => one.length)).toEqual([4 * MiB]);
  });

  it('is the bottom of a format that QEMU checks', async () => {
    const { uri } = await serve();
    const source = image('source.img', 8, 24);
    await done('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', source, uri);
    expect(await done('qemu-img', 'check', '-f', 'qcow2', uri)).toMatch(/No errors were found/);
    await done('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', source, uri);
  });

  it('stands fio with verification, and then trims all of it', async () => {
    const { uri } = await serve();
    const common = ['--name=job', '--ioengine=nbd', `--uri=${uri}`, '--thread', '--randseed=7'];
    const verify = [
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--do_verify=1',
    ];
    const mixed = ['--bs=4k', '--iodepth=16', '--size=48m', '--io_size=16m', '--fsync=64'];
    await done('fio', ...common, '--rw=randwrite', ...mixed, ...verify);
    await done('fio', ...common, '--rw=trim', '--bs=1m', `--size=${sizeMiB}m`);
    for (const bytes of taken()) expect(bytes).toBeLessThan(2 * MiB);
    expect(await done('nbdinfo', '--map', '--totals', uri)).toMatch(/100\.0%\s+3 hole,zero/);
  });

  it('keeps everybody else off while it lasts, and says who has it', async () => {
    const { socket, end } = await serve();
    const why = `its disk0 is served by \`holdfast disk serve\` on host-1 at ${socket}`;
    for (const host of hosts) {
      // What one host knows the others hear in a moment.
      await until(`${host} knows`, async () =>
        (await cluster.ask(host, 'vm', 'show', 'db')).includes(why),
      );
      for (const command of [['start'], ['remove']]) {
        const refused = await cluster.run('--socket', cluster.socket(host), 'vm', ...command, 'db');
        expect(refused.status).not.toBe(0);
        expect(refused.err).toContain(why);
      }
    }
    const second = services.begin('host-2');
    expect(await second.exited).not.toBe(0);
    expect(second.text.err).toContain(why);
    expect(await end('SIGINT')).toBe(0);
    await isFree();
    expect(existsSync(socket)).toBe(false);
    // And then the VM has its disk again.
    const { id } = await cluster.json<{ id: string }>('host-1', 'vm', 'show', 'db');
    await cluster.ask('host-1', 'vm', 'start', 'db', '--on', 'host-2');
    await until('the guest writes', () => cluster.reports('host-2', id).wrote > 3);
    const third = services.begin('host-1');
    expect(await third.exited).not.toBe(0);
    expect(third.text.err).toMatch(/db is running on host-2; .*only while its VM is off/);
    await cluster.ask('host-1', 'vm', 'stop', 'db', '--force');
    await isFree();
  });

  it('ends with its command, however that ends, and keeps what was flushed', async () => {
    const first = await serve();
    const data = image('data.img', 2, 6);
    await done('nbdcopy', '--flush', data, first.uri);
    await first.end('SIGKILL');
    await isFree();
    const second = await serve('host-3', '--read-only');
    expect((await tools.run('nbdinfo', '--is', 'read-only', second.uri)).status).toBe(0);
    expect((await tools.run('nbdcopy', image('other.img', 0, 9), second.uri)).status).not.toBe(0);
    await done('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', data, second.uri);
  });

  it('says what is wrong with what was asked for', async () => {
    const ask = (...args: string[]) =>
      cluster.run('--socket', cluster.socket('host-1'), 'disk', 'serve', ...args);
    const path = join(cluster.folder, 'nowhere', 'x.sock');
    const cases: [string[], RegExp][] = [
      [['db'], /--socket/],
      [['db', '--socket', path], /Expected VM\/DISK/],
      [['db/disk7', '--socket', path], /no disk "disk7"; it has disk0/],
      [['nope/disk0', '--socket', path], /There is no VM nope/],
      [['db/disk0', '--socket', path], /can not be served/],
    ];
    for (const [args, message] of cases) {
      const { status, err } = await ask(...args);
      expect(status).not.toBe(0);
      expect(err).toMatch(message);
    }
    await isFree();
  });

  it('ends with its daemon, and says so', async () => {
    const service = await serve('host-2');
    cluster.killDaemon('host-2');
    expect(await service.exited).not.toBe(0);
    expect(service.text.err).toMatch(/is gone .*served no longer/);
    await cluster.boot('host-2');
    await isFree();
    await serve('host-2');
  });
});
