// A VM that was switched off stays off, whatever else happens to its guest and its host meanwhile.

import { expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;

/** The VM has its data on the first three hosts. */
async function clusterWithGuest(hosts: number, on: string): Promise<Cluster> {
  const cluster = new Cluster({ hosts });
  await cluster.start();
  const { manager } = cluster.machine('host-1');
  const disks = [{ sizeBytes: 4 * MiB }];
  const three = ['host-1', 'host-2', 'host-3'].map(hostId);
  await cluster.wait(manager.createVm({ name: 'web', memoryBytes: 96 * MiB, disks, hosts: three }));
  await cluster.run(1000);
  await cluster.wait(manager.startVm('web', { on: hostId(on) }));
  await cluster.until(() => manager.vm('web').protection.status === 'protected', 10_000);
  return cluster;
}

it('stays off when its guest panics while it switches itself off', async () => {
  const cluster = await clusterWithGuest(3, 'host-1');
  const { manager } = cluster.machine('host-1');
  const stop = manager.stopVm('web', { force: false });
  await cluster.run(100);
  cluster.machine('host-1').guest('web').panic();
  await cluster.wait(stop);
  await cluster.run(60_000);
  expect(cluster.running('web')).toEqual([]);
  expect(cluster.machine('host-2').manager.vm('web').protection.status).toBe('unprotected');
});

it.each(['host-1', 'host-5'])(
  'stays off when its guest did so while its daemon was away (%s)',
  async (on) => {
    const cluster = await clusterWithGuest(5, on);
    const machine = cluster.machine(on);
    machine.killDaemon();
    await cluster.run(100);
    machine.guest('web').exit(true, 'the guest switched itself off');
    await machine.boot();
    await cluster.run(30_000);
    expect(cluster.boots('web')).toBe(1);
    expect(cluster.machine('host-2').manager.vm('web').power).toBe('off');
  },
);

it.each(['host-1', 'host-5'])('and while it can not record that (%s)', async (on) => {
  const cluster = await clusterWithGuest(5, on);
  const machine = cluster.machine(on);
  machine.killDaemon();
  await cluster.run(100);
  machine.guest('web').exit(true, 'the guest switched itself off');
  const others = ['host-1', 'host-2', 'host-3', 'host-4', 'host-5'].filter((host) => host !== on);
  cluster.world.partition('storage', [[on], others]);
  await machine.boot();
  await cluster.run(15_000);
  expect(cluster.boots('web')).toBe(1);
  cluster.world.heal('storage');
  await cluster.until(() => cluster.machine('host-2').manager.vm('web').power === 'off', 30_000);
  await cluster.run(30_000);
  expect(cluster.boots('web')).toBe(1);
});
