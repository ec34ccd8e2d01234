// The main job on virtual time: the production hosts, with disks, networks and guests in the test's
// hand. What a user would see is checked from outside: which guests run, and what they report.

import { afterEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/model/errors.ts';
import { type HostId, hostId } from '../../src/model/ids.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;

afterEach((context) => {
  if (context.task.result?.state === 'fail') console.log(cluster.log.slice(-120).join('\n'));
});

async function clusterOf(hosts: number, seed = 1): Promise<Cluster> {
  cluster = new Cluster({ hosts, seed });
  await cluster.start();
  return cluster;
}

async function startVm(on: string, name = 'web'): Promise<void> {
  const { manager } = cluster.machine(on);
  const request = { name, memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] };
  await cluster.wait(manager.createVm(request));
  await cluster.wait(manager.startVm(name, { on: hostId(on) }));
  await cluster.until(() => cluster.writes(name) >= 3, 10_000);
  await cluster.until(() => manager.vm(name).protection.status === 'protected', 10_000);
}

/** The guest writes and reports on, wherever it runs. */
async function goesOn(name = 'web', withinMs = 30_000): Promise<void> {
  const last = cluster.writes(name);
  await cluster.until(() => cluster.writes(name) >= last + 3, withinMs);
}

async function runsElsewhere(name: string, than: HostId, withinMs: number): Promise<HostId> {
  await cluster.until(() => cluster.running(name).some((host) => host !== than), withinMs);
  return cluster.running(name)[0] as HostId;
}

function allIsWell(): void {
  cluster.assertSafe();
  cluster.assertSafe();
}

/** The host among three that holds none of the VM's data. */
function witnessOf(name: string): HostId {
  const { manager } = cluster.machine('host-1');
  const disk = manager.vm(name).objects.find((object) => object.kind === 'disk');
  const holding = disk?.components.map((component) => component.host) ?? [];
  return disk?.voters.find((host) => !holding.includes(host)) as HostId;
}

