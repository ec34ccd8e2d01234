// What a master does through its agents while the storage network is split and the HA network is not, in whole
// clusters of HA modules. (With the real object store: scenarios/4-2-*.)

import { expect, test } from 'vitest';
import { HaCluster } from '../../test/support/ha-cluster.ts';
import { hostId, type VmId } from '../model/ids.ts';
import { haLimits } from './limits.ts';

const near = ['h1', 'h2'];
const far = ['h3', 'h4', 'h5'];

async function cluster(): Promise<HaCluster> {
  const it = new HaCluster([...near, ...far]);
  it.boot();
  await it.run(1500);
  return it;
}

async function running(it: HaCluster, count: number, on: string): Promise<VmId[]> {
  const vms = Array.from({ length: count }, (_, index) => it.addVm(`${on}-v${index}`));
  for (const vm of vms) await it.powerOn(vm, on);
  await it.run(1000);
  return vms;
}

/** The master, h1, is on the side of `near`, and these VMs on the other one. */
function split(it: HaCluster, vms: readonly VmId[]): void {
  it.storageGroups = [near.map(hostId), far.map(hostId)];
  for (const vm of vms) it.hide(vm, near);
}

const said = (it: HaCluster, words: string) => it.log.filter((line) => line.includes(words));

test('where the storage network is whole nobody is asked', async () => {
  const it = await cluster();
  await running(it, 3, 'h3');
  it.host('h5').kill();
  await it.run(20_000);
  expect(said(it, 'is lookout')).toEqual([]);
});

test('one agent of the other side is lookout, another one after it, and nobody after the heal', async () => {
  const it = await cluster();
  const vms = await running(it, 2, 'h3');
  split(it, vms);
  await it.run(3000);
  expect(said(it, 'is lookout').map((line) => line.split(' ')[3])).toEqual(['h3']);
  it.host('h3').kill();
  await it.run(5000);
  expect(said(it, 'is lookout').map((line) => line.split(' ')[3])).toEqual(['h3', 'h4']);
  it.storageGroups = [];
  await it.run(3000);
  expect(said(it, 'h4 is no lookout any more')).toHaveLength(1);
  for (const vm of vms) expect(it.runsOn(vm)).toHaveLength(1);
  expect([it.violations, it.errors()]).toEqual([[], []]);
});

test('its VMs are restarted there, each with one attempt, when their host dies', async () => {
  const it = await cluster();
  const vms = await running(it, 5, 'h3');
  split(it, vms);
  await it.run(3000);
  it.host('h3').kill();
  await it.run(8000);
  for (const vm of vms) expect(far).toContain(it.runsOn(vm)[0]);
  const starts = [...it.hosts.values()].flatMap((host) => host.runner.starts);
  expect(starts.toSorted()).toEqual([...vms].sort());
});

test('what is switched on there is protected by an agent, and what is switched off stays off', async () => {
  const it = await cluster();
  const vm = it.addVm('late');
  const brief = it.addVm('brief');
  split(it, [vm, brief]);
  await it.run(2000);
  await it.powerOn(vm, 'h4');
  await it.powerOn(brief, 'h4');
  await it.run(2000);
  expect(it.sets.toSorted()).toEqual(['brief by h3', 'late by h3']);
  it.host('h4').runner.powerOff(brief);
  await it.run(20_000);
  expect([it.runsOn(vm), it.runsOn(brief)]).toEqual([['h4'], []]);
});

test('more VMs than go into one answer are told of, all of them', async () => {
  const it = await cluster();
  const count = haLimits.outlookVmsAtOnce * 2 + 10;
  const vms = Array.from({ length: count }, (_, index) => it.addVm(`v${index}`));
  const last = vms.at(-1) as VmId;
  it.host('h3').runner.memoryBytes = 2 ** 40;
  await it.powerOn(last, 'h3');
  split(it, vms);
  await it.run(3000);
  it.host('h3').kill();
  await it.run(8000);
  expect(it.runsOn(last)).toHaveLength(1);
});

test('a guest that stands because its host is cut off is started elsewhere, after a while', async () => {
  const it = await cluster();
  const [vm] = (await running(it, 1, 'h3')) as [VmId];
  it.hide(vm, ['h3']);
  it.host('h3').runner.stands(vm, true);
  await it.run(haLimits.cutOffGraceMs - 500);
  expect(it.runsOn(vm)).toEqual(['h3']);
  it.vm(vm).holder = null; // its lease is over by then
  await it.run(2000);
  expect(it.runsOn(vm)).toHaveLength(2);
  it.host('h3').runner.vms.delete(vm); // it is ended there when its host hears of it
  it.host('h3').runner.changed();
  await it.run(5000);
  expect(it.runsOn(vm)).toHaveLength(1);
  const starts = [...it.hosts.values()].flatMap((host) => host.runner.starts);
  expect(starts).toEqual([vm, vm]);
});

test('guests that stand everywhere, and go on, are left alone', async () => {
  const it = await cluster();
  const vms = await running(it, 3, 'h3');
  for (const vm of vms) {
    it.hide(vm, [...near, ...far]);
    it.host('h3').runner.stands(vm, true);
  }
  await it.run(30_000);
  for (const vm of vms) it.hide(vm, []);
  await it.run(1500);
  for (const vm of vms) it.host('h3').runner.stands(vm, false);
  await it.run(20_000);
  expect(it.host('h3').runner.starts).toEqual(vms);
  expect(it.host('h1').events.map(({ type }) => type)).not.toContain('failover.detected');
});
