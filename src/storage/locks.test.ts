// The locks of VMs on a small cluster: taking, releasing, and what names a host without need.

import { beforeEach, describe, expect, it } from 'vitest';
import { type LeaseHost, LeaseWorld } from '../../test/support/lease-world.ts';
import { type Epoch, hostId, incarnation, storeId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import { haService, protectionKey } from '../model/protection.ts';
import { type NamespaceRecord, nextJoined, type Voter } from '../model/record.ts';
import type { Store } from './store.ts';

let world: LeaseWorld;

function host(number: number): LeaseHost {
  return world.hosts[number - 1] as LeaseHost;
}

function store(number: number): Store {
  return host(number).store as Store;
}

const others = (number: number) =>
  world.hosts.map(({ name }) => name).filter((name) => name !== host(number).name);

beforeEach(async () => {
  world = new LeaseWorld({ seed: 1, hosts: 3 });
  await world.start(3);
});

describe('a lock', () => {
  it('is taken by one host, with a new epoch at each take', async () => {
    const { clock, vm } = world;
    const first = await clock.wait(store(1).lock(vm));
    expect(store(1).leaseDeadline(vm)).toBeGreaterThan(clock.now() * host(1).rate);
    await expect(clock.wait(store(2).lock(vm))).rejects.toMatchObject({ code: 'lock-held' });
    await expect(clock.wait(store(1).lock(vm))).rejects.toMatchObject({ code: 'already-running' });
    await clock.wait(store(1).unlock(vm, first));
    expect(store(1).leaseDeadline(vm)).toBe(null);
    const second = await clock.wait(store(2).lock(vm));
    expect(second).toBe(first + 1);
    expect(await clock.wait(store(3).lockStatus(vm))).toMatchObject({
      holder: host(2).name,
      epoch: second,
    });
  });

  it('is taken by one of two callers on the same host', async () => {
    const { clock, vm } = world;
    const both = Promise.allSettled([store(1).lock(vm), store(1).lock(vm)]);
    const results = await clock.wait(both);
    expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
    await clock.run(3000);
    expect(store(1).leaseDeadline(vm)).not.toBe(null);
  });

  it('is free for others when its lease is withheld, and its old holder hears of its end', async () => {
    const { clock, vm } = world;
    const heard: string[] = [];
    const ignore = () => undefined;
    await clock.wait(store(1).lock(vm));
    store(1).onLease({
      extended: ignore,
      regained: ignore,
      lapsed: ignore,
      lost: (lost) => heard.push(lost),
    });
    store(1).withhold(vm);
    await clock.run(600);
    await clock.wait(store(2).lock(vm));
    await clock.run(600);
    expect(heard).toEqual([vm]);
  });

  it('is free for others one lease after its host died, not earlier', async () => {
    const { clock, vm } = world;
    await clock.wait(store(1).lock(vm));
    host(1).crash(true);
    await clock.run(3300);
    await expect(clock.wait(store(2).lock(vm))).rejects.toMatchObject({ code: 'lock-held' });
    await clock.run(900);
    await expect(clock.wait(store(2).lock(vm))).resolves.toBeGreaterThan(0);
  });

  it('is taken for HA only while the VM is protected', async () => {
    const { clock, vm } = world;
    const wanted = { onlyIfProtected: true };
    await expect(clock.wait(store(1).lock(vm, wanted))).rejects.toMatchObject({
      code: 'not-protected',
    });
    const state = { protected: true, epoch: 1, priority: 'medium', memoryBytes: 1, cpus: 1 };
    await clock.wait(store(1).setMetadata(vm, haService, protectionKey, state));
    await expect(clock.wait(store(2).lock(vm, wanted))).resolves.toBeGreaterThan(0);
  });

  it('is taken together with metadata that say why, or neither is', async () => {
    const { clock, vm } = world;
    const reason = { service: 'runner', key: 'restart', value: 'h9 is gone' };
    const wanted = { onlyIfProtected: true, set: reason };
    await expect(clock.wait(store(1).lock(vm, wanted))).rejects.toThrow(); // it is not protected
    expect(store(1).getMetadata('runner', 'restart').values).toEqual([]);
    await clock.wait(store(1).lock(vm, { set: reason }));
    expect(store(1).getMetadata('runner', 'restart').values).toEqual([{ vm, value: 'h9 is gone' }]);
  });

  it('is released late, with its protection, where the object could not be reached', async () => {
    const { clock, vm, network } = world;
    const held = await clock.wait(store(1).lock(vm));
    network.partition([host(1).name], others(1));
    const off = { protected: false, epoch: held, priority: 'medium', memoryBytes: 1, cpus: 1 };
    await expect(clock.wait(store(1).unlock(vm, held, off))).rejects.toThrow();
    network.healAll();
    await clock.run(6000);
    expect(store(2).vm(vm)?.lock.holder).toBe(null);
    expect(store(2).getMetadata(haService, protectionKey).values).toContainEqual({
      vm,
      value: off,
    });
  });

  it('is not ended by the release of an earlier one that is still due', async () => {
    const { clock, vm, network } = world;
    // What is due is tried each second: at some of these times the take comes first.
    for (let round = 0; round < 6; round += 1) {
      const first = await clock.wait(store(1).lock(vm));
      await clock.run(170 * round);
      network.partition([host(1).name], others(1));
      await clock.run(150);
      await expect(clock.wait(store(1).unlock(vm, first))).rejects.toThrow();
      network.healAll();
      let again: Epoch | null = null;
      while (again === null) {
        await clock.run(5);
        again = await clock.wait(store(1).lock(vm)).catch(() => null);
      }
      await clock.run(4000);
      expect(store(1).leaseDeadline(vm)).not.toBe(null);
      expect(store(2).vm(vm)?.lock).toEqual({ holder: host(1).name, epoch: again });
      await clock.wait(store(1).unlock(vm, again));
    }
  });

  it('that names a host which does not run the VM is released after a boot', async () => {
    const { clock, vm } = world;
    await clock.wait(store(1).lock(vm));
    host(1).crash(true);
    await host(1).boot();
    await clock.run(8000);
    expect(store(2).vm(vm)?.lock.holder).toBe(null);
  });

  it('is held on to over a restart of the daemon, and not adopted once it was given back', async () => {
    const { clock, vm } = world;
    const held = await clock.wait(store(1).lock(vm));
    host(1).run(vm, held);
    host(1).crash(false);
    await host(1).boot();
    await clock.run(2500);
    expect(host(1).isRunning).toBe(true);
    expect(store(1).vm(vm)?.lock).toEqual({ holder: host(1).name, epoch: held });
    await expect(clock.wait(store(2).lock(vm))).rejects.toMatchObject({ code: 'lock-held' });
    host(1).release();
    await clock.run(3000);
    expect(store(2).vm(vm)?.lock.holder).toBe(null);
  });

  it('survives that no majority answers for a while, its guest standing still meanwhile', async () => {
    const { clock, vm, network } = world;
    const held = await clock.wait(store(1).lock(vm));
    host(1).run(vm, held);
    network.partition([host(1).name], [host(2).name], [host(3).name]);
    await clock.run(3200);
    expect(host(1).isRunning).toBe(false);
    await clock.run(20_000);
    network.healAll();
    await clock.run(2500);
    expect(host(1).isRunning).toBe(true);
  });

  it('is lost to a host that took it meanwhile', async () => {
    const { clock, vm, network } = world;
    host(1).run(vm, await clock.wait(store(1).lock(vm)));
    network.partition([host(1).name], others(1));
    await clock.run(4600);
    await clock.wait(store(2).lock(vm));
    network.healAll();
    await clock.run(2000);
    expect(host(1).guest).toBe(null);
    expect(store(2).leaseDeadline(vm)).not.toBe(null);
  });

  it('can not be told while those are gone who would vote on it by a change that may have been decided', async () => {
    const { clock, vm, object, voters } = world;
    await clock.wait(store(1).lock(vm));
    const found = store(1).knowledge(vm) as unknown as { readonly record: NamespaceRecord }[];
    const record = found[0]?.record as NamespaceRecord;
    const joined = nextJoined(record);
    const gone = ['host-8', 'host-9'].map((name): Voter => {
      return { host: hostId(name), store: storeId(`${name}'s`), joined };
    });
    const joint = {
      ...record,
      revision: record.revision + 1,
      nextVoters: [...voters.slice(0, 1), ...gone],
    };
    const own = { incarnation: incarnation(1_000_000), host: host(1).name };
    const proposal = {
      object,
      ballot: { counter: 1_000_000, ...own },
      nextBallot: { counter: 1_000_001, ...own },
      record: joint as unknown as JsonValue,
      history: [],
    };
    const { peer } = host(1);
    for (const voter of voters) {
      const accept = { ...proposal, voter: { ...voter } };
      const asked = peer?.ask(voter.host, 'register.accept', accept, 1000);
      if (voter.host !== host(1).name) {
        expect(await clock.wait(asked as Promise<JsonValue>)).toEqual({ answer: 'accepted' });
      }
    }
    host(1).crash(true);
    await clock.run(10_000);
    await expect(clock.wait(store(2).lockStatus(vm))).rejects.toMatchObject({
      code: 'inaccessible',
    });
  });
});
