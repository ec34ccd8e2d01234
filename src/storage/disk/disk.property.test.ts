// A disk under random faults, against an oracle of what its reads may return: writers that crash and
// are replaced, hosts that lose their power or their daemon, links that are cut, and a register that
// fails, is late, or does not tell what it did; and devices that return what was not written.

import { beforeAll, describe, expect, it } from 'vitest';
import { DiskWorld, type DiskWorldOptions } from '../../../test/support/disk-world.ts';
import type { HostId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';

interface Faults {
  /** At most one host is in trouble at a time, until all copies are in sync again. */
  readonly oneAtATime: boolean;
  /** Disks return other bytes than were written: a failure like any other, or (`all`) the only one, and on
   * any copy. */
  readonly rot?: 'one' | 'all';
  /** The disk's tree changes meanwhile. */
  readonly changesTree?: boolean;
  readonly steps: number;
}

/** Small regions, so that a small disk has many. */
beforeAll(() => {
  Object.assign(limits, { regionBytes: 4096 });
});

class Life {
  readonly world: DiskWorld;
  readonly #faults: Faults;
  readonly #cuts: [HostId, HostId][] = [];

  constructor(options: DiskWorldOptions, faults: Faults) {
    this.world = new DiskWorld(options);
    this.#faults = faults;
  }

  async run(): Promise<string | null> {
    const { world } = this;
    const { random, clock } = world;
    if (this.#faults.rot !== undefined) world.scrubIntervalMs = random.pick([3000, 1e9]);
    await world.start();
    world.slowestMs = random.pick([1, 10, 100]);
    world.mayBeUnreadable = this.#faults.rot === 'all';
    world.open(random.pick(world.hosts));
    await clock.run(20);
    for (let step = 0; step < this.#faults.steps && world.oracle.problems.length === 0; step += 1) {
      if (random.chance(0.75)) this.#use();
      else this.#trouble();
      await clock.run(random.next() * random.pick([1, 10, 100, 1000]));
    }
    return this.#heal();
  }

  #use(): void {
    const { world } = this;
    for (let burst = world.random.below(4); burst >= 0; burst -= 1) {
      const dice = world.random.next();
      if (dice < 0.4) world.write(world.random.chance(0.1));
      else if (dice < 0.5) world.zero();
      else if (dice < 0.85) world.read();
      else world.flush();
    }
  }

  #trouble(): void {
    const { world } = this;
    const { random } = world;
    const host = random.pick(world.hosts);
    const dice = random.next();
    if (!world.running.has(host)) {
      if (dice < 0.7) world.startHost(host);
      return;
    }
    if (world.session === null) {
      if (dice < 0.8) world.open(host, false);
      return;
    }
    if (this.#faults.changesTree === true && random.chance(0.5)) {
      world.changeTree(this.#faults.oneAtATime ? 2 : 1);
    } else if (dice < 0.15) {
      world.changeTrouble = random.pick([0, 0, 0.3, 0.7]);
    } else if (dice < 0.25) {
      world.session.setGate(!world.session.isOpen);
    } else if (dice < 0.4) {
      this.#healLinks();
    } else if (dice < 0.5) {
      world.open(host);
    } else if (this.#faults.rot === 'all') {
      world.corrupt(host);
    } else if (this.#mayFail(host)) {
      if (this.#faults.rot === 'one' && random.chance(0.5)) world.corrupt(host);
      else if (dice < 0.7) world.crash(host, true);
      else if (dice < 0.85) world.crash(host, false);
      else this.#cut(host);
    }
  }

  #mayFail(host: HostId): boolean {
    if (!this.#faults.oneAtATime) return true;
    const { world } = this;
    const isDown = (other: HostId) => other !== host && !world.running.has(other);
    if (
      world.corrupted.size > 0 ||
      !world.isWhole() ||
      world.hosts.some(isDown) ||
      this.#cuts.length > 0
    )
      return false;
    // A flush since then shows that the writer knows of every restart.
    return (world.session?.flushedAtMs ?? -1) > world.startedAtMs;
  }

  #cut(host: HostId): void {
    const { world } = this;
    for (const other of world.hosts) {
      if (other === host) continue;
      world.note(`cut ${host} from ${other}`);
      world.network.cut(host, other);
      this.#cuts.push([host, other]);
    }
  }

  #healLinks(): void {
    for (const [a, b] of this.#cuts.splice(0)) this.world.network.heal(a, b);
    this.world.note('links healed');
    this.world.startedAtMs = this.world.clock.now(); // a writer that had given a copy up may not know yet
  }

  async #heal(): Promise<string | null> {
    const { world } = this;
    const { clock, oracle } = world;
    const problem = () => oracle.problems[0] ?? null;
    if (problem() !== null) return problem();
    world.note('all faults end');
    this.#healLinks();
    world.changeTrouble = 0;
    for (const host of world.hosts) if (!world.running.has(host)) world.startHost(host);
    world.session?.setGate(true);
    await clock.run(4000);
    for (let tries = 0; tries < 3 && world.session?.disk == null; tries += 1) {
      world.open(world.random.pick(world.hosts));
      await clock.run(4000);
    }
    if (this.#faults.rot === 'one') await this.#readEverywhere();
    world.write(false);
    world.read(true);
    world.flush();
    const { session } = world;
    const isDone = () =>
      session?.pending === 0 && world.isWhole() && session.disk?.resync() === null;
    await clock.until(isDone, 30_000).catch(() => undefined);
    if (problem() !== null) return problem();
    if (session?.pending !== 0) return `${session?.pending} requests hang`;
    if (this.#faults.rot === 'all') return null;
    if (!world.isWhole()) return `in sync are only ${world.record.inSync.join()}`;
    const difference = world.difference();
    if (difference !== null) return difference;
    await this.#readEverywhere();
    if (session.lost > 0 && this.#faults.oneAtATime) return 'writes were lost by a single failure';
    return problem();
  }

  /** Whoever opens it reads the same; on the hosts of copies, from these. */
  async #readEverywhere(): Promise<void> {
    const { world } = this;
    for (const host of world.hosts) {
      world.open(host);
      await world.clock.until(() => world.session?.disk != null, 2000).catch(() => undefined);
      world.read(true);
      await world.clock.run(500);
    }
  }
}

async function live(options: DiskWorldOptions, faults: Faults): Promise<string | null> {
  const life = new Life(options, faults);
  const problem = await life.run();
  if (problem !== null && process.env['SHOW'] !== undefined)
    console.log(life.world.trace.join('\n'));
  return problem;
}

async function survey(seeds: number, make: (seed: number) => DiskWorldOptions, faults: Faults) {
  const problems: string[] = [];
  const only = process.env['SEED'];
  for (let seed = 0; seed < seeds; seed += 1) {
    if (only !== undefined && String(seed) !== only) continue;
    const problem = await live(make(seed), faults).catch((error: unknown) =>
      String((error as Error).stack),
    );
    if (problem !== null) problems.push(`seed ${seed}: ${problem}`);
  }
  return problems;
}

const seeds = Number(process.env['SEEDS'] ?? 60);

describe('a disk under random faults', () => {
  it('loses nothing while one host at a time fails', async () => {
    expect(
      await survey(seeds, (seed) => ({ seed: `one ${seed}` }), { oneAtATime: true, steps: 80 }),
    ).toEqual([]);
  });

  it('never serves stale or unflushed data unannounced, whatever fails', async () => {
    const make = (seed: number) => ({ seed: `any ${seed}`, stripes: 1 + (seed % 2) });
    expect(await survey(seeds, make, { oneAtATime: false, steps: 80 })).toEqual([]);
  });

  it('does so with three copies', async () => {
    const make = (seed: number) => ({ seed: `three ${seed}`, copies: 3 });
    expect(await survey(seeds, make, { oneAtATime: false, steps: 80 })).toEqual([]);
  });

  it('loses nothing while its tree is another one again and again, and one host at a time fails', async () => {
    const make = (seed: number) => ({ seed: `tree ${seed}`, stripes: 1 + (seed % 2) });
    const faults = { oneAtATime: true, changesTree: true, steps: 120 };
    expect(await survey(seeds, make, faults)).toEqual([]);
  });

  it('serves nothing stale while its tree changes, whatever fails', async () => {
    const make = (seed: number) => ({ seed: `any tree ${seed}`, copies: 1 + (seed % 3) });
    const faults = { oneAtATime: false, changesTree: true, steps: 120 };
    expect(await survey(seeds, make, faults)).toEqual([]);
  });

  it('notices rot on a copy, and repairs it from another one', async () => {
    const make = (seed: number) => ({ seed: `rot ${seed}`, stripes: 1 + (seed % 2) });
    expect(await survey(seeds, make, { oneAtATime: true, rot: 'one', steps: 80 })).toEqual([]);
  });

  it('never returns what was not written, whatever rots', async () => {
    const make = (seed: number) => ({ seed: `all rots ${seed}`, copies: 1 + (seed % 3) });
    expect(await survey(seeds, make, { oneAtATime: false, rot: 'all', steps: 80 })).toEqual([]);
  });
});
