// The search for random faults, looked at from outside: the same seed gives the same run to the letter,
// plans ask only for what can be had, budgets hold, and what is shrunk still fails.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { timings, timingsProblem } from '../../src/model/limits.ts';
import { hostsNeeded } from '../../src/model/policy.ts';
import { inOwnTurn, settlePromises } from '../../src/platform/promises.ts';
import { readScenario } from '../../src/scenario/read.ts';
import { writeScenario } from '../../src/scenario/write.ts';
import { type Exploration, explore } from '../../src/simulator/explore/explore-run.ts';
import { type Plan, planOf } from '../../src/simulator/explore/plan.ts';
import { reduce, shrink } from '../../src/simulator/explore/shrink.ts';
import { plantedBugs } from './planted-bugs.ts';

const seeds = fc.integer({ min: 0, max: 2 ** 40 });

function story(plan: Plan): Promise<{ run: Exploration; lines: string[] }> {
  const lines: string[] = [];
  const settle = settlePromises();
  return inOwnTurn(() => ({
    run: explore(plan, { settle, log: (line) => lines.push(line) }),
    lines,
  }));
}

describe('a run', () => {
  it.each([2, 5, 11, 23])('of seed %i is the same when it is run again', async (seed) => {
    const first = await story(planOf(seed));
    const again = await story(planOf(seed));
    expect(first.lines.length).toBeGreaterThan(10);
    expect(again.lines.join('\n')).toBe(first.lines.join('\n'));
    expect(again.run).toEqual(first.run);
    expect(first.run.violations).toEqual([]);
  });

  it('begins when all hosts reach each other, also where first words are lost', async () => {
    const plan = { ...planOf(996103), strikes: [] };
    const { cluster } = plan.scenario;
    const lossy = { ...cluster, loss: { storage: 0.05, ha: 0 } };
    const scenario = { ...plan.scenario, cluster: lossy, steps: [], durationMs: 1 };
    for (const seed of [12, 14]) {
      const { run } = await story({ ...plan, scenario: { ...scenario, seed } });
      expect(run.livenessProblems).toEqual([]);
    }
  });
});

describe('a plan', () => {
  it('asks for nothing that can not be', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const { scenario, strikes, abandoned } = planOf(seed);
        const { cluster, vms, steps, durationMs } = scenario;
        const named = Object.entries(cluster.options).map(([name, ms]) => [`${name}Ms`, ms]);
        expect(timingsProblem({ ...timings, ...Object.fromEntries(named) })).toBeNull();
        const full = cluster.hosts.filter((host) => host.kind === 'full').map((host) => host.name);
        for (const vm of vms) {
          if (vm.storage === 'shared') {
            expect(steps.some((step) => step.kind === 'setPolicy' && step.vm === vm.name)).toBe(
              false,
            );
            continue;
          }
          const placed = vm.components ?? [];
          expect(new Set(placed).size).toBe(hostsNeeded(vm.policy));
          const data = placed.slice(0, vm.policy.failuresToTolerate + 1);
          expect(data.filter((host) => !full.includes(host))).toEqual([]);
        }
        expect(steps.map((step) => step.atMs)).toEqual(
          steps.map((step) => step.atMs).toSorted((a, b) => a - b),
        );
        expect(steps.every((step) => step.atMs < durationMs)).toBe(true);
        expect(strikes.every((strike) => strike.occurrence >= 1)).toBe(true);
        expect(abandoned.length).toBeLessThan(cluster.hosts.length / 2);
      }),
      { numRuns: 200, examples: [[306_671_253_826]] },
    );
  });

  it('lets no two clocks part by the whole safety margin during a lease', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const { drift, options } = planOf(seed).scenario.cluster;
        const lease = options['leaseDuration'] ?? timings.leaseDurationMs;
        const margin = options['safetyMargin'] ?? timings.safetyMarginMs;
        const rates = [0, ...Object.values(drift)];
        const spread = Math.max(...rates) - Math.min(...rates);
        expect(spread * lease).toBeLessThanOrEqual(margin * 0.9);
      }),
      { numRuns: 200 },
    );
  });

  it('is a scenario that can be written to a file', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const { scenario } = planOf(seed);
        expect(readScenario(writeScenario(scenario)).steps.length).toBe(scenario.steps.length);
      }),
      { numRuns: 30 },
    );
  });

  it('leaves kinds of faults out, and has all of them over many seeds', () => {
    const kindsOf = (seed: number) => new Set(planOf(seed).scenario.steps.map((step) => step.kind));
    const all = Array.from({ length: 60 }, (_, seed) => kindsOf(seed));
    expect(new Set(all.flatMap((kinds) => [...kinds])).size).toBeGreaterThanOrEqual(16);
    expect(all.filter((kinds) => kinds.size <= 6).length).toBeGreaterThan(5);
  });
});

