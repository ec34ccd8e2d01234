// Metadata of VMs on a small cluster: compare-and-swap, many at once, and GETs that read no object.

import { beforeEach, describe, expect, it } from 'vitest';
import { type LeaseHost, LeaseWorld } from '../../test/support/lease-world.ts';
import type { VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import { limits } from '../model/limits.ts';
import type { VmSpec } from '../model/vm.ts';
import type { MetadataChange, SetCondition } from './api.ts';
import type { Store } from './store.ts';

let world: LeaseWorld;
let vms: VmId[];

const spec = (name: string): VmSpec => ({
  name,
  cpus: 1,
  memoryBytes: 0,
  boot: 'none',
  disks: [],
  protected: false,
  priority: 'medium',
});

const host = (number: number) => world.hosts[number - 1] as LeaseHost;
const store = (number: number) => host(number).store as Store;
const vm = (index: number) => vms[index] as VmId;
const wait = <T>(promise: Promise<T>) => world.clock.wait(promise);
const set = (at: number, index: number, value: JsonValue, condition?: SetCondition) =>
  wait(store(at).setMetadata(vm(index), 'backup', 'last', value, condition));
const get = (at: number, index: number) =>
  store(at).getMetadata('backup', 'last', [vm(index)]).values[0]?.value;
const settled = () => world.clock.run(100);

beforeEach(async () => {
  world = new LeaseWorld({ seed: 1, hosts: 3 });
  await world.boot();
  vms = await wait(
    Promise.all(
      Array.from({ length: 150 }, (_, index) => store(1).createVm(spec(`vm-${index + 1}`))),
    ),
  );
  await settled();
});

describe('SET', () => {
  it('is seen on every host, and of two that expect the same value one fails', async () => {
    await set(1, 0, 1);
    await settled();
    expect([1, 2, 3].map((at) => get(at, 0))).toEqual([1, 1, 1]);
    const both = await wait(
      Promise.allSettled(
        [1, 2].map((at) =>
          store(at).setMetadata(vm(0), 'backup', 'last', at * 10, { expected: 1 }),
        ),
      ),
    );
    const [won, lost] = [...both].sort((a) => (a.status === 'fulfilled' ? -1 : 1));
    expect(won?.status).toBe('fulfilled');
    expect(lost).toMatchObject({ reason: { code: 'conflict' } });
    expect((lost as PromiseRejectedResult).reason.message).toMatch(
      /^VM vm-1: metadata backup\/last is [12]0, and something else was expected$/,
    );
  });

  it('compares whole values, absence and revisions', async () => {
    await set(1, 0, { a: [1, null], b: 'x' }, { expected: null });
    await expect(set(1, 0, 2, { expected: null })).rejects.toMatchObject({ code: 'conflict' });
    await set(1, 0, 2, { expected: { b: 'x', a: [1, null] } });
    await settled();
    const revision = store(1).vm(vm(0))?.revision as number;
    await set(2, 0, 3, { revision });
    await expect(set(3, 0, 4, { revision })).rejects.toThrow(
      `its record has revision ${revision + 1}, and ${revision} was expected`,
    );
    // Null takes the key away.
    await set(1, 0, null);
    await settled();
    expect(get(2, 0)).toBeUndefined();
    await set(1, 0, 5, { expected: null });
  });

  it('has bounds, and says which was passed with what', async () => {
    const bound = limits.maxMetadataValueBytes;
    // Bytes, not characters.
    const text = 'ä'.repeat(bound / 2);
    await expect(set(1, 0, text)).rejects.toThrow(
      `metadata backup/last: the value has ${bound + 2} bytes as JSON, and the bound is ${bound}`,
    );
    await set(1, 0, text.slice(1));
    await expect(wait(store(1).setMetadata(vm(0), 'backup', 'k'.repeat(129), 1))).rejects.toThrow(
      /name of a key has 1 to 128 characters, and "k+" has 129/,
    );
    await expect(wait(store(1).setMetadata(vm(0), '', 'k', 1))).rejects.toThrow(/of a service/);
    const within = { withinBytes: bound };
    await expect(
      wait(store(1).setMetadata(vm(0), 'backup', 'next', 'x'.repeat(100), within)),
    ).rejects.toThrow(/backup\/next: with it all metadata of VM vm-1 would have \d+ bytes/);
    // A whole record has a bound too, whoever writes.
    const full = Array.from({ length: 20 }, (_, index) => `k${index}`);
    await expect(
      (async () => {
        for (const key of full) {
          await wait(store(1).setMetadata(vm(0), 'own', key, 'x'.repeat(bound - 2)));
        }
      })(),
    ).rejects.toThrow(/record of .* has \d+ bytes; at most 262144/);
  });

  it('of many is done in parallel, and each has its own result', async () => {
    const changes = vms.map(
      (one, index): MetadataChange => ({
        vm: one,
        service: 'backup',
        key: 'last',
        value: index,
        ...(index === 7 ? { condition: { expected: 'other' } } : {}),
      }),
    );
    const nobody = { vm: 'nobody' as VmId, service: 'backup', key: 'last', value: 0 };
    const beforeMs = world.clock.now();
    const results = await wait(store(1).setAllMetadata([...changes, nobody]));
    const tookMs = world.clock.now() - beforeMs;
    expect(results.map((one) => one.vm)).toEqual([...vms, 'nobody']);
    expect(results.flatMap((one) => one.error?.code ?? [])).toEqual(['conflict', 'unknown-vm']);
    await settled();
    for (const index of [0, 6, 8, 149]) expect(get(3, index)).toBe(index);
    expect(get(3, 7)).toBeUndefined();
    // In virtual time: one after the other they take more than a quarter of a second.
    await set(1, 7, 1);
    const oneMs = world.clock.now() - beforeMs - tookMs;
    expect(tookMs).toBeLessThan((oneMs * vms.length) / 4);
  });
});

describe('GET', () => {
  it('of one, of some and of all takes no read of an object, and no message', async () => {
    await wait(
      store(1).setAllMetadata(
        vms.map((one, index) => ({ vm: one, service: 'backup', key: 'last', value: index })),
      ),
    );
    await settled();
    const delivered = world.network.delivered;
    for (const at of [1, 2, 3]) {
      const all = store(at).getMetadata('backup', 'last');
      expect([all.values.length, all.objectReads]).toEqual([150, 0]);
      const some = store(at).getMetadata('backup', 'last', [vm(3), vm(5), 'nobody' as VmId]);
      expect([some.values.map(({ value }) => value), some.objectReads]).toEqual([[3, 5], 0]);
      expect(store(at).getMetadata('constructor', 'name').values.length).toBe(0);
    }
    expect(world.network.delivered).toBe(delivered);
  });

  it('leaves out what is not accessible now', async () => {
    await set(1, 0, 1);
    await settled();
    world.network.partition([host(1).name], [host(2).name, host(3).name]);
    await world.clock.run(5000);
    expect(store(1).getMetadata('backup', 'last').values.length).toBe(0);
    expect(get(2, 0)).toBe(1);
    await expect(set(1, 0, 2)).rejects.toMatchObject({ code: 'inaccessible' });
    await set(2, 0, 3);
    world.network.healAll();
    await world.clock.run(10_000);
    expect(get(1, 0)).toBe(3);
  });
});
