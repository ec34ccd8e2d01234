// Hosts that pool several devices: each takes what its class is asked for, and fails for itself.

import { expect, it } from 'vitest';
import type { ObjectInfo } from '../../src/manager/api.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;

const twoDevices = [{ name: 'nvme', class: 'fast', diskBytes: 8 * GiB }] as const;
const fast = { failuresToTolerate: 1, stripes: 1, deviceClass: 'fast' } as const;
const any = { failuresToTolerate: 1, stripes: 1 };

async function twoVms(options: Omit<ConstructorParameters<typeof Cluster>[0], 'hosts'> = {}) {
  const cluster = new Cluster({ hosts: 3, devices: twoDevices, ...options });
  await cluster.start();
  const { manager } = cluster.machine('host-3');
  for (const [name, policy] of [
    ['quick', fast],
    ['usual', any],
  ] as const) {
    const hosts = ['host-1', 'host-2', 'host-3'] as never;
    const disks = [{ sizeBytes: 4 * MiB }];
    await cluster.wait(manager.createVm({ name, memoryBytes: 64 * MiB, disks, policy, hosts }));
    await cluster.wait(manager.startVm(name, { on: 'host-1' as never }));
  }
  await cluster.run(2000);
  return cluster;
}

function disk(cluster: Cluster, name: string, by = 'host-3'): ObjectInfo {
  return cluster.machine(by).manager.object(`${name}/disk0`);
}

const places = ({ components }: ObjectInfo) =>
  components.map(({ host, device, state }) => `${host} ${device} ${state}`);

it('puts each disk on devices of the class that its policy asks for, and shows them', async () => {
  const cluster = await twoVms();
  expect(places(disk(cluster, 'quick'))).toEqual(['host-1 nvme active', 'host-2 nvme active']);
  expect(places(disk(cluster, 'usual'))).toEqual(['host-1 main active', 'host-2 main active']);
  const [host] = cluster.machine('host-3').manager.hosts();
  expect(host?.devices).toMatchObject([
    { name: 'main', class: 'large', problem: null, totalBytes: 64 * GiB, components: 1 },
    { name: 'nvme', class: 'fast', problem: null, totalBytes: 8 * GiB, components: 1 },
  ]);
  // Measured from what the guests wrote.
  for (const device of host?.devices ?? []) expect(device.latencyMs).toBeGreaterThan(0.1);
  expect(host?.diskTotalBytes).toBe(72 * GiB);
  cluster.assertSafe();
});

it('loses with a device only what is on it, and has it again when the device is back', async () => {
  const cluster = await twoVms();
  const { virtual, manager, events } = cluster.machine('host-1');
  virtual.device('nvme').disk.isFailed = true;
  await cluster.run(4000);
  for (const by of ['host-1', 'host-2']) {
    expect(places(disk(cluster, 'quick', by))[0]).toBe('host-1 nvme degraded');
    expect(places(disk(cluster, 'usual', by))[0]).toBe('host-1 main active');
  }
  expect(disk(cluster, 'quick').inSync).toHaveLength(1);
  expect(disk(cluster, 'usual').problems).toEqual([]);
  // Its votes are on the main device.
  expect(disk(cluster, 'quick').votes.every(({ state }) => state === 'reachable')).toBe(true);
  const texts = () => events.map(({ text }) => text).join('\n');
  expect(texts()).toContain('The device nvme of host-1 is not used: ');
  for (const name of ['quick', 'usual']) {
    const before = cluster.writes(name);
    await cluster.run(2000);
    expect(cluster.writes(name)).toBeGreaterThan(before + 5);
  }
  expect(manager.hosts()[0]).toMatchObject({ storage: 'reachable', problem: null });

  virtual.device('nvme').disk.isFailed = false;
  await cluster.until(() => disk(cluster, 'quick').inSync.length === 2, 15_000);
  await cluster.run(1000); // with the next heartbeat all know
  expect(texts()).toContain('The device nvme of host-1 is used again');
  expect(places(disk(cluster, 'quick'))[0]).toBe('host-1 nvme active');
  expect(cluster.boots('quick') + cluster.boots('usual')).toBe(2);
  cluster.assertSafe();
});

