// Another policy for a disk that is in use, on real daemons: while a client writes, copies are added or the
// data is spread over stripes, and in the middle of that a daemon is killed that has to do with it. Nothing that was
// acknowledged is missing, whichever host serves it then, and nothing is left of what it was made of before.

import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ObjectReply } from '../../src/api/storage-schemas.ts';
import { difference, unnamedFiles } from '../crash/copies.ts';
import { Daemons } from '../crash/daemons.ts';
import { DiskLoad } from '../crash/disk-load.ts';
import { Findings } from '../crash/findings.ts';
import { SeededRandom } from '../support/seeded-random.ts';
import { until } from './support/real-cluster.ts';

const MiB = 1024 * 1024;
const findings = new Findings();
const random = new SeededRandom(1);
let daemons: Daemons;
let load: DiskLoad;

beforeAll(async () => {
  daemons = new Daemons(5, random.stream('hosts'), findings);
  await daemons.begin();
  const disk = { sizeBytes: 64 * MiB };
  const hosts = ['host-1', 'host-2', 'host-3'];
  const policy = { failuresToTolerate: 1, stripes: 1 };
  await daemons
    .client('host-1')
    .createVm({ name: 'db', memoryBytes: 96 * MiB, disks: [disk], hosts, policy });
  load = new DiskLoad({
    ...{ folder: daemons.cluster.folder, vm: 'db', number: 1, ...disk, isThick: false },
    ...{ random: random.stream('load'), findings, anyHost: daemons.anyHost },
  });
  load.start();
  await written(200);
});
afterAll(async () => {
  await load.end();
  await daemons.end();
});

/** So many writes more than now. */
async function written(more: number): Promise<void> {
  const before = findings.of('writes acknowledged');
  await until('the client writes', () => findings.of('writes acknowledged') >= before + more);
}

const object = (host: string): Promise<ObjectReply> => daemons.client(host).object('db/disk0');

async function setPolicy(policy: string): Promise<void> {
  await daemons.cluster.ask('host-4', 'disk', 'set-policy', 'db/disk0', policy);
}

/** Asks whoever serves it, until it says so. */
async function seen(what: string, isSo: (one: ObjectReply) => boolean): Promise<ObjectReply> {
  let last: ObjectReply | null = null;
  await until(what, async () => {
    if (load.host === null || !daemons.isUp(load.host)) return false;
    last = await object(load.host).catch(() => null);
    return last !== null && isSo(last);
  });
  return last as unknown as ObjectReply;
}

async function killAndReturn(victim: string): Promise<void> {
  await daemons.kill(victim);
  await written(50);
  await daemons.start(victim);
}

/** All of it is read through another host and compared, and so are the files. */
async function isWhole(policy: { failuresToTolerate: number; stripes: number }): Promise<void> {
  const { failuresToTolerate: f, stripes } = policy;
  const done = await seen(
    'it is as its policy says',
    (one) =>
      one.policy.stripes === stripes &&
      one.next.length === 0 &&
      one.problems.length === 0 &&
      one.components.length === (f + 1) * stripes &&
      new Set(one.voters).size === 2 * f + 1,
  );
  expect(new Set(done.components.map(({ host }) => host)).size).toBe(f + 1);
  await written(50);
  await load.quiet(true);
  await seen('every copy counts', (one) => one.components.every(({ state }) => state === 'active'));
  const { folder } = daemons.cluster;
  expect(difference(folder, await object('host-5'))).toBe(null);
  await until('what it was made of is gone', async () => {
    const objects = await daemons.client('host-5').objects();
    return unnamedFiles(folder, daemons.hosts, objects).length === 0;
  });
  daemons.listen();
  expect(findings.violations).toEqual([]);
  load.resume();
}

it('gets a copy and voters more, and the daemon that takes the copy is killed', async () => {
  await setPolicy('mirror-3');
  const { components } = await seen('a copy is being made', (one) =>
    one.components.some(({ state }) => state === 'resyncing'),
  );
  const taker = components.find(({ state }) => state === 'resyncing')?.host as string;
  await killAndReturn(taker);
  await isWhole({ failuresToTolerate: 2, stripes: 1 });
});

it('is spread over stripes, and the daemon that serves it is killed', async () => {
  const wide = { failuresToTolerate: 1, stripes: 2 };
  await daemons.client('host-4').createPolicy({ name: 'wide', ...wide });
  await setPolicy('wide');
  await seen('the stripes are being filled', (one) => one.next.length > 0);
  await killAndReturn(load.host as string);
  await isWhole(wide);
});
