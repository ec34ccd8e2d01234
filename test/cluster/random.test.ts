// Random faults on whole clusters. At any time: never two instances, never an acknowledged and flushed
// write lost. And once the faults end, every VM runs and every copy is in sync again. Power is cut
// at one host at a time, and at the next only when all copies are in sync: that is what
// `failuresToTolerate: 1` promises; daemons are killed and networks split without such mercy.

import { describe, expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { Cluster, type Machine } from '../support/cluster.ts';
import { SeededRandom } from '../support/seeded-random.ts';

const MiB = 2 ** 20;
const names = ['web', 'db', 'log'];
const seeds = Number(process.env['HOLDFAST_TEST_SEEDS'] ?? 25);
const firstSeed = Number(process.env['HOLDFAST_TEST_FIRST_SEED'] ?? 1);

class Chaos {
  readonly #cluster: Cluster;
  readonly #random: SeededRandom;
  readonly story: string[] = [];

  constructor(cluster: Cluster, seed: number) {
    this.#cluster = cluster;
    this.#random = new SeededRandom(`chaos ${seed}`);
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random.next() * list.length)] as T;
  }

  #tell(text: string): void {
    this.story.push(`${(this.#cluster.clock.now() / 1000).toFixed(1)}s ${text}`);
  }

  async step(): Promise<void> {
    const cluster = this.#cluster;
    const machine = this.#pick(cluster.machines);
    switch (
      this.#pick([
        'daemon',
        'daemon',
        'power',
        'split',
        'storage',
        'ha',
        'heal',
        'boot',
        'boot',
        'guest',
      ])
    ) {
      case 'daemon':
        if (machine.host === null) return;
        this.#tell(`kill daemon of ${machine.name}`);
        machine.killDaemon();
        return;
      case 'power':
        if (machine.host === null || !allInSync(cluster)) return;
        this.#tell(`power of ${machine.name} lost`);
        machine.crash();
        return;
      case 'split':
        return this.#split([cluster.storageNetwork, cluster.haNetwork]);
      case 'storage':
        return this.#split([cluster.storageNetwork]);
      case 'ha':
        return this.#split([cluster.haNetwork]);
      case 'heal':
        this.#tell('heal');
        cluster.heal();
        return;
      case 'boot':
        if (machine.host !== null) return;
        this.#tell(`boot ${machine.name}`);
        await machine.boot();
        return;
      case 'guest': {
        const guest = [...machine.guests.values()][0];
        if (guest === undefined || machine.host === null) return;
        this.#tell(`guest of ${guest.name} on ${machine.name} dies`);
        guest.exit(false, 'killed by the test');
        return;
      }
    }
  }

  #split(networks: readonly Cluster['storageNetwork'][]): void {
    const sides = this.#cluster.machines.map((machine) => ({
      machine,
      side: this.#random.next() < 0.5,
    }));
    const groupOf = (side: boolean) =>
      sides.filter((one) => one.side === side).map((one) => one.machine.name);
    const groups = [groupOf(true), groupOf(false)];
    this.#tell(
      `split ${networks.length === 2 ? 'both' : 'one'}: ${groups.map((one) => one.join(' ')).join(' | ')}`,
    );
    for (const network of networks) network.partition(...groups);
  }
}

function up(cluster: Cluster): Machine[] {
  return cluster.machines.filter((machine) => machine.host !== null);
}

function allInSync(cluster: Cluster): boolean {
  const { storageNetwork: network } = cluster;
  if (up(cluster).length < cluster.machines.length || network.isSplit) return false;
  return cluster.machines.every((machine) =>
    machine.manager
      .vms()
      .flatMap((vm) => machine.manager.vm(vm.name).objects)
      .every((object) => object.components.every((component) => component.state === 'active')),
  );
}

async function run(seed: number): Promise<string> {
  const cluster = new Cluster({ hosts: 3 + (seed % 3), seed });
  await cluster.start();
  const { manager } = cluster.machine('host-1');
  for (const [index, name] of names.entries()) {
    await cluster.wait(
      manager.createVm({ name, memoryBytes: 96 * MiB, disks: [{ sizeBytes: 2 * MiB }] }),
    );
    await cluster.wait(manager.startVm(name, { on: hostId(`host-${1 + (index % 3)}`) }));
  }
  await cluster.until(
    () => manager.vms().every((vm) => vm.protection.status === 'protected'),
    10_000,
  );
  const chaos = new Chaos(cluster, seed);
  try {
    const end = cluster.clock.now() + 90_000;
    const random = new SeededRandom(`pace ${seed}`);
    while (cluster.clock.now() < end) {
      await chaos.step();
      await cluster.clock.run(random.next() * 5000);
      expect(cluster.mostInstances, 'instances at once').toBe(1);
      cluster.assertNothingLost();
    }
    cluster.heal();
    for (const machine of cluster.machines) if (machine.host === null) await machine.boot();
    await cluster.until(() => names.every((name) => cluster.running(name).length === 1), 60_000);
    const before = names.map((name) => cluster.lastReport(name));
    await cluster.until(
      () => names.every((name, index) => cluster.lastReport(name) > (before[index] as number) + 3),
      30_000,
    );
    await cluster.until(() => allInSync(cluster), 60_000);
    expect(cluster.mostInstances, 'instances at once').toBe(1);
    cluster.assertNothingLost();
  } catch (error) {
    const log = cluster.log.slice(-200).join('\n');
    throw new Error(
      `seed ${seed}: ${String(error)}\n${chaos.story.join('\n')}\n${process.env['HOLDFAST_TEST_LOG'] ? log : ''}`,
    );
  }
  return chaos.story.join('\n');
}

/** Seeds that once found something, and what. */
const named: readonly (readonly [number, string])[] = [
  [
    1059,
    'three voters with three locks of living hosts, none with a majority: nobody could run the VM',
  ],
];

describe('random faults', () => {
  it.each(named)('seed %i: %s', async (seed) => {
    await run(seed);
  });

  it.each(Array.from({ length: seeds }, (_, index) => firstSeed + index))(
    'seed %i',
    async (seed) => {
      await run(seed);
    },
  );
});