describe('a cluster of three hosts', () => {
  it('starts a VM, which writes and is protected', async () => {
    await clusterOf(3);
    await startVm('host-1');
    const seen = cluster.machine('host-3').manager.vm('web');
    expect(seen).toMatchObject({ power: 'running', host: 'host-1', accessible: true });
    expect(seen.protection).toEqual({ status: 'protected' });
  });

  it.each([1, 2, 3])(
    'restarts a VM of a dead host with every acknowledged write (seed %i)',
    async (seed) => {
      await clusterOf(3, seed);
      await startVm('host-1');
      const diedAt = cluster.now();
      cluster.machine('host-1').crash();
      await runsElsewhere('web', hostId('host-1'), 30_000);
      expect(cluster.now() - diedAt).toBeLessThan(6000);
      await goesOn();
      allIsWell();
    },
  );

  it('restarts the VMs of the master, too', async () => {
    await clusterOf(3);
    const master = cluster.machine('host-1').manager.status().master as HostId;
    await startVm(master);
    const diedAt = cluster.now();
    cluster.machine(master).crash();
    await runsElsewhere('web', master, 30_000);
    expect(cluster.now() - diedAt).toBeLessThan(6000);
    await goesOn();
    allIsWell();
  });

  it('runs a VM on the host that holds none of its data', async () => {
    await clusterOf(3);
    await startVm('host-1');
    const bare = witnessOf('web');
    const { manager } = cluster.machine('host-1');
    await cluster.wait(manager.stopVm('web', { force: false }));
    await cluster.wait(manager.startVm('web', { on: bare }));
    await goesOn();
    expect(cluster.running('web')).toEqual([bare]);
    allIsWell();
  });

  it('brings the copy of a host that returns up to date, and survives the loss of the other', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.machine('host-1').crash();
    const second = await runsElsewhere('web', hostId('host-1'), 30_000);
    await goesOn();
    await cluster.machine('host-1').boot();
    const active = () =>
      cluster
        .machine('host-3')
        .manager.vm('web')
        .objects.flatMap((object) => object.components)
        .every((component) => component.state === 'active');
    await cluster.until(active, 30_000);
    cluster.machine(second).crash();
    await runsElsewhere('web', second, 30_000);
    await goesOn();
    allIsWell();
  });

  it('pauses guests whose objects lost their majority, and goes on when a host is back', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.machine('host-2').crash();
    cluster.machine('host-3').crash();
    await cluster.until(() => cluster.machine('host-1').guest('web').state === 'paused', 6000);
    await cluster.run(20_000);
    expect(cluster.running('web')).toEqual([]);
    await cluster.machine('host-2').boot();
    await cluster.until(() => cluster.running('web').length === 1, 20_000);
    expect(cluster.running('web')).toEqual(['host-1']);
    await goesOn();
    allIsWell();
  });

  it('lets guests run on while their daemon is killed and restarted within the lease', async () => {
    await clusterOf(3);
    await startVm('host-1');
    const guest = cluster.machine('host-1').guest('web');
    cluster.machine('host-1').killDaemon();
    await cluster.run(1000);
    await cluster.machine('host-1').boot();
    await goesOn();
    expect(cluster.machine('host-1').guest('web')).toBe(guest);
    expect(cluster.boots('web')).toBe(1);
    expect(cluster.running('web')).toEqual(['host-1']);
    allIsWell();
  });

  it('pauses the guests of a daemon that stays away, and ends them when another host took over', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.machine('host-1').killDaemon();
    await runsElsewhere('web', hostId('host-1'), 30_000);
    expect(cluster.machine('host-1').guest('web').state).toBe('paused');
    await goesOn();
    await cluster.machine('host-1').boot();
    await cluster.until(() => cluster.machine('host-1').guests.size === 0, 20_000);
    await goesOn();
    allIsWell();
  });

  it('finds everything again after all daemons were killed', async () => {
    await clusterOf(3);
    await startVm('host-1');
    for (const machine of cluster.machines) machine.killDaemon();
    await cluster.run(10_000);
    expect(cluster.running('web')).toEqual([]);
    for (const machine of cluster.machines) await machine.boot();
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    await goesOn();
    expect(cluster.boots('web')).toBe(1);
    allIsWell();
  });

  it('restarts everything after all hosts lost their power', async () => {
    await clusterOf(3);
    await startVm('host-1');
    await startVm('host-2', 'db');
    for (const machine of cluster.machines) machine.crash();
    await cluster.run(5000);
    for (const machine of cluster.machines) await machine.boot();
    await cluster.until(
      () => ['web', 'db'].every((name) => cluster.running(name).length === 1),
      40_000,
    );
    await goesOn('web');
    await goesOn('db');
    allIsWell();
  });

  it('does not restart what its user has switched off', async () => {
    await clusterOf(3);
    await startVm('host-1');
    const { manager } = cluster.machine('host-2');
    await cluster.wait(manager.stopVm('web', { force: false }));
    await cluster.until(() => manager.vm('web').power === 'off', 1000);
    expect(manager.vm('web').protection.status).toBe('unprotected');
    cluster.machine('host-1').crash();
    await cluster.run(20_000);
    expect(cluster.running('web')).toEqual([]);
  });

  it('restarts a guest that ends by itself without being told, and one that panics', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.machine('host-1').guest('web').exit(false, 'signal 11');
    await cluster.until(() => cluster.running('web').length === 1, 20_000);
    await goesOn();
    const [host] = cluster.running('web');
    cluster
      .machine(host as string)
      .guest('web')
      .panic();
    await cluster.until(() => cluster.running('web').length === 0, 20_000);
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    await goesOn();
    allIsWell();
  });
});

describe('a power-off that can not be recorded yet', () => {
  for (const isProtected of [true, false]) {
    it(`of ${isProtected ? 'a protected' : 'an unprotected'} VM is shown as what it is`, async () => {
      await clusterOf(3);
      const { manager } = cluster.machine('host-1');
      const request = { name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] };
      await cluster.wait(manager.createVm({ ...request, protected: isProtected }));
      await cluster.wait(manager.startVm('web', { on: hostId('host-1') }));
      await cluster.run(3000);
      for (const other of ['host-2', 'host-3']) cluster.machine(other).killDaemon();
      await cluster.run(10_000);
      await cluster.wait(manager.stopVm('web', { force: true }));
      await cluster.run(1000);
      const { power, protection, note } = manager.vm('web');
      expect(power).toBe('stopping');
      expect(note).toMatch(/^its power-off is recorded when/);
      const reason = 'its specification says so';
      expect(protection).toEqual(
        isProtected ? { status: 'pending', reason: note } : { status: 'unprotected', reason },
      );
    });
  }
});

