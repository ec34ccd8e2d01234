// A disk that is served without a guest holds its VM's lock as a guest would: nobody starts the VM
// meanwhile, and whoever serves it stops when the lock is lost.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DiskService } from '../../src/manager/disk-service.ts';
import type { HoldfastError } from '../../src/model/errors.ts';
import { Cluster, type Machine } from '../support/cluster.ts';

const MiB = 2 ** 20;
let cluster: Cluster;
let one: Machine;
let two: Machine;
let endings: HoldfastError[];

beforeEach(async () => {
  cluster = new Cluster({ hosts: 3 });
  await cluster.start();
  one = cluster.machine('host-1');
  two = cluster.machine('host-2');
  endings = [];
  await cluster.wait(
    one.manager.createVm({ name: 'web', memoryBytes: 96 * MiB, disks: [{ sizeBytes: 4 * MiB }] }),
  );
  await cluster.run(1000);
});

afterEach((context) => {
  if (context.task.result?.state === 'fail') console.log(cluster.log.slice(-80).join('\n'));
});

function serve(on: Machine, disk = 'disk0'): Promise<DiskService> {
  const onEnded = (reason: HoldfastError) => void endings.push(reason);
  return cluster.wait(
    on.manager.serveDisk('web', { disk, socket: '/s/web.sock', readOnly: false, onEnded }),
  );
}

function refusal(promise: Promise<unknown>): Promise<string> {
  const refused = promise.then(
    () => 'done',
    (error: Error) => error.message,
  );
  return cluster.wait(refused);
}

describe('a disk that is served', () => {
  it('keeps the VM from being started or removed anywhere, and lets it go', async () => {
    const service = await serve(one);
    expect(service).toMatchObject({ vm: 'web', disk: 'disk0', sizeBytes: 4 * MiB });
    await cluster.run(1000);
    for (const machine of cluster.machines) {
      const why =
        /web: its disk0 is served by `holdfast disk serve` on host-1 at \/s\/web\.sock; end that/;
      expect(await refusal(machine.manager.startVm('web', {}))).toMatch(why);
      expect(await refusal(machine.manager.removeVm('web'))).toMatch(why);
      expect(machine.manager.vm('web')).toMatchObject({ power: 'off' });
      expect(machine.manager.vm('web').note).toMatch(/served by/);
    }
    await cluster.wait(service.close());
    await cluster.run(1000);
    expect(two.manager.vm('web').note).toBeNull();
    await cluster.wait(two.manager.startVm('web', {}));
    await cluster.until(() => cluster.writes('web') >= 3, 10_000);
    expect(await refusal(serve(one))).toMatch(/web is running on .*only while its VM is off/);
    expect(endings).toEqual([]);
    cluster.assertSafe();
  });

  it('is refused by the lock where the note has not come yet', async () => {
    await serve(one);
    // At once: the other hosts have heard nothing.
    expect(await refusal(two.manager.startVm('web', {}))).not.toBe('done');
    expect(await refusal(serve(two))).not.toBe('done');
    expect(cluster.running('web')).toEqual([]);
    cluster.assertSafe();
  });

  it('is freed by the lease when its host is gone, and the VM can be started', async () => {
    await serve(one);
    await cluster.run(1000);
    one.crash();
    await cluster.until(
      () => two.manager.hosts().some(({ state }) => state === 'hostDown'),
      30_000,
    );
    await cluster.run(10_000); // the lease is over by then
    await cluster.wait(two.manager.startVm('web', {}));
    await cluster.until(() => cluster.writes('web') >= 3, 20_000);
    cluster.assertSafe();
  });

  it('ends with the daemon that serves it', async () => {
    await serve(one);
    await cluster.wait((one.host as { stop(): Promise<void> }).stop());
    expect(endings.map(({ code }) => code)).toEqual(['stopped']);
  });

  it('is named when it is not there', async () => {
    expect(await refusal(serve(one, 'disk7'))).toMatch(/web has no disk "disk7"; it has disk0/);
    expect(two.manager.vm('web').note).toBeNull();
  });
});
