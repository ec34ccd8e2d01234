// A host whose daemon starts without a usable store, and finds guests that it can not serve: they stand,
// others may have them, and what became of their locks it learns though it can not ask.

import { describe, expect, it } from 'vitest';
import type { VmRequest } from '../../src/manager/api.ts';
import { hostId } from '../../src/model/ids.ts';
import { DiskError } from '../../src/ports/disk.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
const home = 'host-4';

/** `web` runs on a host that has none of its objects. */
async function running(more: Partial<VmRequest> = {}): Promise<Cluster> {
  const cluster = new Cluster({ hosts: 4 });
  await cluster.start();
  await cluster.makeWeb({ disks: [{ sizeBytes: 4 * MiB }], ...more });
  await cluster.wait(cluster.machine(home).manager.startVm('web', { on: hostId(home) }));
  await cluster.run(3000);
  expect(cluster.running('web')).toEqual([home]);
  return cluster;
}

/** Its daemon is killed, and started where the device of its store fails. */
async function startWithoutStore(cluster: Cluster, afterMs: number): Promise<void> {
  const machine = cluster.machine(home);
  machine.killDaemon();
  await cluster.run(afterMs);
  machine.disk.fault = (operation) =>
    operation === 'sync' ? new DiskError('failed', 'I/O error') : null;
  await machine.boot();
}

describe('a guest of a host that starts without a store', () => {
  it('is restarted where its objects can be used', async () => {
    const cluster = await running();
    await startWithoutStore(cluster, 200);
    await cluster.run(8000);
    const [now, ...more] = cluster.running('web');
    expect(more).toEqual([]);
    expect(now).toMatch(/^host-[123]$/);
    expect(cluster.machine(home).virtual.guest('web')).toBe(null);
    cluster.assertSafe();
  });

  it('is ended if it was restarted elsewhere before', async () => {
    const cluster = await running();
    await startWithoutStore(cluster, 15_000);
    expect(cluster.running('web')).toHaveLength(1);
    await cluster.run(3000);
    expect(cluster.running('web')[0]).toMatch(/^host-[123]$/);
    expect(cluster.machine(home).virtual.guest('web')).toBe(null);
    cluster.assertSafe();
  });

  it('goes on as it was when there is a store again and nobody else could have it', async () => {
    const cluster = await running({ affinity: { hosts: [home], required: true } });
    const guest = cluster.machine(home).guest('web');
    await startWithoutStore(cluster, 200);
    await cluster.run(8000);
    expect(guest.state).toBe('paused');
    const machine = cluster.machine(home);
    machine.killDaemon();
    machine.disk.fault = null;
    await machine.boot();
    await cluster.run(2000);
    expect(guest.state).toBe('running');
    expect(cluster.boots('web')).toBe(1);
    cluster.assertSafe();
  });
});
