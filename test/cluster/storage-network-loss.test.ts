// What a guest sees of a storage network that is gone for a while: requests that take long, and no error.
// It works again within a second of the network's return, in the same boot.

import { afterEach, describe, expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

afterEach((context) => {
  if (context.task.result?.state === 'fail') console.log(cluster.log.slice(-80).join('\n'));
});

async function runningVm(hosts: number, seed: number): Promise<void> {
  cluster = new Cluster({ hosts, seed });
  await cluster.start();
  const { manager } = cluster.machine('host-1');
  const disks = [{ sizeBytes: 4 * MiB }, { sizeBytes: 4 * MiB }];
  await cluster.wait(manager.createVm({ name: 'web', memoryBytes: 96 * MiB, disks }));
  await cluster.wait(manager.startVm('web', { on: hostId('host-1') }));
  await cluster.until(() => manager.vm('web').protection.status === 'protected', 10_000);
  await cluster.until(() => cluster.writes('web') >= 3, 10_000);
}

async function lose(outageMs: number, groups: readonly (readonly string[])[]): Promise<void> {
  cluster.world.partition('storage', groups);
  // What was on its way may still arrive.
  await cluster.run(50);
  const before = cluster.writes('web');
  await cluster.run(outageMs - 50);
  expect(cluster.writes('web')).toBe(before);
  cluster.world.heal('storage');
  // A guest that had seen an error would leave its disk alone from then on.
  await cluster.until(() => cluster.writes('web') > before, 1000);
  await cluster.until(() => cluster.writes('web') > before + 10, 30_000);
  expect(cluster.boots('web')).toBe(1);
  expect(cluster.running('web')).toEqual(['host-1']);
  const told = cluster.machines.flatMap(({ events }) => events.map(({ text }) => text));
  expect(told.filter((text) => /error|has ended|is reset|is ended/.test(text))).toEqual([]);
  cluster.assertSafe();
}

// Shorter than a component's patience, than the lease, and much longer than both.
const outagesMs = [500, 1900, 2700, 3500, 10_000, 120_000];

describe('while the storage network is gone, I/O waits; it goes on within a second of the return', () => {
  it.each(outagesMs.flatMap((ms) => [1, 2, 3].map((seed) => [ms, seed] as const)))(
    'of all hosts, for %i ms (seed %i)',
    async (outageMs, seed) => {
      await runningVm(3, seed);
      await lose(
        outageMs,
        cluster.machines.map(({ name }) => [name]),
      );
    },
  );

  it('again and again', async () => {
    await runningVm(3, 4);
    for (const outageMs of outagesMs) {
      await lose(
        outageMs,
        cluster.machines.map(({ name }) => [name]),
      );
    }
  });
});
