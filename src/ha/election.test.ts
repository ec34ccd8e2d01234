import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HaCluster } from '../../test/support/ha-cluster.ts';
import { hostId, term } from '../model/ids.ts';
import { type Claim, compareRank, decide, type ElectionView } from './election.ts';

const claim = (
  host: string,
  role: Claim['role'],
  reachable = 3,
  kind: Claim['kind'] = 'full',
): Claim => ({
  host: hostId(host),
  kind,
  role,
  term: term(4),
  reachable,
});

const view = (self: Claim, linked: Claim[], more: Partial<ElectionView> = {}): ElectionView => ({
  self,
  following: null,
  inElectionMs: 5000,
  waitMs: 1000,
  linked,
  others: 9,
  ...more,
});

describe('decide', () => {
  test('an agent stays with its master, though another reaches more storage hosts', () => {
    const linked = [claim('h1', 'master', 2), claim('h3', 'agent', 5), claim('h4', 'master', 9)];
    const following = hostId('h1');
    expect(decide(view(claim('h2', 'agent', 5), linked, { following }))).toEqual({ kind: 'stay' });
  });

  test('an agent whose master is gone follows another that it hears, or goes to election', () => {
    const self = claim('h2', 'agent');
    const following = hostId('h1');
    expect(decide(view(self, [claim('h3', 'master')], { following }))).toMatchObject({
      master: 'h3',
    });
    expect(decide(view(self, [claim('h3', 'agent')], { following }))).toMatchObject({
      kind: 'elect',
    });
  });

  test('most reachable storage hosts first, then the smallest host id', () => {
    const rivals = [claim('h1', 'election', 2), claim('h2', 'election', 3)];
    expect(decide(view(claim('h3', 'election', 3), rivals))).toEqual({ kind: 'stay' });
    expect(decide(view(claim('h3', 'election', 4), rivals))).toMatchObject({
      kind: 'stand',
      term: 5,
    });
  });

  test('nobody stands before the wait is over, unless all members are in the election', () => {
    const rivals = [claim('h2', 'election'), claim('h3', 'election')];
    const early = { inElectionMs: 10 };
    expect(decide(view(claim('h1', 'election'), rivals, early))).toEqual({ kind: 'stay' });
    expect(decide(view(claim('h1', 'election'), rivals, { ...early, others: 2 }))).toMatchObject({
      kind: 'stand',
    });
  });

  test('a witness never stands and is nobody that others wait for', () => {
    expect(decide(view(claim('w', 'election', 9, 'witness'), []))).toEqual({ kind: 'stay' });
    const linked = [claim('a', 'election', 9, 'witness')];
    expect(decide(view(claim('h1', 'election', 2), linked))).toMatchObject({ kind: 'stand' });
  });

  test('of masters that hear each other exactly one stays', () => {
    const claims = fc.uniqueArray(
      fc.record({
        host: fc.integer({ min: 1, max: 9 }),
        reachable: fc.integer({ min: 1, max: 4 }),
      }),
      { minLength: 1, selector: (it) => it.host },
    );
    fc.assert(
      fc.property(claims, (all) => {
        const masters = all.map((it) => claim(`h${it.host}`, 'master', it.reachable));
        const staying = masters.filter((self) => {
          return (
            decide(
              view(
                self,
                masters.filter((it) => it !== self),
              ),
            ).kind === 'stay'
          );
        });
        expect(staying).toEqual([masters.toSorted(compareRank)[0]]);
      }),
    );
  });
});

const names = (count: number) => Array.from({ length: count }, (_, index) => `h${index + 1}`);

