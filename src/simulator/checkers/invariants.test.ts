import { expect, it } from 'vitest';
import { hostId } from '../../model/ids.ts';
import { timings } from '../../model/limits.ts';
import { inOwnTurn, settlePromises } from '../../platform/promises.ts';
import type { VirtualGuest } from '../world/guest.ts';
import { World } from '../world/world.ts';
import { Invariants } from './invariants.ts';
import { liveness } from './liveness.ts';
import { invariantNames } from './violation.ts';

const names = ['web', 'db', 'log'];
const MiB = 2 ** 20;

function smallWorld(seed: number): World {
  return new World({
    seed,
    hosts: ['h1', 'h2', 'h3', 'h4'].map((name) => ({
      name,
      kind: 'full',
      drift: 0,
      cpus: 16,
      memoryBytes: 64 * 2 ** 30,
      diskBytes: 2e12,
    })),
    networks: 'separate',
    loss: { storage: 0.01, ha: 0.01 },
    timings,
    workload: { intervalMs: 300, blocks: 8 },
    settle: settlePromises(),
    log: null,
  });
}

function setUp(world: World): void {
  for (const machine of world.machines) machine.powerOn();
  const isUp = () => world.machines.every((one) => one.host?.manager.status().master != null);
  expect(world.time.advanceUntil(isUp, 15_000)).toBe(true);
  for (const [index, name] of names.entries()) {
    world.addVm(name, [16 * MiB]);
    const disks = [{ sizeBytes: 16 * MiB }];
    world.time.await(managerOf(world).createVm({ name, memoryBytes: 256 * MiB, disks }));
    world.time.await(managerOf(world).startVm(name, { on: hostId(`h${index + 1}`) }));
  }
  const isProtected = () =>
    managerOf(world)
      .vms()
      .every((vm) => vm.protection.status === 'protected');
  expect(world.time.advanceUntil(isProtected, 20_000)).toBe(true);
}

function managerOf(world: World) {
  const manager = world.manager();
  if (manager === null) throw new Error('no daemon is up');
  return manager;
}

it('finds nothing wrong in a minute with a crash, partitions and their end', async () => {
  await inOwnTurn(() => {
    const world = smallWorld(7);
    const invariants = new Invariants(world);
    setUp(world);
    const story: readonly [number, () => void][] = [
      [2000, () => world.machine('h1').cutPower()],
      [12_000, () => world.machine('h1').powerOn()],
      [
        8000,
        () =>
          world.partition('storage', [
            ['h1', 'h2'],
            ['h3', 'h4'],
          ]),
      ],
      [7000, () => world.machine('h2').killDaemon()],
      [3000, () => world.heal('both')],
      [2000, () => world.machine('h2').startDaemon()],
      [6000, () => world.partition('both', [['h1', 'h3', 'h4'], ['h2']])],
      [9000, () => world.heal('both')],
      [3000, () => world.machine('h3').freezeDaemon()],
      [8000, () => world.machine('h3').thawDaemon()],
    ];
    for (const [delayMs, happens] of story) {
      world.time.advance(delayMs);
      happens();
    }
    const expected = names.map((name) => ({ name, shouldRun: true }));
    const isWell = () => liveness(world, expected, invariants).length === 0;
    world.time.advanceUntil(isWell, 60_000, 1000);
    invariants.finish();
    expect(liveness(world, expected, invariants)).toEqual([]);
    expect(invariants.violations).toEqual([]);
    expect(invariants.results()).toEqual(invariantNames.map((name) => ({ name, violations: 0 })));
  });
});

it('passes on what a world shows, with its time, and at once', async () => {
  await inOwnTurn(() => {
    const world = smallWorld(8);
    const invariants = new Invariants(world);
    setUp(world);
    world.time.advance(5000);
    const machine = world.machine('h1');
    const guest = machine.guest('web') as VirtualGuest;
    const seen: string[] = [];
    invariants.onViolation = ({ invariant }) => seen.push(invariant);

    world.misread(machine, guest, 'disk0 block 0: nonsense');
    // A guest that nobody has started, beside the one that runs.
    const twin = { vm: guest.vm, name: 'web', epoch: guest.epoch, state: 'running', hasRead: true };
    world.guestChanged(world.machine('h2'), twin as unknown as VirtualGuest);
    // A write that no copy was given.
    const stamp = { vm: 1, disk: 0, block: 0, serial: 10_000, epoch: guest.epoch };
    world.acknowledged(machine, guest, stamp, false);
    const record = invariants.ledger.namespace(guest.vm);
    if (record === null) throw new Error('web has no record');
    const ballot = { counter: 10_000, host: hostId('h9'), incarnation: 1 as never };
    const forged = { ...record, metadata: {} };
    world.reached(machine, { at: 'register.committed', object: record.id, ballot, record: forged });
    expect(new Set(seen)).toEqual(
      new Set([
        'no-lost-write',
        'single-instance',
        'started-with-lock',
        'in-sync-before-acknowledge',
        'linearizable-registers',
        'commit-has-majority',
        'protection-kept',
      ]),
    );
    expect(invariants.violations[0]?.atMs).toBe(world.nowMs());
    expect(invariants.results().find(({ name }) => name === 'no-lost-write')?.violations).toBe(1);
  });
});
