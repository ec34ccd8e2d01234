// What a guest's driver could not do at once is tried again: no VM stays behind because of it.

import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { HoldfastError } from '../../src/model/errors.ts';
import { hostId } from '../../src/model/ids.ts';
import { GuestHandle } from '../../src/simulator/world/guest-handle.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
const hosts = ['host-1', 'host-2', 'host-3'];
const unended = new HoldfastError('timeout', 'processes of VM web do not end');
let cluster: Cluster;

beforeEach(async () => {
  cluster = new Cluster({ hosts: 3 });
  await cluster.start();
  const { manager } = cluster.machine('host-1');
  const disks = [{ sizeBytes: 4 * MiB }];
  const vm = { name: 'web', memoryBytes: 96 * MiB, disks, hosts: hosts.map(hostId) };
  await cluster.wait(manager.createVm(vm));
  await cluster.run(1000);
  await cluster.wait(manager.startVm('web', { on: hostId('host-1') }));
  await cluster.until(() => manager.vm('web').protection.status === 'protected', 10_000);
});
afterEach(() => void vi.restoreAllMocks());

it('ends a guest that did not end at once, and HA starts it again', async () => {
  vi.spyOn(GuestHandle.prototype, 'kill').mockRejectedValueOnce(unended);
  cluster.machine('host-1').guest('web').panic();
  await cluster.run(500);
  expect(cluster.running('web')).toHaveLength(1); // the old one still
  await cluster.until(
    () => cluster.boots('web') === 2 && cluster.running('web').length === 1,
    30_000,
  );
});

it('ends a guest that its user wants off, also where he was told that it did not end', async () => {
  vi.spyOn(GuestHandle.prototype, 'kill').mockRejectedValueOnce(unended);
  const { manager } = cluster.machine('host-2');
  await expect(cluster.wait(manager.stopVm('web', { force: true }))).rejects.toThrow('do not end');
  await cluster.until(() => manager.vm('web').power === 'off', 10_000);
  expect(cluster.running('web')).toEqual([]);
  await cluster.wait(manager.startVm('web', { on: hostId('host-2') }));
});

it('has a guest go on that could not at once', async () => {
  const refusal = new HoldfastError('timeout', 'the guard did not answer: resume');
  vi.spyOn(GuestHandle.prototype, 'resume').mockRejectedValueOnce(refusal);
  cluster.world.partition('storage', [['host-1'], ['host-2'], ['host-3']]);
  await cluster.run(6000); // it stands, and nobody can take it over
  expect(cluster.running('web')).toEqual([]);
  cluster.world.heal('storage');
  await cluster.until(() => cluster.running('web').length === 1, 30_000);
  expect(cluster.boots('web')).toBe(1);
});