it('takes back a device that was pulled out, with all that it has missed or lost', async () => {
  const cluster = await twoVms();
  const { virtual } = cluster.machine('host-1');
  const { disk: nvme } = virtual.device('nvme');
  nvme.pull();
  await cluster.run(8000);
  expect(places(disk(cluster, 'quick'))[0]).toBe('host-1 nvme degraded');
  nvme.isPulled = false;
  await cluster.until(() => disk(cluster, 'quick').inSync.length === 2, 15_000);
  cluster.assertSafe();
});

it('rebuilds on another device of the host, or on another host, what does not come back', async () => {
  const devices = [...twoDevices, { name: 'nvme2', class: 'fast', diskBytes: 8 * GiB }] as const;
  const cluster = await twoVms({ devices, timings: { repairDelayMs: 20_000 } });
  const name = places(disk(cluster, 'quick'))[0]?.split(' ')[1] ?? '';
  cluster.machine('host-1').virtual.device(name).disk.isFailed = true;
  await cluster.until(() => disk(cluster, 'quick').problems.length > 0, 5000);
  await cluster.until(() => disk(cluster, 'quick').problems.length === 0, 60_000);
  const other = name === 'nvme' ? 'nvme2' : 'nvme';
  expect(places(disk(cluster, 'quick'))[0]).toBe(`host-1 ${other} active`);
  cluster.assertSafe();
});

it('starts without a device, says so, and puts nothing in its place', async () => {
  const cluster = await twoVms();
  const machine = cluster.machine('host-2');
  machine.crash();
  const device = machine.virtual.device('nvme');
  device.disk.isPulled = true;
  await machine.boot();
  await cluster.run(3000);
  expect(machine.manager.hosts()[1]?.devices[1]).toMatchObject({
    problem: expect.stringContaining('not mounted'),
    totalBytes: 0,
  });
  expect(places(disk(cluster, 'quick'))[1]).toMatch(/^host-2 .* degraded$/);
  expect(places(disk(cluster, 'usual'))[1]).toBe('host-2 main active');
  device.disk.isPulled = false;
  await cluster.until(() => disk(cluster, 'quick').inSync.length === 2, 15_000);
  cluster.assertSafe();
});

it("refuses another host's device, and says whose it is", async () => {
  const cluster = await twoVms();
  const [first, second] = [cluster.machine('host-1'), cluster.machine('host-2')];
  first.crash();
  const mine = first.virtual.device('nvme').disk.files;
  mine.clear();
  for (const [name, file] of second.virtual.device('nvme').disk.files) mine.set(name, file);
  await first.boot();
  await cluster.run(1000);
  const own = first.manager.hosts()[0]?.devices[1];
  expect(own?.problem).toContain('belongs to the host host-2');
  expect(places(disk(cluster, 'quick'))[1]).toBe('host-2 nvme active');
  cluster.assertSafe();
});

it('refuses a VM where no host has room on devices of its class, naming them', async () => {
  const cluster = await twoVms();
  const { manager } = cluster.machine('host-1');
  const disks = [{ sizeBytes: 9 * GiB }];
  const make = (policy: typeof any) =>
    cluster.wait(manager.createVm({ name: 'big', memoryBytes: 64 * MiB, disks, policy }));
  await expect(make(fast)).rejects.toMatchObject({
    code: 'no-capacity',
    message: expect.stringMatching(/on fast devices are needed.*host-1: .*host-2: /),
  });
  // Without a class the large ones are taken, which have room.
  await make(any);
  expect(places(disk(cluster, 'big')).every((one) => one.includes(' main '))).toBe(true);
});
