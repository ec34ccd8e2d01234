// VMs that can do without some of their disks: what they are accessible for, what they are started with,
// and how their guests come by the rest.

import { beforeEach, describe, expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

const manager = (host = 'host-3') => cluster.machine(host).manager;
const others = ['host-4', 'host-5', 'host-6'];
const web = (host?: string) => manager(host).vm('web');
const disksOf = (host: string) => cluster.machine(host).guest('web').diskNames;

const told = (host: string) => cluster.machine(host).events.map((event) => event.text);

/** disk0 on the hosts 1 to 3, disk1 on the other three. */
beforeEach(async () => {
  cluster = new Cluster({ hosts: 6 });
  await cluster.start();
  await cluster.makeWeb({
    disks: [{ sizeBytes: 4 * MiB }, { sizeBytes: 4 * MiB, required: false }],
    objectHosts: { disk1: others.map(hostId) },
  });
});

async function start(on: string): Promise<void> {
  await cluster.wait(manager().startVm('web', { on: hostId(on) }));
  await cluster.until(() => web().protection.status === 'protected', 10_000);
}

async function loseOthers(): Promise<void> {
  for (const host of others) cluster.machine(host).crash();
  await cluster.run(6000);
}

async function bringOthersBack(): Promise<void> {
  for (const host of others) await cluster.machine(host).boot();
  await cluster.until(() => manager().object('web/disk1').problems.length === 0, 60_000);
}

async function hasBoth(host: string): Promise<void> {
  await cluster.until(() => web(host).detached.length === 0, 30_000);
  expect(disksOf(host)).toEqual(['disk0', 'disk1']);
}

/** Half of the guest's writes go to disk1: it would not get far without. */
async function writesToBoth(): Promise<void> {
  const before = cluster.writes('web');
  await cluster.run(10_000);
  expect(cluster.writes('web')).toBeGreaterThan(before + 10);
}

describe('a disk that is not required', () => {
  it('is there as any other while it can be reached', async () => {
    await start('host-1');
    expect(disksOf('host-1')).toEqual(['disk0', 'disk1']);
    expect(web()).toMatchObject({ detached: [], note: null });
  });

  it('does not keep the VM from failing over, and is plugged in when it is back', async () => {
    await start('host-1');
    await loseOthers();
    expect(web().accessible).toBe(true);
    cluster.machine('host-1').crash();
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    const host = cluster.running('web')[0] as string;
    expect(disksOf(host)).toEqual(['disk0']);
    await cluster.run(3000);
    expect(web(host)).toMatchObject({ detached: ['disk1'], accessible: true });
    expect(web(host).note).toMatch(/runs without disk1, and gets it when it can be reached/);
    expect(told(host)).toContainEqual(
      expect.stringMatching(/^VM web starts without disk1, .*0 of the 2 voters/),
    );
    const before = cluster.writes('web');
    await cluster.run(5000);
    expect(cluster.writes('web')).toBeGreaterThan(before);

    await bringOthersBack();
    await hasBoth(host);
    expect(web(host)).toMatchObject({ note: null });
    expect(told(host)).toContain('VM web has disk1: it was plugged in');
    await writesToBoth();
    expect(cluster.boots('web')).toBe(2);
    cluster.assertSafe();
  });

  it('is there as any other at the next start of a guest that got it while it ran', async () => {
    await loseOthers();
    await start('host-1');
    await bringOthersBack();
    await hasBoth('host-1');
    await cluster.wait(manager('host-1').stopVm('web', { force: true }));
    await cluster.run(2000);
    expect(web().detached).toEqual([]);
    await start('host-2');
    expect(disksOf('host-2')).toEqual(['disk0', 'disk1']);
    await writesToBoth();
    cluster.assertSafe();
  });

  it('is plugged in once, whenever the daemon is killed meanwhile', async () => {
    await loseOthers();
    await start('host-1');
    const { events } = cluster.machine('host-1');
    for (const host of others) cluster.machine(host).virtual.powerOn();
    // From before anybody can have noticed to long after it is done.
    for (let kills = 0; kills < 25; kills += 1) {
      await cluster.run(130 + 17 * kills);
      cluster.machine('host-1').killDaemon();
      await cluster.machine('host-1').boot();
    }
    await cluster.run(5000);
    await hasBoth('host-1');
    await writesToBoth();
    expect(cluster.boots('web')).toBe(1);
    expect(events.filter((event) => /plugged in/.test(event.text)).length).toBeLessThan(2);
    cluster.assertSafe();
  });

  it('is not plugged in while the guest is paused, and is when it goes on', async () => {
    await loseOthers();
    await start('host-1');
    const names = cluster.machines.map(({ name }) => name);
    cluster.world.partition('storage', [names.slice(0, 1), names.slice(1, 2), names.slice(2)]);
    await cluster.run(5000);
    for (const host of others) cluster.machine(host).virtual.powerOn();
    await cluster.run(10_000);
    expect(cluster.running('web')).toEqual([]);
    expect(disksOf('host-1')).toEqual(['disk0']);
    cluster.world.heal('storage');
    await hasBoth('host-1');
    await writesToBoth();
    cluster.assertSafe();
  });

  it('that the guest got while it ran does not hold up its end, gone again or not', async () => {
    await loseOthers();
    await start('host-1');
    await bringOthersBack();
    await hasBoth('host-1');
    await loseOthers();
    await cluster.wait(manager('host-1').stopVm('web', { force: true }));
    await cluster.until(() => web().power === 'off', 20_000);
    expect(cluster.running('web')).toEqual([]);
    cluster.assertSafe();
  });

  it('comes back to a guest that has it, although the daemon found it missing', async () => {
    await start('host-1');
    // Only their daemons: with their power, writes that the guest has not flushed would be lost.
    for (const host of others) cluster.machine(host).killDaemon();
    await cluster.run(6000);
    cluster.machine('host-1').killDaemon();
    await cluster.machine('host-1').boot();
    await cluster.run(15_000);
    expect(web('host-1')).toMatchObject({ power: 'running', detached: [] });
    await bringOthersBack();
    const before = cluster.writes('web');
    await cluster.run(10_000);
    // Half of the guest's writes go to the disk that was away, so it would not get far without.
    expect(cluster.writes('web')).toBeGreaterThan(before + 10);
    expect(cluster.boots('web')).toBe(1);
    cluster.assertSafe();
  });

  it('may be required later, and the other way round; others are named', async () => {
    await loseOthers();
    expect(web().accessible).toBe(true);
    await cluster.wait(manager().setRequired('web', 'disk1', true));
    await cluster.run(100);
    expect(web('host-2')).toMatchObject({ accessible: false });
    expect(web('host-2').spec.disks[1]).not.toHaveProperty('required');
    await expect(
      cluster.wait(manager().startVm('web', { on: hostId('host-1') })),
    ).rejects.toMatchObject({ code: 'inaccessible' });
    await cluster.wait(manager('host-2').setRequired('web', 'disk1', false));
    await cluster.run(100);
    expect(web().spec.disks[1]).toMatchObject({ required: false });
    await start('host-1');
    await expect(cluster.wait(manager().setRequired('web', 'disk7', false))).rejects.toThrow(
      /has no "disk7"; it has disk0, disk1/,
    );
  });

  it('makes a VM that waits for a disk start as soon as the disk is not required any more', async () => {
    await cluster.wait(manager().setRequired('web', 'disk1', true));
    await start('host-1');
    await loseOthers();
    cluster.machine('host-1').crash();
    await cluster.run(10_000);
    expect(cluster.running('web')).toEqual([]);
    await cluster.wait(manager().setRequired('web', 'disk1', false));
    await cluster.until(() => cluster.running('web').length === 1, 10_000);
    cluster.assertSafe();
  });
});
