// Disks that fill up, lie or tear: detected, said, and never served as good. The VM goes on with its
// other copy.

import { afterEach, describe, expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { DiskError } from '../../src/ports/disk.ts';
import { Cluster, type Machine } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

afterEach((context) => {
  if (context.task.result?.state === 'fail') console.log(cluster.log.slice(-120).join('\n'));
});

/** Three hosts with a running VM whose guest is on a host with data; gives the other data host. */
async function running(): Promise<{ here: Machine; other: Machine }> {
  cluster = new Cluster({ hosts: 3 });
  await cluster.start();
  const { manager } = cluster.machine('host-1');
  await cluster.wait(
    manager.createVm({ name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] }),
  );
  const [here, other] = copies('host-1').map((copy) => cluster.machine(copy.host));
  await cluster.wait(manager.startVm('web', { on: hostId((here as Machine).name) }));
  await cluster.until(() => cluster.writes('web') >= 3, 10_000);
  return { here: here as Machine, other: other as Machine };
}

function copies(from: string) {
  return cluster
    .machine(from)
    .manager.vm('web')
    .objects.flatMap((object) => object.components);
}

async function goesOn(): Promise<void> {
  const last = cluster.writes('web');
  await cluster.until(() => cluster.writes('web') >= last + 3, 30_000);
  cluster.assertSafe();
}

function said(machine: Machine, pattern: RegExp): boolean {
  return machine.events.some((event) => pattern.test(event.text));
}

describe('a full disk', () => {
  it('costs the copy on it, is said, and the copy comes back when there is space again', async () => {
    const { here, other } = await running();
    // A thin component: the file is there, its blocks are not.
    other.disk.fault = (kind, file) =>
      kind === 'write' && file.endsWith('.data') ? new DiskError('full', 'no space left') : null;
    await cluster.until(
      () => said(here, new RegExp(`copy of web/disk0 on ${other.name} does not count`)),
      20_000,
    );
    expect(said(here, /full|space/i)).toBe(true);
    await goesOn();
    other.disk.fault = null;
    await cluster.until(() => copies(here.name).every((copy) => copy.state === 'active'), 30_000);
    await goesOn();
    cluster.assertSafe();
  });

  it('refuses a new VM and leaves nothing of it', async () => {
    const { here } = await running();
    const used = cluster.machines.map(
      (machine) =>
        [...machine.disk.files.keys()].filter((name) => name.startsWith('components')).length,
    );
    for (const machine of cluster.machines)
      machine.disk.capacityBytes = machine.disk.usedBytes + MiB;
    await cluster.run(2000);
    const request = { name: 'big', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 64 * MiB }] };
    const answer = await cluster.wait(
      here.manager.createVm(request).then(
        () => 'made',
        (error: Error) => error.message,
      ),
    );
    expect(answer).toMatch(/free bytes are needed/);
    expect(
      cluster.machines.map(
        (machine) =>
          [...machine.disk.files.keys()].filter((name) => name.startsWith('components')).length,
      ),
    ).toEqual(used);
    expect(here.manager.vms().map((vm) => vm.name)).toEqual(['web']);
  });
});

describe('a journal', () => {
  it('that is damaged in the middle is not served: the host says so and votes for nothing', async () => {
    const { here, other } = await running();
    other.crash();
    const name = [...other.disk.files.keys()].find((file) => file.includes('journal')) as string;
    other.disk.damage(name, 40);
    await other.boot();
    await cluster.run(5000);
    const seen = here.manager.hosts().find((host) => host.name === other.name);
    expect(seen).toMatchObject({ storage: 'failed' });
    expect(seen?.problem).toMatch(/journal/);
    await goesOn();
    expect(copies(here.name).find((copy) => copy.host === other.name)?.state).toBe('degraded');
  });

  it('whose last record was torn by the power loss is cut there, and the host votes on', async () => {
    const { here, other } = await running();
    for (let round = 0; round < 5; round += 1) {
      other.disk.cutPowerAfter(300 + round * 97);
      await cluster.run(1500);
      other.crash();
      await cluster.run(4000);
      await other.boot();
      await cluster.until(() => copies(here.name).every((copy) => copy.state === 'active'), 40_000);
      expect(here.manager.hosts().every((host) => host.storage === 'reachable')).toBe(true);
    }
    await goesOn();
    cluster.assertSafe();
  });

  it('of an emptied store makes another voter, which the objects do not know', async () => {
    const { here, other } = await running();
    const third = cluster.machines.find(
      (machine) => machine !== here && machine !== other,
    ) as Machine;
    other.crash();
    other.disk.files.clear();
    third.killDaemon();
    await other.boot();
    await cluster.until(() => here.guest('web').state === 'paused', 10_000);
    await cluster.run(10_000);
    expect(cluster.running('web')).toEqual([]);
    expect(copies(here.name).find((copy) => copy.host === other.name)?.state).not.toBe('active');
    // With a majority of the old voters it becomes one, and gets its copy again.
    await third.boot();
    await goesOn();
    await cluster.until(() => copies(here.name).every(({ state }) => state === 'active'), 20_000);
    third.killDaemon();
    await goesOn();
  });
});

describe('a disk that loses un-synced writes', () => {
  it('while the guest runs elsewhere is resynced before it counts', async () => {
    const { here, other } = await running();
    other.crash();
    await cluster.run(500);
    await other.boot();
    await cluster.run(6000); // by now the copy was found missing, if it was
    await cluster.until(() => copies(here.name).every((copy) => copy.state === 'active'), 40_000);
    const before = here.name;
    await goesOn();
    here.crash();
    await cluster.until(() => cluster.running('web').some((host) => host !== before), 30_000);
    await goesOn();
    cluster.assertSafe();
  });

  it('while its VM is started fails the start: it would answer nobody', async () => {
    cluster = new Cluster({ hosts: 3 });
    await cluster.start();
    const disks = [{ sizeBytes: 4 * MiB, policy: 'single' }, { sizeBytes: 4 * MiB }];
    const request = { name: 'web', memoryBytes: 96 * MiB, disks, protected: false };
    await cluster.wait(cluster.machine('host-1').manager.createVm(request));
    await cluster.run(1000);
    const [only] = copies('host-1').map((copy) => cluster.machine(copy.host)) as [Machine];
    const [here, other] = cluster.machines.filter((one) => one !== only) as [Machine, Machine];
    const start = (on: Machine) => on.manager.startVm('web', { on: on.name });
    await cluster.wait(start(here));
    await cluster.run(3000);
    only.crash();
    here.crash();
    await here.boot();
    await only.boot();
    await cluster.run(5000);
    here.disk.slowerByMs = 100;
    let opened = 0;
    cluster.world.observe({
      reached: (_, point) => {
        if (point.at !== 'disk.opened') return;
        opened += 1;
        if (opened > 1) return;
        // One disk is open, and what it is to make durable is under way; the other is not open yet.
        only.crash();
        cluster.world.time.after(300, () => only.virtual.powerOn());
      },
    });
    await expect(cluster.wait(start(other))).rejects.toThrow('lost acknowledged writes');
    await cluster.wait(start(other));
    await goesOn();
  });
});
