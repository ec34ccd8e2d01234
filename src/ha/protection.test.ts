import { expect, test } from 'vitest';
import { HaCluster } from '../../test/support/ha-cluster.ts';
import { epoch, hostId } from '../model/ids.ts';
import { readProtection } from '../model/protection.ts';

async function cluster(): Promise<HaCluster> {
  const made = new HaCluster(['h1', 'h2', 'h3']);
  made.boot();
  await made.run(1000);
  return made;
}

const status = (it: HaCluster, name: string, on = 'h2') =>
  it.host(on).ha.protectionStatus(it.vm(name as never).vm);

test('a power-on is protected by the master, and only the committed SET makes it so', async () => {
  const it = await cluster();
  const vm = it.addVm('v', { memoryMiB: 96, priority: 'high' });
  it.setPlans = [3000];
  await it.powerOn(vm, 'h2');
  await it.run(2000);
  expect(status(it, 'v')).toMatchObject({ status: 'pending' });
  await it.run(1100);
  expect(status(it, 'v')).toEqual({ status: 'protected' });
  expect(it.sets).toEqual(['v by h1']);
  const memoryBytes = 96 * 2 ** 20;
  expect(it.vm(vm).protection).toEqual({
    protected: true,
    name: 'v',
    epoch: 1,
    priority: 'high',
    memoryBytes,
    cpus: 1,
  });
  expect(it.host('h2').events.map((event) => event.type)).toContain('vm.protected');
  await it.run(20_000);
  expect(it.sets).toHaveLength(1); // committed: nobody asks again
});

test('a VM is unprotected for a reason', async () => {
  const it = await cluster();
  it.addVm('off');
  await it.powerOn(it.addVm('plain', { isProtected: false }), 'h2');
  const lost = it.addVm('lost');
  await it.powerOn(lost, 'h2');
  it.hide(lost, ['h1', 'h2', 'h3']);
  await it.run(3000);
  expect(status(it, 'off')).toEqual({ status: 'unprotected', reason: 'it is powered off' });
  expect(status(it, 'plain')).toMatchObject({ reason: 'its specification says so' });
  expect(status(it, 'lost')).toMatchObject({ reason: 'lost lacks a majority' });
  expect(it.sets.filter((set) => set.startsWith('plain'))).toEqual([]);
});

test('started while there is no master, a VM is protected when there is one', async () => {
  const it = new HaCluster(['h1', 'h2', 'h3']);
  it.boot('h2'); // alone it listens for 2.5 s
  const vm = it.addVm('v');
  await it.powerOn(vm, 'h2');
  await it.run(1000);
  expect(status(it, 'v')).toMatchObject({ status: 'pending' });
  await it.run(2000);
  expect(it.masters()).toEqual(['h2']);
  expect(status(it, 'v')).toEqual({ status: 'protected' });
});

test('each new master hears again of what is not committed', async () => {
  const it = await cluster();
  const vm = it.addVm('v');
  it.setPlans = Array.from({ length: 50 }, () => 'inaccessible' as const);
  await it.powerOn(vm, 'h3');
  await it.run(1000);
  it.host('h1').kill();
  await it.run(3500);
  it.setPlans = [];
  await it.run(3000);
  expect(status(it, 'v', 'h3')).toEqual({ status: 'protected' });
  expect(it.sets.at(-1)).toBe('v by h2');
});

test('failed SETs are repeated with growing pauses, and at once when the object is accessible', async () => {
  const it = await cluster();
  const vm = it.addVm('v');
  it.hide(vm, ['h1']); // the master can not reach it, its host can
  await it.powerOn(vm, 'h2');
  await it.run(20_000);
  const tried = it.sets.length;
  expect(tried).toBeGreaterThan(3);
  expect(tried).toBeLessThan(10);
  expect(status(it, 'v')).toMatchObject({ status: 'pending' });
  it.hide(vm, []);
  await it.run(20);
  expect(status(it, 'v')).toEqual({ status: 'protected' });
});

test('a SET that comes after the power-off protects nothing', async () => {
  const it = await cluster();
  const vm = it.addVm('v');
  it.setPlans = [5000];
  await it.powerOn(vm, 'h2');
  await it.run(100);
  it.host('h2').runner.powerOff(vm);
  await it.run(30_000);
  expect(readProtection(it.vm(vm).protection)).toMatchObject({ protected: false });
  expect(it.sets).toHaveLength(1);
  expect(status(it, 'v')).toEqual({ status: 'unprotected', reason: 'it is powered off' });
  expect(it.host('h2').runner.starts).toHaveLength(1); // and nobody restarted it
});

test('a delayed SET of an earlier power-on does not count for the next one', async () => {
  const it = await cluster();
  const vm = it.addVm('v');
  it.setPlans = [3000];
  await it.powerOn(vm, 'h2');
  await it.run(100);
  it.host('h2').runner.powerOff(vm);
  await it.powerOn(vm, 'h3');
  await it.run(500);
  expect(readProtection(it.vm(vm).protection)).toMatchObject({ protected: true, epoch: 2 });
  await it.run(5000);
  expect(readProtection(it.vm(vm).protection)).toMatchObject({ protected: true, epoch: 2 });
});

test('a daemon that finds a guest running protects it, without any power-on', async () => {
  const it = await cluster();
  const vm = it.addVm('v');
  const fake = it.vm(vm);
  Object.assign(fake, { holder: hostId('h3'), epoch: 7 });
  const row = {
    vm,
    name: 'v',
    epoch: epoch(7),
    state: 'running',
    ready: true,
    hung: false,
    cpus: 1,
    memoryBytes: 1,
  } as const;
  it.host('h3').runner.vms.set(vm, row);
  it.host('h3').runner.changed();
  await it.run(100);
  expect(readProtection(fake.protection)).toMatchObject({ protected: true, epoch: 7 });
});

test('a start by HA renews the protection with the new epoch', async () => {
  const it = await cluster();
  const vm = it.addVm('v');
  await it.powerOn(vm, 'h3');
  await it.run(500);
  it.host('h3').kill();
  await it.run(6000);
  expect(it.runsOn(vm)).toHaveLength(1);
  expect(readProtection(it.vm(vm).protection)).toMatchObject({ protected: true, epoch: 2 });
});
