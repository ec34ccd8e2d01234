// How full devices are: told once at each threshold, and refused to new objects before guests feel it.

import { expect, it } from 'vitest';
import { LeaseWorld } from '../../test/support/lease-world.ts';
import type { VmSpec } from '../model/vm.ts';
import { fillOf, usualThresholds, watchFill } from './fill.ts';
import type { Store } from './store.ts';

const MiB = 2 ** 20;

it('tells of each threshold once, and of room only when it is clearly back', () => {
  const told: string[] = [];
  const look = watchFill({
    device: 'device of h1',
    thresholds: usualThresholds,
    emit: (type, text) => void told.push(`${type} ${text}`),
  });
  const at = (used: number) => {
    look({ totalBytes: 1000, freeBytes: 1000 - used });
    return told.splice(0);
  };
  expect(at(849)).toEqual([]);
  expect(at(850)).toEqual([
    'storage.hostNearFull The device of h1 gets full: 850 of 1000 bytes are used (85%)',
  ]);
  // To and fro around it.
  for (const used of [849, 851, 840, 870]) expect(at(used)).toEqual([]);
  expect(at(950)).toEqual([
    'storage.hostFull The device of h1 is full for new objects: 950 of 1000 bytes are used (95%)',
  ]);
  for (const used of [949, 999, 931]) expect(at(used)).toEqual([]);
  expect(at(929)).toHaveLength(1);
  expect(at(100)).toEqual([
    'storage.hostRoomAgain The device of h1 has room again: 100 of 1000 bytes are used (10%)',
  ]);
  // From empty to full at once it is told as full.
  expect(at(1000)[0]).toMatch(/^storage.hostFull /);
  expect(fillOf({ totalBytes: 0, freeBytes: 0 })).toBe('ok');
});

it('a full host takes no new objects, names itself, and has room for what is there', async () => {
  const spec = (name: string, sizeBytes: number): VmSpec => ({
    name,
    cpus: 1,
    memoryBytes: 0,
    boot: 'none',
    disks: [{ name: 'disk0', sizeBytes, policy: { failuresToTolerate: 1, stripes: 1 } }],
    protected: false,
    priority: 'medium',
  });
  const world = new LeaseWorld({ seed: 1, hosts: 3 });
  await world.boot();
  const store = world.hosts[0]?.store as Store;
  await world.clock.wait(store.createVm(spec('first', MiB)));
  const [one, two] = world.hosts;
  // 4% of the two devices are free, and that is 40 times what is asked for.
  for (const host of [one, two]) {
    if (host !== undefined) host.disk.capacityBytes = Math.ceil(host.disk.usedBytes() / 0.96);
  }
  await world.clock.run(2000);
  expect(store.hosts().map((host) => host.fill)).toEqual(['full', 'full', 'ok']);
  const creating = world.clock.wait(store.createVm(spec('second', 4096)));
  await expect(creating).rejects.toMatchObject({
    code: 'no-capacity',
    message: expect.stringMatching(
      /2 hosts with 4096 free bytes are needed, and there are 1 \(host-1: \d+ of \d+ bytes are used, no new object goes above 95%; host-2: /,
    ),
  });
  // What was made before goes on: its lock is taken, and records are written.
  const [vm] = store.vms();
  expect(await world.clock.wait(store.lock(vm?.vm as never))).toBe(2);
});
