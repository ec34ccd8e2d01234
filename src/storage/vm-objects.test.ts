// Making and removing VMs on a small cluster: whatever fails on the way, nothing half-made is left.

import { beforeEach, describe, expect, it } from 'vitest';
import { type LeaseHost, LeaseWorld } from '../../test/support/lease-world.ts';
import { SeededRandom } from '../../test/support/seeded-random.ts';
import type { HostId } from '../model/ids.ts';
import type { StoragePolicy } from '../model/policy.ts';
import type { VmSpec } from '../model/vm.ts';
import { DiskError } from '../ports/disk.ts';
import type { Store } from './store.ts';

const MiB = 2 ** 20;
let world: LeaseWorld;

function spec(
  name: string,
  disks = 2,
  policy: StoragePolicy = { failuresToTolerate: 1, stripes: 1 },
): VmSpec {
  return {
    name,
    cpus: 1,
    memoryBytes: 0,
    boot: 'none',
    disks: Array.from({ length: disks }, (_, index) => ({
      name: `disk${index}`,
      sizeBytes: MiB,
      policy,
    })),
    protected: false,
    priority: 'medium',
  };
}

function host(number: number): LeaseHost {
  return world.hosts[number - 1] as LeaseHost;
}

function store(number: number): Store {
  const running = host(number).store;
  if (running === null) throw new Error(`host ${number} is down`);
  return running;
}

const files = () =>
  world.hosts.flatMap(({ disk }) =>
    [...disk.files.keys()].filter((name) => name.startsWith('components/')),
  );
const names = () =>
  world.hosts.map(
    ({ store: running }) =>
      running
        ?.vms()
        .map((vm) => vm.name)
        .join() ?? '-',
  );

async function clusterOf(hosts: number, seed: number | string = 1): Promise<void> {
  world = new LeaseWorld({ seed, hosts });
  await world.boot();
}

beforeEach(() => clusterOf(3));

describe('making a VM', () => {
  it('makes its objects on hosts that share them, and says so everywhere', async () => {
    const vm = await world.clock.wait(store(1).createVm(spec('web')));
    await world.clock.run(100);
    expect(names()).toEqual(['web', 'web', 'web']);
    const view = store(2).vm(vm);
    expect(view).toMatchObject({
      lifecycle: 'ready',
      lock: { holder: null },
      accessible: { accessible: true },
    });
    expect(view?.dataHosts.length).toBe(2);
    expect(files().length).toBe(2 * 2 * 2);
  });

  it('makes them where they are asked for, and refuses where they can not be', async () => {
    await clusterOf(5);
    const [h1, h2, h3, h4, h5] = world.hosts.map(({ name }) => name) as [
      HostId,
      HostId,
      HostId,
      HostId,
      HostId,
    ];
    const vm = await world.clock.wait(
      store(1).createVm(spec('web'), {
        hosts: [h5, h3, h1],
        objectHosts: { disk1: [h2, h4, h5], namespace: [h1, h2, h3, h4, h5] },
      }),
    );
    const where = store(1)
      .objects(vm)
      .map(({ name, voters, components }) => [name, voters, components.map(({ host: on }) => on)]);
    expect(where).toEqual([
      ['web', [h1, h2, h3, h4, h5], []],
      ['disk0', [h5, h3, h1], [h5, h3]],
      ['disk1', [h2, h4, h5], [h2, h4]],
    ]);
    expect(store(1).objects(vm)[0]?.policy.failuresToTolerate).toBe(2);
    // Without disks that have to survive something, one host alone is enough where it is asked for.
    const single = await world.clock.wait(
      store(1).createVm(spec('single', 1, { failuresToTolerate: 0, stripes: 2 }), { hosts: [h4] }),
    );
    expect(
      store(1)
        .objects(single)
        .map(({ voters }) => voters),
    ).toEqual([[h4], [h4]]);
    await expect(store(1).createVm(spec('no'), { hosts: [h1, h2] })).rejects.toMatchObject({
      code: 'bad-request',
      message: expect.stringMatching(/^hosts: .*disk0 needs 3 hosts, found 2/),
    });
    host(3).crash(true);
    await world.clock.run(5000);
    await expect(store(1).createVm(spec('no'), { hosts: [h1, h2, h3] })).rejects.toMatchObject({
      code: 'policy-unsatisfiable',
      message: expect.stringMatching(/^hosts: host-3 can not be reached/),
    });
    expect(names().slice(0, 2)).not.toContain('no');
  });

  it('refuses a name in use, also by one that is being made', async () => {
    const first = store(1).createVm(spec('web'));
    await expect(store(1).createVm(spec('web'))).rejects.toMatchObject({ code: 'name-in-use' });
    await world.clock.wait(first);
    await world.clock.run(100);
    await expect(store(2).createVm(spec('web'))).rejects.toMatchObject({ code: 'name-in-use' });
  });

  it('leaves nothing where the policy or the space can not be had', async () => {
    const demanding = spec('big', 1, { failuresToTolerate: 2, stripes: 1 });
    await expect(store(1).createVm(demanding)).rejects.toMatchObject({
      code: 'policy-unsatisfiable',
    });
    const disks = [{ ...(spec('big').disks[0] as VmSpec['disks'][0]), sizeBytes: 2 ** 40 }];
    await expect(store(1).createVm({ ...spec('big'), disks })).rejects.toMatchObject({
      code: 'no-capacity',
    });
    await world.clock.run(2000);
    expect(names()).toEqual(['', '', '']);
    expect(files()).toEqual([]);
  });

  it.each([1, 2, 3])('leaves nothing where the disk of host %i fails midway', async (number) => {
    host(number).disk.fault = ({ kind, file }) =>
      file.startsWith('components/') && kind === 'resize'
        ? new DiskError('full', 'no space left')
        : null;
    const made = await world.clock.wait(store(1).createVm(spec('web'))).then(
      () => true,
      (error: unknown) => {
        expect(error).toMatchObject({ code: 'disk-full' });
        return false;
      },
    );
    await world.clock.run(3000);
    expect(names()).toEqual(made ? ['web', 'web', 'web'] : ['', '', '']);
    if (!made) expect(files()).toEqual([]);
    host(number).disk.fault = () => null;
    const again = world.clock.wait(store(2).createVm(spec('web')));
    if (made) await expect(again).rejects.toMatchObject({ code: 'name-in-use' });
    else await again;
  });

  it('is made wholly or not at all where its maker dies at any moment', async () => {
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 12; seed += 1) {
      await clusterOf(3, `creator ${seed}`);
      const random = new SeededRandom(seed);
      store(1)
        .createVm(spec('web'))
        .catch(() => undefined);
      await world.clock.run(random.next() * 120);
      host(1).crash(random.chance(0.5));
      await world.clock.run(random.next() * 8000);
      if (random.chance(0.7)) await host(1).boot();
      await world.clock.run(25_000);
      if (host(1).store === null) await host(1).boot();
      await world.clock.run(12_000);
      const [view] = store(2).vms();
      if (view === undefined) {
        expect(names(), `seed ${seed}`).toEqual(['', '', '']);
        expect(files(), `seed ${seed}`).toEqual([]);
      } else {
        expect(view, `seed ${seed}`).toMatchObject({
          lifecycle: 'ready',
          accessible: { accessible: true },
        });
        expect(view.lock.holder).toBe(null);
        expect(files().length).toBe(2 * 2 * 2);
      }
      outcomes.add(view?.lifecycle ?? 'nothing');
      const again = await world.clock.wait(store(2).createVm(spec('other')));
      expect(store(2).vm(again)?.lifecycle).toBe('ready');
    }
    expect([...outcomes].sort()).toEqual(['nothing', 'ready']);
  });

  it('does not make ready what was removed while its maker was cut off', async () => {
    for (let seed = 0; seed < 6; seed += 1) {
      await clusterOf(3, `cut ${seed}`);
      const random = new SeededRandom(seed);
      let error: unknown = null;
      store(1)
        .createVm(spec('web'))
        .catch((reason: unknown) => {
          error = reason;
        });
      await world.clock.run(random.next() * 40);
      const [one, ...others] = world.hosts.map(({ name }) => name);
      world.network.partition([one as never], others);
      await world.clock.run(4000 + random.next() * 16_000);
      world.network.healAll();
      await world.clock.run(25_000);
      const [view] = store(3).vms();
      if (view === undefined) expect(files(), `seed ${seed}`).toEqual([]);
      else
        expect(view, `seed ${seed}`).toMatchObject({ lifecycle: 'ready', lock: { holder: null } });
      expect(new Set(names()).size, `seed ${seed}`).toBe(1);
      if (view === undefined) expect(error, `seed ${seed}`).not.toBe(null);
    }
  });
});