describe('a start', () => {
  it('that fails leaves no lock, no guest and no open disk, and can be tried again', async () => {
    await clusterOf(3);
    const machine = cluster.machine('host-2');
    const request = { name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] };
    await cluster.wait(machine.manager.createVm(request));
    machine.virtual.startFailure = new HoldfastError('guest-failed', 'no such machine type');
    await expect(
      cluster.wait(machine.manager.startVm('web', { on: machine.name })),
    ).rejects.toThrow(/machine type/);
    expect(machine.manager.vm('web')).toMatchObject({ power: 'off' });
    machine.virtual.startFailure = null;
    await cluster.wait(machine.manager.startVm('web', { on: hostId('host-3') }));
    await goesOn();
    allIsWell();
  });

  it('is refused where the memory is used up, and of a VM that runs already', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.machine('host-2').virtual.memoryBytes = 64 * MiB;
    const { manager } = cluster.machine('host-3');
    const refusal = (name: string, on: string) =>
      cluster.wait(
        manager.startVm(name, { on: hostId(on) }).then(
          () => 'started',
          (error: Error) => error.message,
        ),
      );
    expect(await refusal('web', 'host-3')).toMatch(/running on host-1/);
    await cluster.wait(
      manager.createVm({ name: 'db', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] }),
    );
    expect(await refusal('db', 'host-2')).toMatch(/memory/);
    expect(await refusal('db', 'nowhere')).toMatch(/no host nowhere/);
    expect(await refusal('log', 'host-2')).toMatch(/no VM log/);
  });

  it('without a master makes a VM that is protected when there is one', async () => {
    await clusterOf(3);
    const { manager } = cluster.machine('host-1');
    const request = { name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] };
    await cluster.wait(manager.createVm(request));
    await cluster.run(100);
    const master = manager.status().master as HostId;
    const other = cluster.machines.find((machine) => machine.name !== master)?.name as HostId;
    cluster.machine(master).killDaemon();
    const asked = cluster.machine(other).manager;
    await cluster.wait(asked.startVm('web', { on: other }));
    expect(asked.vm('web').protection.status).toBe('pending');
    await cluster.until(() => asked.vm('web').protection.status === 'protected', 10_000);
  });

  it('right after a power-off has nothing to do with the disks that were being opened then', async () => {
    cluster = new Cluster({ hosts: 3 });
    await cluster.start();
    const one = cluster.machine('host-1');
    await cluster.runWeb({ disks: [{ sizeBytes: 4 * MiB }, { sizeBytes: 4 * MiB }] });
    one.killDaemon();
    for (const machine of cluster.machines) machine.disk.slowerByMs = 30;
    cluster.points.splice(0);
    await one.boot();
    await cluster.until(() => cluster.points.some(({ at }) => at === 'disk.fenced'), 10_000);
    await cluster.wait(one.manager.stopVm('web', { force: true }));
    await cluster.wait(one.manager.startVm('web', { on: one.name }));
    for (const machine of cluster.machines) machine.disk.slowerByMs = 0;
    await goesOn('web');
    expect(one.events.some(({ text }) => text.includes('another host'))).toBe(false);
    cluster.assertSafe();
  });

  it('that its guest ends by switching itself off is not repeated', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.machine('host-1').guest('web').exit(true, 'the guest switched itself off');
    await cluster.run(15_000);
    expect(cluster.running('web')).toEqual([]);
    const seen = cluster.machine('host-2').manager.vm('web');
    expect(seen).toMatchObject({ power: 'off', protection: { status: 'unprotected' } });
  });

  it('of an unprotected VM is not repeated when its host dies', async () => {
    await clusterOf(3);
    const { manager } = cluster.machine('host-2');
    const request = {
      name: 'web',
      memoryBytes: 96 * MiB,
      disks: [{ sizeBytes: 4 * MiB }],
      protected: false,
    };
    await cluster.wait(manager.createVm(request));
    await cluster.wait(manager.startVm('web', { on: hostId('host-1') }));
    await cluster.run(3000);
    expect(manager.vm('web').protection.status).toBe('unprotected');
    cluster.machine('host-1').crash();
    await cluster.run(20_000);
    expect(cluster.running('web')).toEqual([]);
  });
});

