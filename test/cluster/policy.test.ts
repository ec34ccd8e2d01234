// Another policy for a disk that exists, while its guest writes: what becomes of its copies, its stripes and
// its voters, seen through the managers of whole hosts.

import { beforeEach, describe, expect, it } from 'vitest';
import type { ObjectInfo } from '../../src/manager/api.ts';
import type { StoragePolicy } from '../../src/model/policy.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

const manager = (host = 'host-1') => cluster.machine(host).manager;
const disk = (host?: string): ObjectInfo => manager(host).object('web/disk0');
const namespace = (host?: string): ObjectInfo => manager(host).object('web/namespace');
const dataHosts = (one: ObjectInfo) => new Set(one.components.map((part) => part.host));
const stripes = (one: ObjectInfo) => 1 + Math.max(...one.components.map((part) => part.stripe));

beforeEach(async () => {
  cluster = new Cluster({ hosts: 6 });
  await cluster.start();
  await cluster.runWeb({ disks: [{ sizeBytes: 8 * MiB }] });
});

async function setPolicy(policy: StoragePolicy, host?: string): Promise<void> {
  await cluster.wait(manager(host).setDiskPolicy('web', 'disk0', policy));
}

/** It is as the policy says, and so is its namespace object. */
async function becomes(policy: StoragePolicy, host = 'host-1'): Promise<void> {
  const { failuresToTolerate: f } = policy;
  await cluster.until(() => {
    const one = disk(host);
    return (
      one.problems.length === 0 &&
      one.next.length === 0 &&
      dataHosts(one).size === f + 1 &&
      one.components.length === (f + 1) * policy.stripes &&
      new Set(one.voters).size === 2 * f + 1 &&
      namespace(host).problems.length === 0 &&
      namespace(host).policy.failuresToTolerate === Math.max(1, f) &&
      namespace(host).voters.length === Math.max(3, 2 * f + 1)
    );
  }, 60_000);
}

async function keepsWriting(): Promise<void> {
  const before = cluster.writes('web');
  await cluster.run(3000);
  expect(cluster.writes('web')).toBeGreaterThan(before + 5);
  cluster.assertSafe();
}

describe('another policy for a disk whose guest writes', () => {
  it('adds copies and voters, to the namespace object as well, and takes them away again', async () => {
    const mirror3 = { failuresToTolerate: 2, stripes: 1 };
    await setPolicy(mirror3, 'host-4');
    expect(disk('host-4').problems.join()).toMatch(/2 of the 3 whole copies/);
    await becomes(mirror3);
    expect(new Set(namespace().voters)).toEqual(new Set(disk().voters));
    expect(namespace().policy.failuresToTolerate).toBe(2);
    expect(manager().vm('web').spec.disks[0]).toMatchObject({ policy: mirror3 });
    await keepsWriting();

    // It survives now what it says: two hosts with data, of which one runs it.
    const [, other] = [...dataHosts(disk())].filter((host) => host !== 'host-1');
    cluster.machine('host-1').crash();
    cluster.machine(other as string).crash();
    const seen = cluster.machines.find((one) => one.host !== null)?.name as string;
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    await cluster.machine('host-1').boot();
    await cluster.machine(other as string).boot();
    await becomes(mirror3, seen);
    await keepsWriting();

    const mirror = { failuresToTolerate: 1, stripes: 1 };
    await setPolicy(mirror);
    await becomes(mirror);
    await keepsWriting();
    const single = { failuresToTolerate: 0, stripes: 1 };
    await setPolicy(single);
    await becomes(single);
    // The namespace object goes on tolerating what is usual.
    expect(namespace().voters).toHaveLength(3);
    await keepsWriting();
    expect(cluster.boots('web')).toBe(2);
  });

  it('spreads it over other stripes, thin or thick, and more copies at the same time', async () => {
    const wide = { failuresToTolerate: 1, stripes: 3 };
    await setPolicy(wide);
    await becomes(wide);
    expect(stripes(disk())).toBe(3);
    expect(disk().inSync).toHaveLength(6);
    await keepsWriting();
    const thick = { failuresToTolerate: 2, stripes: 2, thick: true };
    await setPolicy(thick);
    await becomes(thick);
    await keepsWriting();
    const plain = { failuresToTolerate: 1, stripes: 1 };
    await setPolicy(plain);
    await becomes(plain);
    await keepsWriting();
    // Files of what the disk was made of before are gone.
    for (const { virtual } of cluster.machines) {
      const files = [...virtual.disk.files.keys()].filter((file) => file.endsWith('.data'));
      const named = disk().components.filter((part) => part.host === virtual.name);
      expect(files).toEqual(named.map((part) => `components/${part.component}.data`));
    }
    expect(cluster.boots('web')).toBe(1);
  });

  it('says on every host how far it is, and how long it takes', async () => {
    for (const { virtual } of cluster.machines) virtual.disk.slowerByMs = 200;
    await setPolicy({ failuresToTolerate: 1, stripes: 2 });
    await cluster.until(() => disk('host-5').resync !== null, 60_000);
    expect(disk('host-5').next.map(({ state }) => state)).toEqual(Array(4).fill('resyncing'));
    const seen = () => disk('host-5').resync;
    await cluster.until(() => (seen()?.bytesDone ?? 0) >= 2 * MiB, 60_000);
    const now = seen();
    expect(now?.bytesDone).toBe(8 * MiB - (now?.bytesLeft ?? 0));
    expect(now?.secondsLeft).toBeGreaterThan(0);
    const estimateMs = cluster.now() + 1000 * (now?.secondsLeft ?? 0);
    await cluster.until(() => seen() === null, 60_000);
    expect(Math.abs(cluster.now() - estimateMs)).toBeLessThan(6000);
    for (const { virtual } of cluster.machines) virtual.disk.slowerByMs = 0;
    await becomes({ failuresToTolerate: 1, stripes: 2 });
    await keepsWriting();
  });

  it('is refused where the hosts do not allow it, and says why', async () => {
    for (const host of ['host-4', 'host-5', 'host-6']) cluster.machine(host).crash();
    await cluster.run(4000);
    await expect(setPolicy({ failuresToTolerate: 2, stripes: 1 })).rejects.toThrow(
      /failuresToTolerate 2 needs 5 hosts, and 3 can be reached/,
    );
    await expect(cluster.wait(manager().setDiskPolicy('web', 'disk7', 'single'))).rejects.toThrow(
      /no disk "disk7".*it has disk0/,
    );
    await expect(cluster.wait(manager().setDiskPolicy('web', 'disk0', 'golden'))).rejects.toThrow(
      /expected one of the policies/,
    );
    expect(disk().policy.failuresToTolerate).toBe(1);
  });

  it('begins anew where the host that fills the other tree dies', async () => {
    const wide = { failuresToTolerate: 1, stripes: 2 };
    await setPolicy(wide);
    await cluster.until(() => cluster.points.some(({ at }) => at === 'next.filling'), 10_000);
    cluster.machine('host-1').crash();
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    await cluster.machine('host-1').boot();
    await becomes(wide, 'host-2');
    await keepsWriting();
  });
});
