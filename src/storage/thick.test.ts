// Thick disks: every byte of their components is written when they are made, on each host with a copy,
// and a VM for which there is no space is refused before anything is made of it.

import { beforeEach, expect, it } from 'vitest';
import { type LeaseHost, LeaseWorld } from '../../test/support/lease-world.ts';
import type { VmSpec } from '../model/vm.ts';
import { DiskError } from '../ports/disk.ts';
import type { Store } from './store.ts';

const MiB = 2 ** 20;
let world: LeaseWorld;
/** Bytes written into the data of components, by host. */
let written: number[];
/** How many of them a host takes. */
let space = Number.POSITIVE_INFINITY;

const spec = (name: string, sizeBytes: number, thick: boolean): VmSpec => ({
  name,
  cpus: 1,
  memoryBytes: 0,
  boot: 'none',
  disks: [{ name: 'disk0', sizeBytes, policy: { failuresToTolerate: 1, stripes: 2, thick } }],
  protected: false,
  priority: 'medium',
});

const host = (number: number) => world.hosts[number - 1] as LeaseHost;
const make = (wanted: VmSpec) => world.clock.wait((host(1).store as Store).createVm(wanted));

beforeEach(async () => {
  world = new LeaseWorld({ seed: 1, hosts: 3 });
  written = [0, 0, 0];
  space = Number.POSITIVE_INFINITY;
  for (const [index, { disk }] of world.hosts.entries()) {
    disk.fault = ({ kind, file, bytes }) => {
      if (kind !== 'write' || !file.endsWith('.data')) return null;
      written[index] = (written[index] ?? 0) + bytes;
      return (written[index] ?? 0) > space ? new DiskError('full', 'no space') : null;
    };
  }
  await world.boot();
});

it('takes the space of both copies at once, and a thin disk none', async () => {
  await make(spec('thin', 9 * MiB, false));
  for (const bytes of written) expect(bytes).toBeLessThan(MiB);
  written = [0, 0, 0];
  await make(spec('thick', 9 * MiB, true));
  // Two hosts have a copy, and one votes.
  const [least = 0, ...others] = [...written].sort((a, b) => a - b);
  expect(least).toBeLessThan(MiB);
  for (const bytes of others) expect(bytes).toBeGreaterThanOrEqual(9 * MiB);
});

it('is refused up front where there is no space', async () => {
  for (const { disk } of world.hosts) disk.capacityBytes = disk.usedBytes() + 8 * MiB;
  await world.clock.run(2000);
  await expect(make(spec('thick', 9 * MiB, true))).rejects.toMatchObject({ code: 'no-capacity' });
  expect((host(1).store as Store).vms()).toEqual([]);
  expect(written).toEqual([0, 0, 0]);
});

it('leaves nothing where the space turns out to be gone', async () => {
  space = 5 * MiB;
  await expect(make(spec('thick', 9 * MiB, true))).rejects.toMatchObject({ code: 'disk-full' });
  await world.clock.run(10_000);
  const files = world.hosts.flatMap(({ disk }) => [...disk.files.keys()]);
  expect(files.filter((name) => name.startsWith('components/'))).toEqual([]);
  expect((host(1).store as Store).vms()).toEqual([]);
});
