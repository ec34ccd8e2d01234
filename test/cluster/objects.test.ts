// What a cluster says of its objects, and where it puts them: seen through the managers of whole hosts.

import { beforeEach, describe, expect, it } from 'vitest';
import type { ObjectInfo } from '../../src/manager/api.ts';
import { hostId } from '../../src/model/ids.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

const manager = () => cluster.machine('host-1').manager;
const siteOf = (host: string) => ['a', 'a', 'b', 'b', 'c', 'c'][Number(host.slice(5)) - 1] ?? '';
const object = (name: string): ObjectInfo => manager().object(name);
const dataHosts = (one: ObjectInfo) => [...new Set(one.components.map((part) => part.host))];

beforeEach(async () => {
  cluster = new Cluster({ hosts: 6, sites: ['a', 'a', 'b', 'b', 'c', 'c'] });
  await cluster.start();
  await cluster.run(2000);
});

describe('placement', () => {
  it('gives each disk its own policy, and copies and votes of each to different sites', async () => {
    await cluster.wait(manager().policies.create('wide', { failuresToTolerate: 2, stripes: 3 }));
    await cluster.wait(manager().policies.setDefault('wide'));
    await cluster.run(100);
    await cluster.wait(
      cluster.machine('host-4').manager.createVm({
        name: 'web',
        memoryBytes: 96 * MiB,
        disks: [
          { sizeBytes: 8 * MiB },
          { sizeBytes: 4 * MiB, policy: 'mirror' },
          { sizeBytes: 4 * MiB, policy: { failuresToTolerate: 0, stripes: 2 } },
        ],
      }),
    );
    const [wide, mirror, single] = ['disk0', 'disk1', 'disk2'].map((name) => object(`web/${name}`));
    expect(wide?.components.length).toBe(9);
    expect(
      dataHosts(wide as ObjectInfo)
        .map(siteOf)
        .sort(),
    ).toEqual(['a', 'b', 'c']);
    expect(dataHosts(mirror as ObjectInfo).map(siteOf)).toHaveLength(2);
    expect(new Set(mirror?.voters.map(siteOf)).size).toBe(3);
    expect(single?.voters).toHaveLength(1);
    expect(single?.components.map((part) => part.stripe)).toEqual([0, 1]);
    // It must survive what any of the disks survives, on hosts that these are on anyway.
    const namespace = object('web/namespace');
    expect(namespace.voters).toHaveLength(5);
    expect(new Set(namespace.voters)).toEqual(new Set(wide?.voters));
    for (const one of manager().objects({})) expect(one.problems).toEqual([]);

    // Stripes lie on the host of their mirror: the loss of a whole site takes one copy and no majority.
    const site = siteOf(dataHosts(mirror as ObjectInfo)[1] as string);
    for (const machine of cluster.machines) if (siteOf(machine.name) === site) machine.crash();
    await cluster.run(5000);
    const seen = cluster.machines.find((one) => siteOf(one.name) !== site);
    const after = seen?.manager.object('web/disk1');
    expect(after?.accessible.accessible).toBe(true);
  });

  it('spreads the VMs over all hosts', async () => {
    for (let index = 0; index < 18; index += 1) {
      const disks = [{ sizeBytes: 4 * MiB }];
      const request = { name: `vm-${index}`, memoryBytes: 96 * MiB, disks };
      await cluster.wait(manager().createVm(request));
    }
    const copies = new Map<string, number>();
    for (const one of manager().objects({})) {
      for (const { host } of one.components) copies.set(host, (copies.get(host) ?? 0) + 1);
    }
    expect([...copies.values()]).toEqual([6, 6, 6, 6, 6, 6]);
  });
});

describe('objects', () => {
  beforeEach(async () => {
    const hosts = ['host-1', 'host-3', 'host-5'].map(hostId);
    await cluster.runWeb({ disks: [{ sizeBytes: 4 * MiB }], hosts });
  });

  const states = (name: string) => object(name).components.map((part) => part.state);
  const problems = () =>
    manager()
      .objects({ problems: true })
      .map((one) => [one.label, ...one.problems]);

  it('say which copy is absent, and comply again when it is back and in sync', async () => {
    expect(problems()).toEqual([]);
    cluster.machine('host-3').crash();
    await cluster.run(8000);
    expect(states('web/disk0')).toEqual(['active', 'absent']);
    expect(object('web/disk0').votes).toEqual([
      { host: 'host-1', role: 'data', state: 'reachable' },
      { host: 'host-3', role: 'data', state: 'absent' },
      { host: 'host-5', role: 'witness', state: 'reachable' },
    ]);
    const votes = '1 of its 3 voters can not be reached: host-3';
    expect(problems()).toEqual([
      ['namespace', `${votes} (witness, absent)`],
      [
        'disk0',
        'It has 1 of the 2 whole copies that its policy asks for: host-3 (absent)',
        `${votes} (data, absent)`,
      ],
    ]);
    await cluster.machine('host-3').boot();
    await cluster.until(() => problems().length === 0, 30_000);
    expect(states('web/disk0')).toEqual(['active', 'active']);
    cluster.assertSafe();
  });

  it('say which copy is degraded: its host answers, and with another store', async () => {
    cluster.machine('host-3').virtual.replaceDisk();
    await cluster.until(() => states('web/disk0')[1] === 'degraded', 20_000);
    expect(object('web/disk0').votes[1]?.state).toBe('degraded');
    expect(object('web/disk0').accessible.accessible).toBe(true);
  });

  it('say why they are not accessible', async () => {
    cluster.machine('host-3').crash();
    cluster.machine('host-5').crash();
    await cluster.run(8000);
    const [, disk] = problems();
    expect(disk?.[1]).toMatch(/^It is not accessible: disk object disk0 has 1 of the 2 voters/);
    expect(manager().objects({ vm: 'web' })).toHaveLength(2);
    expect(() => manager().object('web/disk7')).toThrow(/it has namespace, disk0/);
    expect(() => manager().object('nothing')).toThrow(/There is no object nothing/);
    const { object: id } = object('web/disk0');
    expect(manager().object(id)).toMatchObject({ vmName: 'web', label: 'disk0' });
  });
});