describe('a partition', () => {
  it('moves a VM from the side without a majority of its voters, and ends it there at the heal', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.world.partition('both', [['host-1'], ['host-2', 'host-3']]);
    await runsElsewhere('web', hostId('host-1'), 30_000);
    expect(cluster.machine('host-1').guest('web').state).toBe('paused');
    await goesOn();
    cluster.world.heal('both');
    await cluster.until(() => cluster.machine('host-1').guests.size === 0, 20_000);
    await goesOn();
    allIsWell();
  });

  it('leaves a VM where it runs with a majority, and restarts nothing after a short loss', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.world.partition('both', [['host-1', 'host-2'], ['host-3']]);
    await cluster.run(15_000);
    expect(cluster.running('web')).toEqual(['host-1']);
    cluster.world.heal('both');
    await goesOn();
    expect(cluster.boots('web')).toBe(1);
    allIsWell();
  });

  it('of the storage network does not bring back what its user switches off meanwhile', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.world.partition('storage', [['host-1'], ['host-2', 'host-3']]);
    await cluster.run(1000);
    const { manager } = cluster.machine('host-2');
    const stopped = await cluster.wait(manager.stopVm('web', { force: false }));
    expect(stopped.power).toBe('stopping');
    await cluster.run(25_000);
    expect(cluster.machines.flatMap((machine) => [...machine.guests])).toEqual([]);
    cluster.world.heal('both');
    await cluster.until(() => manager.vm('web').power === 'off', 15_000);
    await cluster.run(15_000);
    expect(manager.vm('web').protection.status).toBe('unprotected');
    expect(cluster.machines.flatMap((machine) => [...machine.guests])).toEqual([]);
  });

  it('of the storage network alone pauses the guest and lets it go on, without a restart', async () => {
    await clusterOf(3);
    await startVm('host-1');
    cluster.world.partition(
      'storage',
      cluster.machines.map(({ name }) => [name]),
    );
    await cluster.run(30_000);
    expect(cluster.running('web')).toEqual([]);
    cluster.world.heal('storage');
    await cluster.until(() => cluster.running('web').length === 1, 10_000);
    await goesOn();
    expect(cluster.boots('web')).toBe(1);
    allIsWell();
  });
});

describe('bad requests', () => {
  it('are refused with the reason, and leave nothing', async () => {
    await clusterOf(3);
    const { manager } = cluster.machine('host-2');
    const request = { name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] };
    const refusal = (change: object) =>
      cluster.wait(
        manager.createVm({ ...request, ...change }).then(
          () => 'made',
          (error: Error) => error.message,
        ),
      );
    expect(await refusal({ policy: 'mirror-3' })).toMatch(/needs 5 hosts, and 3 can be reached/);
    expect(await refusal({ policy: 'gold' })).toMatch(
      /`policy` is "gold": expected one of the policies default, single, mirror/,
    );
    expect(await refusal({ memoryBytes: -1 })).toMatch(/memoryBytes: expected/);
    expect(await refusal({ disks: [{ sizeBytes: 2 ** 50 }] })).toMatch(
      /free bytes are needed|expected/,
    );
    expect(await refusal({})).toBe('made');
    expect(await refusal({})).toMatch(/VM named web already/);
    await cluster.wait(manager.removeVm('web'));
    await cluster.run(2000);
    for (const machine of cluster.machines) {
      expect(machine.manager.vms()).toEqual([]);
      expect(
        [...machine.disk.files.keys()].filter((name) => name.startsWith('components')),
      ).toEqual([]);
    }
  });
});
