// The main job on virtual time: the production hosts, with disks, networks and guests in the test's
// hand. What a user would see is checked from outside: which guests run, and what they report.

import { afterEach, describe, expect, it } from 'vitest';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
const vm = { name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 64 * MiB }] };
let cluster: Cluster;

afterEach((context) => {
  if (context.task.result?.state === 'fail') console.log(cluster.log.slice(-150).join('\n'));
});

async function clusterOf(hosts: number, seed = 1): Promise<Cluster> {
  cluster = new Cluster({ hosts, seed });
  await cluster.start();
  return cluster;
}

async function startVm(on: string, name = 'web'): Promise<void> {
  const { manager } = cluster.machine(on);
  await cluster.wait(manager.createVm({ ...vm, name }));
  await cluster.wait(manager.startVm(name, { on: on as never }));
  await cluster.clock.until(() => cluster.lastReport(name) >= 3, 10_000);
  await cluster.clock.until(() => manager.vm(name).protection.status === 'protected', 10_000);
}

describe('a cluster of three hosts', () => {
  it('starts a VM, which writes and is protected', async () => {
    await clusterOf(3);
    await startVm('host-1');
    const seen = cluster.machine('host-3').manager.vm('web');
    expect(seen).toMatchObject({ power: 'running', host: 'host-1', accessible: true });
    expect(seen.protection).toEqual({ status: 'protected' });
  });

  it('restarts a VM of a dead host with every acknowledged write, within 6 s', async () => {
    await clusterOf(3);
    await startVm('host-1');
    const diedAt = cluster.clock.now();
    const last = cluster.lastReport('web');
    cluster.machine('host-1').crash();
    await cluster.clock.until(() => cluster.running('web').length === 1, 30_000);
    expect(cluster.clock.now() - diedAt).toBeLessThan(6000);
    await cluster.clock.until(() => cluster.lastReport('web') > last + 3, 10_000);
    cluster.assertNothingLost();
    expect(cluster.mostInstances).toBe(1);
  });
});
