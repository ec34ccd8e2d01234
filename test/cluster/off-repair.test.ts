// The disks of VMs that are switched off come up to date as well, and nobody has to wait for that.

import { beforeEach, describe, expect, it } from 'vitest';
import type { ObjectInfo } from '../../src/manager/api.ts';
import { hostId } from '../../src/model/ids.ts';
import { timings } from '../../src/model/limits.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

const manager = (host = 'host-1') => cluster.machine(host).manager;
const disk = (host?: string): ObjectInfo => manager(host).object('web/disk0');
const holder = () => manager().vm('web').note ?? '';
const isBeingRepaired = () => /brings its disks up to date/.test(holder());

/** Switched off, and the copy on host-2 has missed something. */
beforeEach(async () => {
  cluster = new Cluster({ hosts: 5 });
  await cluster.start();
  await cluster.runWeb({ disks: [{ sizeBytes: 8 * MiB }] });
  cluster.machine('host-2').crash();
  await cluster.run(5000);
  await cluster.wait(manager().stopVm('web', { force: true }));
  await cluster.run(1000);
});

describe('a VM that is switched off', () => {
  it('has its copies brought up to date, and is switched off for everybody meanwhile', async () => {
    expect(disk().inSync).toHaveLength(1);
    cluster.machine('host-1').virtual.disk.slowerByMs = 100;
    await cluster.machine('host-2').boot();
    await cluster.until(isBeingRepaired, 10_000);
    for (const host of ['host-1', 'host-2', 'host-4']) {
      expect(manager(host).vm('web')).toMatchObject({ power: 'off', host: null });
    }
    cluster.machine('host-1').virtual.disk.slowerByMs = 0;
    await cluster.until(() => disk().problems.length === 0, 30_000);
    await cluster.until(() => !isBeingRepaired(), 30_000);
    expect(manager().vm('web').note).toBeNull();
    cluster.assertSafe();
  });

  it('gets a copy anew that nobody has missed, where its disk was replaced', async () => {
    const two = cluster.machine('host-2');
    await two.boot();
    await cluster.until(() => disk().problems.length === 0 && !isBeingRepaired(), 40_000);
    const before = disk().components.map(({ component }) => component);
    two.virtual.replaceDisk();
    await cluster.until(() => two.host !== null && disk().problems.length > 0, 10_000);
    await cluster.until(() => disk().problems.length === 0 && !isBeingRepaired(), 40_000);
    expect(disk().components.map(({ host }) => host)).toEqual(['host-1', 'host-2']);
    expect(disk().components.map(({ component }) => component)).not.toEqual(before);
    cluster.assertSafe();
  });

  it('gets what another policy asks for', async () => {
    await cluster.machine('host-2').boot();
    const policy = { failuresToTolerate: 2, stripes: 2 };
    await cluster.wait(manager().setDiskPolicy('web', 'disk0', policy));
    await cluster.until(
      () =>
        disk().problems.length === 0 &&
        disk().inSync.length === 6 &&
        disk().voters.length === 5 &&
        !isBeingRepaired(),
      60_000,
    );
    await cluster.wait(manager('host-4').startVm('web', {}));
    await cluster.run(3000);
    expect(cluster.running('web')).toHaveLength(1);
    cluster.assertSafe();
  });

  it('is started at once while it is being repaired, wherever', async () => {
    for (const on of ['host-4', 'host-1']) {
      for (const host of ['host-1', 'host-2']) cluster.machine(host).virtual.disk.slowerByMs = 100;
      if (cluster.machine('host-2').host === null) await cluster.machine('host-2').boot();
      await cluster.until(isBeingRepaired, 30_000);
      const askedAtMs = cluster.now();
      await cluster.wait(manager('host-3').startVm('web', { on: hostId(on) }));
      expect(cluster.running('web')).toEqual([on]);
      // Not the time of a lease: as long as the slow disks take.
      expect(cluster.now() - askedAtMs).toBeLessThan(3500);
      await cluster.run(2000);
      cluster.machine('host-2').crash();
      await cluster.run(5000);
      await cluster.wait(manager('host-3').stopVm('web', { force: true }));
      await cluster.run(1000);
    }
    cluster.assertSafe();
  });

  it('waits for no more than a lease for a host that died while it repaired', async () => {
    const hosts = ['host-1', 'host-2', 'host-3', 'host-4', 'host-5'].map(hostId);
    await cluster.machine('host-2').boot();
    await cluster.wait(
      manager().createVm({
        name: 'db',
        memoryBytes: 96 * MiB,
        disks: [{ sizeBytes: 8 * MiB }],
        policy: 'mirror-3',
        hosts,
      }),
    );
    await cluster.wait(manager().startVm('db', { on: hostId('host-3') }));
    await cluster.run(3000);
    cluster.machine('host-2').crash();
    await cluster.run(5000);
    await cluster.wait(manager().stopVm('db', { force: true }));
    for (const host of ['host-2', 'host-3']) cluster.machine(host).virtual.disk.slowerByMs = 100;
    await cluster.machine('host-2').boot();
    const note = () => manager('host-4').vm('db').note ?? '';
    await cluster.until(() => note().startsWith('host-1 brings its disks up to date'), 30_000);
    await cluster.run(500);
    cluster.machine('host-1').crash();
    const askedAtMs = cluster.now();
    await cluster.wait(manager('host-4').startVm('db', { on: hostId('host-4') }));
    expect(cluster.running('db')).toEqual(['host-4']);
    expect(cluster.now() - askedAtMs).toBeLessThan(timings.leaseDurationMs + 4000);
    cluster.assertSafe();
  });
});