describe('removing a VM', () => {
  it('leaves nothing, and its name can be used again', async () => {
    const vm = await world.clock.wait(store(1).createVm(spec('web')));
    await world.clock.run(100);
    await world.clock.wait(store(3).removeVm(vm));
    await world.clock.run(1000);
    expect(names()).toEqual(['', '', '']);
    expect(files()).toEqual([]);
    await expect(store(3).removeVm(vm)).rejects.toMatchObject({ code: 'unknown-vm' });
    await world.clock.wait(store(2).createVm(spec('web')));
  });

  it('is refused while it runs', async () => {
    const vm = await world.clock.wait(store(1).createVm(spec('web')));
    await world.clock.run(100);
    await world.clock.wait(store(2).lock(vm));
    await expect(world.clock.wait(store(1).removeVm(vm))).rejects.toMatchObject({
      code: 'lock-held',
    });
    await expect(world.clock.wait(store(2).removeVm(vm))).rejects.toMatchObject({
      code: 'already-running',
    });
    expect(store(1).vm(vm)?.lifecycle).toBe('ready');
  });

  it('is finished by others where its remover dies, and by a host that was down when it is back', async () => {
    for (let seed = 0; seed < 6; seed += 1) {
      await clusterOf(3, `remover ${seed}`);
      const random = new SeededRandom(seed);
      const vm = await world.clock.wait(store(1).createVm(spec('web')));
      await world.clock.run(100);
      store(1)
        .removeVm(vm)
        .catch(() => undefined);
      await world.clock.run(random.next() * 30);
      host(1).crash(random.chance(0.5));
      await world.clock.run(25_000);
      const [view] = store(2).vms();
      if (view !== undefined) {
        expect(view, `seed ${seed}`).toMatchObject({ lifecycle: 'ready' });
        continue;
      }
      await host(1).boot();
      await world.clock.run(10_000);
      expect(names(), `seed ${seed}`).toEqual(['', '', '']);
      expect(files(), `seed ${seed}`).toEqual([]);
    }
  });

  it('goes on after a restart that came between the tombstone and the files', async () => {
    const vm = await world.clock.wait(store(1).createVm(spec('web')));
    await world.clock.run(100);
    for (const { disk } of world.hosts) {
      disk.fault = ({ kind }) => (kind === 'remove' ? new DiskError('failed', 'injected') : null);
    }
    await world.clock.wait(store(1).removeVm(vm));
    await world.clock.run(1000);
    expect(files().length).toBeGreaterThan(0);
    for (const one of world.hosts) {
      one.crash(false);
      one.disk.fault = () => null;
    }
    for (const one of world.hosts) await one.boot();
    await world.clock.run(3000);
    expect(files()).toEqual([]);
  });
});