describe('a cluster', () => {
  for (const size of [1, 2, 3, 5, 8]) {
    test(`of ${size} elects its smallest host at once when all start together`, async () => {
      const cluster = new HaCluster(names(size));
      cluster.boot();
      await cluster.run(600);
      expect(cluster.masters()).toEqual(['h1']);
      for (const { ha } of cluster.hosts.values()) expect(ha.master()).toBe('h1');
    });
  }

  test('that starts without some members waits for them, then elects', async () => {
    const cluster = new HaCluster(names(3));
    cluster.boot('h2', 'h3');
    await cluster.run(2400);
    expect(cluster.masters()).toEqual([]);
    await cluster.run(200);
    expect(cluster.masters()).toEqual(['h2']);
    cluster.boot('h1'); // listens first, and follows though it would rank better
    await cluster.run(5000);
    expect(cluster.masters()).toEqual(['h2']);
    expect(cluster.host('h1').ha.state).toBe('connectedToMaster');
  });

  for (const size of [3, 5]) {
    test(`of ${size} has a new master 2.5 s after the last heartbeat of the old one`, async () => {
      const cluster = new HaCluster(names(size));
      cluster.boot();
      await cluster.run(10_000);
      cluster.host('h1').kill();
      await cluster.run(1900); // its last heartbeat was up to 500 ms before
      expect(cluster.masters()).toEqual([]);
      await cluster.run(650);
      expect(cluster.masters()).toEqual(['h2']);
      expect(cluster.host('h3').ha.master()).toBe('h2');
      expect(cluster.host('h2').ha.term()).toBe(2);
    });
  }

  test('in a partition has one master in each part, and one again after the heal', async () => {
    for (let cut = 1; cut < 5; cut += 1) {
      const cluster = new HaCluster(names(5), { seed: cut });
      cluster.boot();
      await cluster.run(3000);
      const [left, right] = [names(5).slice(0, cut), names(5).slice(cut)];
      cluster.network.partition(left.map(hostId), right.map(hostId));
      await cluster.run(3100);
      expect(cluster.masters()).toEqual([left[0], right[0]]);
      expect(cluster.host('h5').ha.hosts()[0]?.state).toBe('networkPartitionedFromMaster');
      cluster.network.healAll();
      await cluster.run(1100);
      expect(cluster.masters()).toEqual(['h1']);
      const abdicated = cluster
        .host(right[0] as string)
        .events.filter((it) => it.type === 'master.abdicated');
      expect(abdicated).toHaveLength(1);
      for (const { ha } of cluster.hosts.values()) expect(ha.master()).toBe('h1');
      expect(cluster.errors()).toEqual([]);
    }
  });

  test('the part that reaches more storage hosts keeps its master after a heal', async () => {
    const cluster = new HaCluster(names(5));
    cluster.boot();
    await cluster.run(3000);
    const groups = [['h1', 'h2'].map(hostId), ['h3', 'h4', 'h5'].map(hostId)] as const;
    cluster.network.partition(...groups);
    cluster.storageGroups = groups.map((it) => [...it]);
    await cluster.run(4000);
    cluster.network.healAll(); // the storage network is still split
    await cluster.run(2000);
    expect(cluster.masters()).toEqual(['h3']);
  });

  test('does not change its master when another host reaches more storage hosts', async () => {
    const cluster = new HaCluster(names(3));
    cluster.boot();
    await cluster.run(3000);
    cluster.storageGroups = [['h1'].map(hostId), ['h2', 'h3'].map(hostId)];
    await cluster.run(20_000);
    expect(cluster.masters()).toEqual(['h1']);
    expect(cluster.log.filter((line) => line.includes('abdicated'))).toEqual([]);
  });

  test('a link that works one way is no link; both sides have a master of their own', async () => {
    const cluster = new HaCluster(names(2));
    cluster.boot();
    await cluster.run(2000);
    cluster.network.faults = { ...cluster.network.faults, detectMs: 1e9 }; // sessions stay up
    cluster.network.cut(hostId('h1'), hostId('h2'), true);
    await cluster.run(6000);
    expect(cluster.masters()).toEqual(['h1', 'h2']);
    cluster.network.healAll();
    await cluster.run(2000);
    expect(cluster.masters()).toEqual(['h1']);
  });

  test('a witness takes part and is never master', async () => {
    const cluster = new HaCluster(['a', 'h1', 'h2'], { witnesses: ['a'] });
    cluster.boot();
    await cluster.run(1000);
    expect(cluster.masters()).toEqual(['h1']);
    cluster.host('h1').kill();
    cluster.host('h2').kill();
    await cluster.run(10_000);
    expect(cluster.masters()).toEqual([]);
    expect(cluster.host('a').ha.state).toBe('election');
  });

  test('a master that stood still steps down and listens before it acts', async () => {
    const cluster = new HaCluster(names(3));
    cluster.boot();
    await cluster.run(3000);
    const vm = cluster.addVm('v');
    await cluster.powerOn(vm, 'h3');
    await cluster.run(1000);
    cluster.host('h1').clock.frozen = true;
    cluster.network.detach(hostId('h1')); // nothing gets through to it
    await cluster.run(20_000);
    expect(cluster.host('h3').ha.master()).toBe('h2');
    cluster.host('h1').clock.frozen = false;
    await cluster.run(100);
    expect(cluster.host('h1').ha.state).toBe('election');
    const types = cluster.host('h1').events.map((it) => it.type);
    expect(types).toContain('master.abdicated');
    expect(types).not.toContain('host.failed');
    expect(types.filter((it) => it.startsWith('failover'))).toEqual([]);
  });

  test('a host that hears nobody on either network is isolated and master of itself', async () => {
    const cluster = new HaCluster(names(3));
    cluster.boot();
    await cluster.run(3000);
    cluster.network.partition(['h1'].map(hostId), ['h2', 'h3'].map(hostId));
    cluster.storageGroups = [['h1'].map(hostId), ['h2', 'h3'].map(hostId)];
    await cluster.run(4000);
    expect(cluster.host('h1').ha.state).toBe('networkIsolated');
    expect(cluster.host('h2').ha.hosts()[0]?.state).toBe('hostDown');
    cluster.storageGroups = [];
    cluster.network.healAll();
    await cluster.run(4000);
    expect(cluster.host('h1').ha.state).toBe('master');
    expect(cluster.errors()).toEqual([]);
  });
});
