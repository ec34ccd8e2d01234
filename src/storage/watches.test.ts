// How it is told that something became accessible: each VM by name, namespace objects alone, only that
// something did, and each of these at once or gathered.

import { beforeEach, describe, expect, it } from 'vitest';
import { type LeaseHost, LeaseWorld } from '../../test/support/lease-world.ts';
import { hostId, type VmId } from '../model/ids.ts';
import type { VmPlacement } from './api.ts';
import type { Store } from './store.ts';

const policy = { failuresToTolerate: 1, stripes: 1 };
let world: LeaseWorld;

beforeEach(async () => {
  world = new LeaseWorld({ seed: 1, hosts: 6 });
  await world.boot();
});

function store(number: number): Store {
  const running = (world.hosts[number - 1] as LeaseHost).store;
  if (running === null) throw new Error(`host ${number} is down`);
  return running;
}

function vm(name: string, objectHosts: VmPlacement['objectHosts']): Promise<VmId> {
  const spec = {
    name,
    cpus: 1,
    memoryBytes: 0,
    boot: 'none',
    disks: [{ name: 'disk0', sizeBytes: 2 ** 20, policy }],
    protected: false,
    priority: 'medium' as const,
  };
  return world.clock.wait(
    store(1).createVm(spec, objectHosts === undefined ? {} : { objectHosts }),
  );
}

const hosts = (...numbers: number[]) => numbers.map((number) => hostId(`host-${number}`));

/** What host 1 is told in each form, in order. */
function listen(): Record<'vm' | 'namespace' | 'some' | 'gathered', (readonly VmId[])[]> {
  const told = { vm: [], namespace: [], some: [], gathered: [] } as ReturnType<typeof listen>;
  store(1).watchAccessibility((vms) => void told.vm.push(vms));
  for (const form of ['namespace', 'some'] as const) {
    store(1).watchAccessibility((vms) => void told[form].push(vms), { form });
  }
  store(1).watchAccessibility((vms) => void told.gathered.push(vms), { everyMs: 20_000 });
  return told;
}

describe('a notice of accessibility', () => {
  it('names VMs, or namespace objects, or nothing, as it was asked for', async () => {
    const near = await vm('near', { namespace: hosts(1, 2, 3), disk0: hosts(1, 2, 3) });
    // Its namespace object stays within reach, its disk does not.
    const split = await vm('split', { namespace: hosts(1, 2, 3), disk0: hosts(4, 5, 6) });
    const far = await vm('far', { namespace: hosts(4, 5, 6), disk0: hosts(4, 5, 6) });
    await world.clock.run(500);
    const told = listen();
    for (const a of [1, 2, 3]) for (const b of [4, 5, 6]) cut(a, b);
    await world.clock.run(8000);
    expect(told).toEqual({ vm: [], namespace: [], some: [], gathered: [] });
    const now = store(1).accessibility();
    expect([near, split, far].map((one) => now.get(one)?.accessible)).toEqual([true, false, false]);
    const namespaces = store(1).accessibility(undefined, 'namespace');
    expect([near, split, far].map((one) => namespaces.get(one)?.accessible)).toEqual([
      true,
      true,
      false,
    ]);

    world.network.healAll();
    await world.clock.run(8000);
    expect(told.vm.flat().sort()).toEqual([split, far].sort());
    expect(told.namespace.flat()).toEqual([far]);
    expect(told.some.length).toBeGreaterThan(0);
    expect(told.some.flat()).toEqual([]);
    expect(told.gathered).toEqual([]);
    await world.clock.run(12_000);
    expect(told.gathered.length).toBe(1);
    expect(told.gathered.flat().sort()).toEqual([split, far].sort());
  });
});

function cut(a: number, b: number): void {
  world.network.cut(hostId(`host-${a}`), hostId(`host-${b}`));
  world.network.cut(hostId(`host-${b}`), hostId(`host-${a}`));
}
