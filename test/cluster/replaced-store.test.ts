// A host whose store is another one than before, or is back after a time without one: it is a member
// like any other again, although the numbers by which others know its starts begin anew.

import { describe, expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { DiskError } from '../../src/ports/disk.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;

async function running(): Promise<Cluster> {
  const cluster = new Cluster({ hosts: 4 });
  await cluster.start();
  await cluster.makeWeb({ disks: [{ sizeBytes: 4 * MiB }] });
  return cluster;
}

async function runsOn(cluster: Cluster, host: string): Promise<void> {
  await cluster.wait(cluster.machine(host).manager.startVm('web', { on: hostId(host) }));
  await cluster.run(20_000);
  expect(cluster.running('web')).toEqual([host]);
  cluster.assertSafe();
}

describe('a host', () => {
  it('gets leases again after its disk was replaced', async () => {
    const cluster = await running();
    const machine = cluster.machine('host-4');
    for (let restart = 0; restart < 3; restart += 1) {
      machine.killDaemon();
      await machine.boot();
    }
    machine.virtual.replaceDisk();
    await cluster.until(() => machine.host !== null, 10_000);
    await cluster.run(3000);
    await runsOn(cluster, 'host-4');
  });

  it('gets leases again after a start without a usable store', async () => {
    const cluster = await running();
    const machine = cluster.machine('host-4');
    machine.killDaemon();
    machine.disk.fault = (operation) =>
      operation === 'sync' ? new DiskError('failed', 'I/O error') : null;
    await machine.boot();
    await cluster.run(5000);
    expect(machine.manager.hosts().find((one) => one.name === 'host-4')?.storage).toBe('failed');
    machine.killDaemon();
    machine.disk.fault = null;
    await machine.boot();
    await cluster.run(3000);
    await runsOn(cluster, 'host-4');
  });
});
