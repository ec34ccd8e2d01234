// VMs with disks on storage that all hosts see: what they are accessible for, where they are started, and
// that the guests of two epochs never write at the same time.

import { beforeEach, describe, expect, it } from 'vitest';
import type { VmRequest } from '../../src/manager/api.ts';
import { hostId } from '../../src/model/ids.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
const unseen = 'No such file or directory';
let cluster: Cluster;

const manager = (host = 'host-3') => cluster.machine(host).manager;
const web = (host?: string) => manager(host).vm('web');
const starts = (from = 0) =>
  cluster.points
    .slice(from)
    .flatMap((point) => (point.at === 'ha.restarting' ? [point.on as string] : []));
const hide = (host: string, problem: string | null = unseen) => {
  cluster.machine(host).virtual.sharedStorageProblem = problem;
};

beforeEach(async () => {
  cluster = new Cluster({ hosts: 4 });
  await cluster.start();
});

async function run(request: Partial<VmRequest> = {}): Promise<void> {
  await cluster.runWeb({ disks: [{ path: '/mnt/nfs/web.img' }], ...request });
  await cluster.until(() => web().protection.status === 'protected', 10_000);
}

async function writesOn(host: string): Promise<void> {
  await cluster.until(() => cluster.running('web').includes(hostId(host)), 30_000);
  const before = cluster.writes('web');
  await cluster.run(5000);
  expect(cluster.writes('web')).toBeGreaterThan(before + 10);
  expect(cluster.running('web')).toEqual([host]);
  cluster.assertSafe();
}

describe('a VM whose only disk is a path', () => {
  it('has the namespace object alone, and is failed over with what it wrote', async () => {
    await run();
    expect(web().objects.map(({ kind }) => kind)).toEqual(['namespace']);
    expect(web().spec.disks).toEqual([{ name: 'disk0', path: '/mnt/nfs/web.img', format: 'raw' }]);
    cluster.machine('host-1').crash();
    await writesOn('host-2');
    expect(starts()).toEqual(['host-2']);
    expect(cluster.boots('web')).toBe(2);
  });

  it('waits while nobody can take its lock, and for nothing else', async () => {
    await run();
    for (const host of ['host-1', 'host-2']) cluster.machine(host).crash();
    await cluster.run(20_000);
    expect(web()).toMatchObject({ accessible: false, power: 'unknown' });
    expect(cluster.running('web')).toEqual([]);
    await cluster.machine('host-2').boot();
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    cluster.assertSafe();
  });

  it('is tried on the hosts that see the path before one again that does not', async () => {
    await run();
    hide('host-2');
    hide('host-3');
    cluster.machine('host-1').crash();
    await writesOn('host-4');
    expect(starts()).toEqual(['host-2', 'host-3', 'host-4']);
    expect(web().epoch).toBe(3); // no lock was taken in vain
  });

  it('waits with the reason while no host sees the path, and starts when one does', async () => {
    await run();
    for (const host of ['host-2', 'host-3', 'host-4']) hide(host);
    cluster.machine('host-1').crash();
    await cluster.run(30_000);
    const [waiting] = manager('host-2').status().waiting;
    expect(waiting).toMatchObject({ name: 'web', reason: 'retry' });
    expect(waiting?.text).toMatch(
      /VM web: its disk0, \/mnt\/nfs\/web.img, can not be used on host-\d: No such file/,
    );
    // Rounds become rare: at least 0.5, 1, 2, 4, 8 and then 15 seconds lie between them.
    expect(starts().length).toBeLessThanOrEqual(6 * 3);
    hide('host-3', null);
    await writesOn('host-3');
  });

  it('is not started by its user where the path is not seen', async () => {
    await cluster.makeWeb({ disks: [{ path: '/mnt/nfs/web.img' }] });
    hide('host-2');
    await expect(
      cluster.wait(manager().startVm('web', { on: hostId('host-2') })),
    ).rejects.toMatchObject({ code: 'path-unusable' });
    expect(web()).toMatchObject({ epoch: 1, power: 'off' });
    await cluster.wait(manager().startVm('web', { on: hostId('host-3') }));
    await writesOn('host-3');
  });

  it('stands still on a host that is cut off before another one starts it', async () => {
    await run();
    cluster.world.isolate('both', 'host-1');
    await cluster.until(() => cluster.running('web').includes(hostId('host-2')), 30_000);
    expect(cluster.machine('host-1').guest('web').state).toBe('paused');
    cluster.world.heal('both');
    await cluster.until(() => cluster.machine('host-1').virtual.guest('web') === null, 10_000);
    await writesOn('host-2');
  });
});

