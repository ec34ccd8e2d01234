// The lease as a whole, on the production store: takers that ask and takers that do not, partitions,
// daemons and machines that die, voters that forget, clocks that drift by 1%. After every event at
// most one host runs the VM; when the faults end, somebody can run it again.

import { describe, expect, it } from 'vitest';
import { type LeaseHost, LeaseWorld } from '../../../test/support/lease-world.ts';

interface Plan {
  readonly hosts: number;
  readonly voters: number;
  readonly steps: number;
}

function trouble(world: LeaseWorld): void {
  const { random, network, hosts } = world;
  const names = hosts.map((host) => host.name);
  const host = random.pick(hosts);
  const other = random.pick(hosts.filter((one) => one !== host));
  const dice = random.next();
  if (dice < 0.3) {
    world.note(`cut ${host.name} off`);
    network.partition(
      [host.name],
      names.filter((name) => name !== host.name),
    );
  } else if (dice < 0.4) {
    const side = names.filter(() => random.chance(0.5));
    world.note(`partition ${side.join()}`);
    network.partition(
      side,
      names.filter((name) => !side.includes(name)),
    );
  } else if (dice < 0.5) {
    world.note(`cut ${host.name} > ${other.name}`);
    network.cut(host.name, other.name, random.chance(0.7));
  } else if (dice < 0.7) {
    world.note('heal');
    network.healAll();
  } else if (host.store !== null) {
    host.crash(random.chance(0.4));
  }
}

function use(world: LeaseWorld, host: LeaseHost): void {
  const dice = world.random.next();
  if (dice < 0.45) host.take();
  else if (dice < 0.85) host.takeRudely();
  else host.release();
}

async function live(
  seed: string,
  plan: Plan,
): Promise<{ problem: string | null; world: LeaseWorld }> {
  const world = new LeaseWorld({ seed, hosts: plan.hosts });
  const { random } = world;
  await world.start(plan.voters);
  for (let step = 0; step < plan.steps && world.problem === null; step += 1) {
    const host = random.pick(world.hosts);
    const isStopped = host.clock === null;
    if (isStopped && random.chance(0.5)) {
      world.note(`boot ${host.name}`);
      void host.boot();
    } else if (random.chance(0.6)) use(world, host);
    else trouble(world);
    await world.run(random.next() * random.pick([5, 50, 500, 4000]));
  }
  world.note('all faults end');
  world.network.healAll();
  for (const host of world.hosts) if (host.clock === null) void host.boot();
  for (let tries = 0; tries < 20 && world.problem === null; tries += 1) {
    await world.run(3000);
    if (world.hosts.some((host) => host.isRunning)) return { problem: null, world };
    if (!world.hosts.some((host) => host.guest !== null)) random.pick(world.hosts).take();
  }
  return { problem: world.problem ?? 'nobody can run it when the faults are over', world };
}

async function survey(seeds: number, name: string, plan: Plan): Promise<string[]> {
  const problems: string[] = [];
  for (let index = 0; index < seeds; index += 1) {
    const seed = `${name} ${index}`;
    if (process.env['SEED'] !== undefined && process.env['SEED'] !== seed) continue;
    const { problem, world } = await live(seed, plan);
    if (problem !== null) problems.push(`seed ${seed}: ${problem}`);
    if (problem !== null && process.env['SHOW'] !== undefined) console.log(world.trace.join('\n'));
  }
  return problems;
}

const seeds = Number(process.env['SEEDS'] ?? 60);

describe('leases under random faults', () => {
  it('let one instance run at a time, with three voters', async () => {
    expect(await survey(seeds, 'three', { hosts: 3, voters: 3, steps: 40 })).toEqual([]);
  });

  it('let one instance run at a time, with five voters', async () => {
    expect(await survey(seeds / 2, 'five', { hosts: 5, voters: 5, steps: 40 })).toEqual([]);
  });
});
