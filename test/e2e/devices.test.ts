// A host's further devices on real daemons: an operator adds them, a policy asks for them, and one that vanishes
// under a running daemon takes with it what is on it and nothing else, while a client writes. A folder that
// is moved away stands for a file system that was unmounted: files that are open still take writes.

import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ApiClient, createClient } from '../../src/api/client.ts';
import type { ObjectReply } from '../../src/api/storage-schemas.ts';
import { difference } from '../crash/copies.ts';
import { DiskLoad } from '../crash/disk-load.ts';
import { Findings } from '../crash/findings.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { RealCluster, until } from './support/real-cluster.ts';

const MiB = 1024 * 1024;
const hosts = ['host-1', 'host-2', 'host-3'];
const withDevice = ['host-1', 'host-2'];
const findings = new Findings();
const sizeBytes = 16 * MiB;
let cluster: RealCluster;
let client: ApiClient;
let load: DiskLoad;

const place = (host: string): string => join(cluster.folder, host, 'nvme');
const addDevice = (host: string, ...flags: string[]) => {
  const config = join(cluster.folder, host, 'config.yaml');
  const what = ['--class', 'fast', '--config', config, ...flags];
  return cluster.run('host', 'add-device', place(host), ...what);
};

beforeAll(async () => {
  cluster = new RealCluster();
  await cluster.start(3);
  client = createClient([cluster.socket('host-1')]);
  await Promise.all(
    withDevice.map(async (host) => {
      mkdirSync(place(host));
      expect(await addDevice(host)).toMatchObject({
        status: 1,
        err: expect.stringContaining('nothing is mounted at'),
      });
      expect(await addDevice(host, '--shared')).toMatchObject({
        status: 0,
        out: expect.stringContaining('restart the daemon'),
      });
      cluster.killDaemon(host);
      await cluster.boot(host);
    }),
  );
  const policy = { failuresToTolerate: 1, stripes: 1 };
  await cluster.ask(
    'host-3',
    ...'policy create quick --failures-to-tolerate 1 --class fast'.split(' '),
  );
  await until('the policy is known', async () =>
    (await client.policies()).some(({ name }) => name === 'quick'),
  );
  await client.createVm({
    name: 'db',
    memoryBytes: 96 * MiB,
    disks: [
      { sizeBytes, policy: 'quick' },
      { sizeBytes, policy },
    ],
    hosts,
  });
  load = new DiskLoad({
    ...{ folder: cluster.folder, vm: 'db', number: 1, sizeBytes, isThick: false, findings },
    ...{ random: new SeededRandom(1), anyHost: () => ({ host: 'host-1', client }) },
  });
  load.start();
  await written(100);
});
afterAll(async () => {
  await load.end();
  await cluster.end();
});

/** So many writes more than now. */
async function written(more: number): Promise<void> {
  const before = findings.of('writes acknowledged');
  await until('the client writes', () => findings.of('writes acknowledged') >= before + more);
}

async function copies(disk: 'disk0' | 'disk1'): Promise<string[]> {
  const { components } = await client.object(`db/${disk}`);
  return components.map(({ host, device, state }) => `${host} ${device} ${state}`).sort();
}

const usual = ['host-1 main active', 'host-2 main active'];
const quick = () => withDevice.map((host) => `${host} ${place(host)} active`);

/** The copy on this host's device does not count, and every other does, as do all votes. */
async function losesOnlyIts(host: string): Promise<void> {
  await until(`the disk does without the copy on ${host}, and all else is there`, async () => {
    const { inSync, votes } = await client.object('db/disk0');
    return (
      inSync.length === 1 &&
      votes.every(({ state }) => state === 'reachable') &&
      (await copies('disk0')).includes(`${host} ${place(host)} degraded`)
    );
  });
  expect(await copies('disk1')).toEqual(usual);
  expect(await problem(host)).not.toBeNull();
  await written(50);
}

async function problem(host: string): Promise<string | null> {
  const found = (await client.hosts()).find(({ name }) => name === host);
  return found?.devices[1]?.problem ?? null;
}

/** Both copies count, on these very devices, and hold the same bytes, which are what was written. */
async function isWhole(): Promise<void> {
  await until('both copies count', async () =>
    (await copies('disk0')).every((one) => one.endsWith('active')),
  );
  expect(await copies('disk0')).toEqual(quick());
  await load.quiet(true);
  const object: ObjectReply = await client.object('db/disk0');
  expect(difference(cluster.folder, object)).toBe(null);
  expect(findings.violations).toEqual([]);
  load.resume();
}

it('are used by policies of their class, and shown', async () => {
  expect(await copies('disk0')).toEqual(quick());
  expect(await copies('disk1')).toEqual(usual);
  expect(await cluster.json('host-3', 'host', 'show', 'host-2')).toMatchObject({
    devices: [
      { name: 'main', class: 'large', problem: null, components: 1 },
      { name: place('host-2'), class: 'fast', problem: null, components: 1 },
    ],
  });
});

it('are lost alone while their daemon serves a disk, and come back', async () => {
  const away = `${place('host-1')}.away`;
  renameSync(place('host-1'), away);
  await losesOnlyIts('host-1');
  expect(await problem('host-1')).toMatch(/not there any more/);
  renameSync(away, place('host-1'));
  await isWhole();
  expect(await problem('host-1')).toBeNull();
});

it('may be missing when the daemon starts, and are used when they are there', async () => {
  const away = `${place('host-2')}.away`;
  renameSync(place('host-2'), away);
  await losesOnlyIts('host-2');
  cluster.killDaemon('host-2');
  await cluster.boot('host-2');
  await losesOnlyIts('host-2');
  renameSync(away, place('host-2'));
  await isWhole();
});

it('may be replaced by an empty one, which the copy is made anew on', async () => {
  const before = await client.object('db/disk0');
  rmSync(place('host-2'), { recursive: true });
  mkdirSync(place('host-2'));
  await losesOnlyIts('host-2');
  expect((await addDevice('host-2', '--shared')).out).toContain('A running daemon takes it');
  await isWhole();
  const after = await client.object('db/disk0');
  expect(after.components[1]?.component).not.toBe(before.components[1]?.component);
});