describe('a budget', () => {
  const base = planOf(1);
  const host = (name: string) => ({
    name,
    kind: 'full' as const,
    cpus: 16,
    memoryBytes: 2 ** 36,
    diskBytes: 2 ** 40,
    site: null,
  });

  function planWith(mercy: Plan['mercy'], steps: Plan['scenario']['steps']): Plan {
    const [vm] = base.scenario.vms;
    if (vm === undefined) throw new Error('the plan has no VM');
    const policy = { failuresToTolerate: 1, stripes: 1 };
    const vms = [{ ...vm, on: 'h3', policy, components: ['h1', 'h2', 'h3'], powered: true }];
    const hosts = ['h1', 'h2', 'h3'].map(host);
    const loss = { storage: 0, ha: 0 };
    const cluster = { ...base.scenario.cluster, hosts, options: {}, drift: {}, loss };
    const scenario = { ...base.scenario, cluster, vms, steps, durationMs: 40_000 };
    return { ...base, mercy, strikes: [], abandoned: [], scenario };
  }

  const doneBy = async (plan: Plan) => (await story(plan)).run.done.map(({ step }) => step.kind);

  it('lets power be lost at no more hosts than the policy tolerates', async () => {
    const steps = [
      { atMs: 1000, kind: 'crash', host: 'h1' },
      { atMs: 2000, kind: 'crash', host: 'h2' },
    ] as const;
    expect(await doneBy(planWith('policy', steps))).toEqual(['crash', 'stopDaemon']);
    expect(await doneBy(planWith('data', steps))).toEqual(['crash', 'crash']);
  });

  it('lets a disk fail only where the data is elsewhere, and nothing else at that time', async () => {
    const steps = [
      { atMs: 1000, kind: 'crash', host: 'h1' },
      { atMs: 3000, kind: 'failDisk', host: 'h2' }, // h1 has no power
      { atMs: 4000, kind: 'boot', host: 'h1' },
      { atMs: 30_000, kind: 'failDisk', host: 'h2' },
      { atMs: 31_000, kind: 'crash', host: 'h1' }, // h2's copy may still count
      { atMs: 39_000, kind: 'repairDisk', host: 'h1' }, // it is a good one
    ] as const;
    expect(await doneBy(planWith('data', steps))).toEqual(['crash', 'boot', 'failDisk']);
  });
});

describe('shrinking', () => {
  it('leaves exactly what is needed', () => {
    const items = Array.from({ length: 100 }, (_, index) => index);
    let runs = 0;
    const left = reduce(items, (rest) => {
      runs += 1;
      return [17, 18, 80].every((needed) => rest.includes(needed));
    });
    expect(left).toEqual([17, 18, 80]);
    expect(runs).toBeLessThan(200);
  });

  it('ends where no single item can go', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 40 }), { minLength: 1 }), (needed) => {
        const items = Array.from({ length: 41 }, (_, index) => index);
        const left = reduce(items, (rest) => needed.every((one) => rest.includes(one)));
        expect(left).toEqual(needed.toSorted((a, b) => a - b));
      }),
      { numRuns: 50 },
    );
  });

  it('drops faults, VMs, hosts and oddities that a failure does not need', () => {
    const plan = planOf(9);
    const [step] = plan.scenario.steps.filter((one) => 'host' in one);
    if (step === undefined) throw new Error('the plan has no step for a host');
    const fails = (candidate: Plan) =>
      candidate.scenario.steps.some((one) => one.atMs === step.atMs && one.kind === step.kind)
        ? { atMs: step.atMs }
        : null;
    const small = shrink(plan, fails, 1000);
    expect(small.plan.scenario.steps).toEqual([step]);
    expect(small.plan.strikes).toEqual([]);
    expect(small.plan.scenario.vms).toEqual([]);
    expect(small.plan.scenario.cluster.options).toEqual({});
    expect(small.plan.scenario.durationMs).toBe(step.atMs + 1);
    expect(small.runs).toBeLessThan(400);
  });

  it('drops a VM that another one is to start after', () => {
    const plan = planOf(12);
    const [waits] = plan.scenario.vms.filter(({ after }) => after.length > 0);
    if (waits === undefined) throw new Error('no VM of the plan waits for another');
    const fails = (candidate: Plan) =>
      candidate.scenario.vms.some(({ name }) => name === waits.name) ? { atMs: 1000 } : null;
    expect(shrink(plan, fails, 1000).plan.scenario.vms).toEqual([{ ...waits, after: [] }]);
  });

  it('tries no more than it may', () => {
    let runs = 0;
    const fails = () => {
      runs += 1;
      return null;
    };
    expect(shrink(planOf(9), fails, 7).runs).toBe(7);
    expect(runs).toBe(7);
  });
});

describe('planted bugs', () => {
  it.each(plantedBugs.map((bug) => [bug.name, bug] as const))('%s: fits its file', (_name, bug) => {
    const source = readFileSync(join('src', bug.file), 'utf8');
    expect(source.split(bug.find).length - 1).toBe(1);
    expect(bug.replace).not.toBe(bug.find);
  });

  it('have names of their own', () => {
    expect(new Set(plantedBugs.map((bug) => bug.name)).size).toBe(plantedBugs.length);
  });
});
