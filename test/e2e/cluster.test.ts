// Real daemons, guests and disks, in the faults that are not the demo's: a daemon that comes back in
// time, a majority that is lost and comes back, a guest far from its data, and mistakes of the user.

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createClient } from '../../src/api/client.ts';
import { RealCluster, stateOf, until } from './support/real-cluster.ts';

interface Vm {
  readonly id: string;
  readonly power: string;
  readonly host: string | null;
  readonly detached: readonly string[];
  readonly protection: { readonly status: string };
  readonly objects: readonly {
    readonly kind: string;
    readonly voters: readonly string[];
    readonly components: readonly { readonly host: string; readonly state: string }[];
  }[];
}

const hosts = ['host-1', 'host-2', 'host-3'];
let cluster: RealCluster;
let vm: string;

beforeAll(async () => {
  cluster = new RealCluster();
  await cluster.start(3);
  await cluster.ask('host-1', 'vm', 'create', 'web', '--memory', '96MiB', '--disk', '64MiB');
  vm = (await show()).id;
});
afterAll(async () => {
  await cluster.end();
});

const show = (from = 'host-1') => cluster.json<Vm>(from, 'vm', 'show', 'web');

/** The host that holds no data of the VM. */
async function bareHost(): Promise<string> {
  const disk = (await show()).objects.find((object) => object.kind === 'disk');
  const data = disk?.components.map((component) => component.host) ?? [];
  return hosts.find((host) => !data.includes(host)) as string;
}

async function started(on: string): Promise<number> {
  await cluster.ask('host-1', 'vm', 'start', 'web', '--on', on);
  await until('the guest reports', () => cluster.reports(on, vm).wrote > 0);
  await until('it is protected', async () => (await show()).protection.status === 'protected');
  return cluster.guestOf(on, vm) as number;
}

async function goesOn(on: string): Promise<void> {
  const { wrote } = cluster.reports(on, vm);
  await until('the guest goes on', () => cluster.reports(on, vm).wrote >= wrote + 5);
}

describe('a real cluster', () => {
  it('runs a guest on a host that holds none of its data', async () => {
    const bare = await bareHost();
    await started(bare);
    await goesOn(bare);
    expect(await show()).toMatchObject({ power: 'running', host: bare });
    await cluster.ask('host-2', 'vm', 'stop', 'web');
    expect(await show('host-2')).toMatchObject({ protection: { status: 'unprotected' } });
    expect(cluster.guestOf(bare, vm)).toBeNull();
  });

  it('lets the guest run on while its daemon is killed and started again', async () => {
    const guest = await started('host-2');
    const { boots } = cluster.reports('host-2', vm);
    cluster.killDaemon('host-2');
    await cluster.boot('host-2');
    await goesOn('host-2');
    expect(cluster.guestOf('host-2', vm)).toBe(guest);
    expect(cluster.reports('host-2', vm).boots).toBe(boots);
    await until('it is known to run', async () => (await show()).power === 'running');
  });

  it('pauses the guest whose objects lost their majority, and lets it go on when a host is back', async () => {
    const guest = cluster.guestOf('host-2', vm) as number;
    const { boots } = cluster.reports('host-2', vm);
    cluster.killDaemon('host-1');
    cluster.killDaemon('host-3');
    await until('the guest stands still', () => stateOf(guest) === 'T');
    await cluster.boot('host-3');
    await until('the guest runs again', () => stateOf(guest) === 'S' || stateOf(guest) === 'R');
    await goesOn('host-2');
    expect(cluster.reports('host-2', vm).boots).toBe(boots);
    await cluster.boot('host-1');
    await until('all copies are in sync', async () =>
      (await show()).objects.every((object) =>
        object.components.every((one) => one.state === 'active'),
      ),
    );
  });

  it('says what is wrong with a request, and leaves nothing of it', async () => {
    const create = (...args: string[]) =>
      cluster.run('--socket', cluster.socket('host-1'), 'vm', 'create', ...args);
    const size = ['--memory', '96MiB', '--disk', '64MiB'];
    expect(await create('web', ...size)).toMatchObject({
      status: 1,
      err: expect.stringMatching(/VM named web already/),
    });
    expect(await create('b', ...size, '--policy', 'mirror-3')).toMatchObject({
      status: 1,
      err: expect.stringMatching(/needs 5 hosts, and 3/),
    });
    expect(await create('b', '--memory', '-1', '--disk', '1MiB')).toMatchObject({ status: 2 });
    expect(await create('b', ...size, '--colour', 'red')).toMatchObject({
      status: 2,
      err: expect.stringMatching(/--colour/),
    });
    expect(
      await cluster.run('host', 'run', '--config', join(cluster.folder, 'none.yaml')),
    ).toMatchObject({ status: 1 });
    const { length } = await cluster.json<unknown[]>('host-3', 'vm', 'list');
    expect(length).toBe(1);
  });

  it('removes a VM with all its objects', async () => {
    await cluster.ask('host-3', 'vm', 'stop', 'web', '--force');
    await cluster.ask('host-3', 'vm', 'remove', 'web');
    expect(await cluster.json<unknown[]>('host-1', 'vm', 'list')).toEqual([]);
  });

  it('starts a guest without a disk that it can do without, and plugs it in when it is there', async () => {
    const sizeBytes = 2 ** 26;
    const { id } = await createClient([cluster.socket('host-1')]).createVm({
      name: 'web',
      memoryBytes: 96 * 2 ** 20,
      disks: [{ sizeBytes }, { sizeBytes, policy: 'single', required: false }],
      hosts,
      objectHosts: { disk1: ['host-3'] },
    });
    vm = id;
    cluster.killDaemon('host-3');
    await started('host-1');
    expect(await show()).toMatchObject({ power: 'running', detached: ['disk1'] });
    expect(cluster.said('host-1', vm)).not.toMatch(/^holdfast: disks /m);
    await cluster.boot('host-3');
    // The guest tells of a disk that has come when it has read from it.
    await until('the guest has it', () =>
      /^holdfast: disks disk0 disk1$/m.test(cluster.said('host-1', vm)),
    );
    await until('it is known', async () => (await show('host-2')).detached.length === 0);
    await goesOn('host-1');
    expect(cluster.reports('host-1', vm).boots).toBe(1);
    await cluster.ask('host-2', 'vm', 'stop', 'web');
  });
});
