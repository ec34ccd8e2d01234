// The points of the probe, on a whole cluster: that they are reached, where they say, in the order in
// which a VM starts, fails over and is switched off.

import { describe, expect, it } from 'vitest';
import { type HostId, hostId } from '../../src/model/ids.ts';
import type { Point } from '../../src/ports/probe.ts';
import { Cluster } from '../support/cluster.ts';

const MiB = 2 ** 20;

/** The wanted points in the order in which they came first. */
function order(points: readonly Point[], wanted: readonly Point['at'][]): Point['at'][] {
  return [...new Set(points.map((point) => point.at))].filter((at) => wanted.includes(at));
}

const startOfVm: Point['at'][] = [
  'lock.taken',
  'disk.fenced',
  'disk.opened',
  'guest.starting',
  'guest.started',
  'protection.set',
];

describe('the points that hosts reach', () => {
  it('stand in the order of the protocols, and tell what happened', async () => {
    const cluster = new Cluster({ hosts: 3 });
    const reached = () => cluster.points.splice(0);
    await cluster.start();
    const [one, two, three] = ['host-1', 'host-2', 'host-3'].map((name) => hostId(name)) as [
      HostId,
      HostId,
      HostId,
    ];
    expect(reached()).toContainEqual({ at: 'ha.elected', term: 1 });
    const { manager } = cluster.machine('host-1');
    const made = await cluster.wait(
      manager.createVm({
        name: 'web',
        memoryBytes: 96 * MiB,
        disks: [{ sizeBytes: 4 * MiB }],
        hosts: [one, two, three],
      }),
    );
    const vm = made.id;
    const objects = new Map(manager.vm('web').objects.map((object) => [object.name, object]));
    expect(objects.get('web')?.voters).toEqual([one, two, three]);
    expect(objects.get('disk0')?.components.map(({ host }) => host)).toEqual([one, two]);
    const object = objects.get('disk0')?.object;
    const gone = objects.get('disk0')?.components[0]?.component;
    reached();

    await cluster.wait(manager.startVm('web', { on: one }));
    await cluster.until(() => manager.vm('web').protection.status === 'protected', 10_000);
    const started = reached();
    expect(order(started, startOfVm)).toEqual(startOfVm);
    expect(started).toContainEqual({ at: 'lock.taken', vm, epoch: 2, byHa: false });
    expect(started).toContainEqual({ at: 'disk.fenced', object, epoch: 2, open: 1 });
    expect(started).toContainEqual({ at: 'protection.set', vm, protected: true, epoch: 2 });

    cluster.machine('host-1').crash();
    await cluster.until(() => cluster.running('web').length === 1, 30_000);
    const on = cluster.running('web')[0];
    const { manager: there } = cluster.machine(on as string);
    await cluster.until(() => there.vm('web').protection.status === 'protected', 10_000);
    await cluster.run(100);
    const failedOver = reached();
    const wholeFailover: Point['at'][] = [
      'ha.metadataGet',
      'ha.waiting',
      'ha.restarting',
      'lease.ended',
      'lock.taken',
      'disk.fenced',
      'disk.inSyncChanged',
      'disk.opened',
      'guest.starting',
      'guest.started',
      'protection.set',
    ];
    expect(order(failedOver, wholeFailover)).toEqual(wholeFailover);
    expect(failedOver).toContainEqual({ at: 'ha.waiting', vm, reason: 'lock' });
    expect(failedOver).toContainEqual({ at: 'ha.restarting', vm, on });
    expect(failedOver).toContainEqual({ at: 'lock.taken', vm, epoch: 3, byHa: true });
    const removal = failedOver.find((point) => point.at === 'disk.inSyncChanged');
    expect(removal).toMatchObject({ object, removed: [gone], added: [] });

    await cluster.machine('host-1').boot();
    const whole = () =>
      there
        .vm('web')
        .objects.every(({ components }) => components.every(({ state }) => state === 'active'));
    await cluster.until(whole, 30_000);
    const returned = reached();
    const joining: Point['at'][] = ['resync.joining', 'disk.inSyncChanged'];
    expect(order(returned, joining)).toEqual(joining);
    expect(returned).toContainEqual({ at: 'resync.joining', object, component: gone });

    cluster.world.partition(
      'storage',
      cluster.machines.map(({ name }) => [name]),
    );
    await cluster.until(() => cluster.running('web').length === 0, 10_000);
    cluster.world.heal('storage');
    await cluster.until(() => cluster.running('web').length === 1, 10_000);
    const lapse: Point['at'][] = ['lease.lapsed', 'lease.regained'];
    expect(order(reached(), lapse)).toEqual(lapse);

    await cluster.wait(there.stopVm('web', { force: true }));
    const stopped = reached();
    expect(stopped).toContainEqual({ at: 'lock.released', vm, epoch: 3 });
    expect(stopped).toContainEqual({ at: 'protection.set', vm, protected: false, epoch: 3 });
  });
});