describe('a VM with disks of both kinds', () => {
  const disks = [{ sizeBytes: 4 * MiB }, { path: '/mnt/nfs/web.qcow2' }, { sizeBytes: 4 * MiB }];

  it('has them in their order, wherever it runs', async () => {
    await run({ disks });
    expect(web().spec.disks.map(({ name }) => name)).toEqual(['disk0', 'disk1', 'disk2']);
    expect(web().spec.disks[1]).toMatchObject({ format: 'qcow2' });
    expect(web().objects.map(({ name }) => name)).toEqual(['web', 'disk0', 'disk2']);
    expect(cluster.machine('host-1').guest('web').diskNames).toEqual(['disk0', 'disk1', 'disk2']);
    cluster.machine('host-1').crash();
    await writesOn('host-2');
    expect(cluster.machine('host-2').guest('web').diskNames).toEqual(['disk0', 'disk1', 'disk2']);
  });

  it('goes on with all of them when its daemon was killed', async () => {
    await run({ disks });
    cluster.machine('host-1').killDaemon();
    await cluster.machine('host-1').boot();
    await writesOn('host-1');
    expect(cluster.boots('web')).toBe(1);
  });

  it('does without an object that it does not require, and gets it later', async () => {
    const hosts = ['host-1', 'host-2', 'host-3'].map(hostId);
    const optional = { sizeBytes: 4 * MiB, required: false, policy: 'single' };
    await cluster.makeWeb({
      disks: [{ path: '/mnt/nfs/web.img' }, optional],
      objectHosts: { namespace: hosts, disk1: [hostId('host-4')] },
    });
    cluster.machine('host-4').crash();
    await cluster.run(5000);
    await cluster.wait(manager('host-1').startVm('web', { on: hostId('host-1') }));
    await cluster.run(2000);
    expect(web()).toMatchObject({ detached: ['disk1'], power: 'running' });
    await cluster.machine('host-4').boot();
    await cluster.until(() => web('host-1').detached.length === 0, 30_000);
    expect(cluster.machine('host-1').guest('web').diskNames).toEqual(['disk0', 'disk1']);
    await writesOn('host-1');
  });

  it('is not asked of a path what only objects have', async () => {
    await cluster.makeWeb({ disks });
    const refusal = { code: 'bad-request', message: /disk1 of VM web is \/mnt\/nfs\/web.qcow2/ };
    const refused = { code: refusal.code, message: expect.stringMatching(refusal.message) };
    await expect(manager().setDiskPolicy('web', 'disk1', 'single')).rejects.toMatchObject(refused);
    await expect(manager().setRequired('web', 'disk1', false)).rejects.toMatchObject(refused);
    const serving = { disk: 'disk1', socket: '/s', readOnly: false, onEnded: () => {} };
    await expect(manager().serveDisk('web', serving)).rejects.toMatchObject(refused);
    await cluster.wait(manager().setDiskPolicy('web', 'disk2', 'single'));
    expect(web().spec.disks[1]).toEqual({
      name: 'disk1',
      path: '/mnt/nfs/web.qcow2',
      format: 'qcow2',
    });
  });
});

describe('a request', () => {
  const make = (request: Partial<VmRequest>) =>
    cluster.wait(manager().createVm({ name: 'db', memoryBytes: 96 * MiB, disks: [], ...request }));

  it.each<[string, Partial<VmRequest>, string, RegExp]>([
    [
      'a relative path',
      { disks: [{ path: 'web.img' }] },
      'bad-request',
      /^disks\[0\].path: expected/,
    ],
    [
      'a winding path',
      { disks: [{ path: '/a/../b' }] },
      'bad-request',
      /^disks\[0\].path: expected/,
    ],
    ['an empty path', { disks: [{ path: '' }] }, 'bad-request', /^disks\[0\].path: expected/],
    ['a line break', { disks: [{ path: '/a\nb' }] }, 'bad-request', /control characters, found/],
    [
      'a size of what is there',
      { disks: [{ path: '/a', sizeBytes: MiB }] },
      'bad-request',
      /^disks\[0\].sizeBytes: a disk with a `path`/,
    ],
    [
      'a format of an object',
      { disks: [{ sizeBytes: MiB, format: 'raw' }] },
      'bad-request',
      /^disks\[0\].format: only a disk with a `path`/,
    ],
    ['neither', { disks: [{}] }, 'bad-request', /^disks\[0\]: expected sizeBytes/],
    [
      'a policy for no object',
      { disks: [{ path: '/a' }], policy: 'mirror' },
      'bad-request',
      /^policy: the VM has no disk object/,
    ],
    [
      'hosts of no object',
      { disks: [{ path: '/a' }], objectHosts: { disk0: [hostId('host-1')] } },
      'bad-request',
      /^objectHosts.disk0: there is no such object; known: namespace/,
    ],
    [
      'one path twice',
      { disks: [{ path: '/a' }, { path: '/a' }] },
      'name-in-use',
      /^disk1 of VM db: its disk0 has \/a$/,
    ],
    [
      'the path of another VM',
      { disks: [{ path: '/mnt/nfs/web.img' }] },
      'name-in-use',
      /^disk0 of VM db: VM web has \/mnt/,
    ],
  ])('is refused with %s', async (_what, request, code, message) => {
    await cluster.makeWeb({ disks: [{ path: '/mnt/nfs/web.img' }] });
    await expect(make(request)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(
      manager()
        .vms()
        .map(({ name }) => name),
    ).toEqual(['web']);
  });
});
