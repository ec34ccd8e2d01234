// Runs a scenario on virtual time: the world is brought to time 0, the steps are done at their times,
// and what must hold is looked at. Everything runs in one call, which must be made outside of all
// promises (a turn of the event loop of its own).

import { befallen } from '../../scenario/befallen.ts';
import type { CheckResult, Scenario, ScenarioResult } from '../../scenario/scenario.ts';
import { Invariants, type Violation } from '../checkers/invariants.ts';
import { createShared, type StrategyCounters } from '../strategies/shared.ts';
import { countingPartsFor, partsFor } from '../strategies/strategies.ts';
import type { World } from '../world/world.ts';
import { Checks } from './checks.ts';
import { RunRecord } from './record.ts';
import { createWorld, type SetUpOptions, setUp } from './set-up.ts';
import { apply } from './steps.ts';

export interface RunOptions extends Omit<SetUpOptions, 'parts'> {
  /** Milliseconds of real time, for the result's `wallMs`. */
  readonly realTime: () => number;
  /** Counts what HA asks of the storage layer, for a comparison of strategies. */
  readonly isComparison?: boolean;
}

export interface ScenarioRun {
  readonly result: ScenarioResult;
  readonly violations: readonly Violation[];
  readonly strategyCounters: StrategyCounters;
  readonly world: World;
}

/** How often what shall never be is looked for. */
const sampleMs = 100;

export function runScenario(scenario: Scenario, options: RunOptions): ScenarioRun {
  const startedMs = options.realTime();
  const shared = createShared();
  const parts = options.isComparison === true ? countingPartsFor : partsFor;
  const world = createWorld(scenario, {
    ...options,
    parts: () => parts(scenario.strategies, shared),
  });
  const invariants = new Invariants(world);
  const record = new RunRecord(world);
  const checks = new Checks(world, scenario.expect, record);
  const problems = setUp(world, scenario);
  record.begin();

  const hostsOfGuest = (vm: string) =>
    world.machines.filter((one) => one.guest(vm) !== null).map(({ name }) => name);
  for (const atMs of moments(scenario)) {
    world.advanceTo(atMs);
    if (atMs % sampleMs === 0) checks.sample();
    // A check of the same moment as a step sees what was before the step.
    for (const check of scenario.expect)
      if ('atMs' in check && check.atMs === atMs) checks.now(check);
    for (const step of scenario.steps) {
      if (step.atMs !== atMs) continue;
      record.fault(befallen(step, hostsOfGuest));
      if (step.kind === 'powerOff') record.switchedOff(step.vm);
      apply(world, step);
    }
  }
  invariants.finish();
  const results = [...setUpResult(problems, scenario), ...checks.results(scenario.pending)];
  // Another file than the VM's own object is what that invariant is not about.
  const isOwnObject = scenario.strategies.protection === 'namespace-metadata';
  const isMeant = (name: string) => isOwnObject || name !== 'protection-kept';
  const invariantResults = invariants.results().filter((one) => isMeant(one.name));
  record.counters.metadataSetsRefused += shared.counters.protectionUpdatesRefused;
  const failed = results.filter((check) => !check.ok && check.pending === undefined);
  const isPendingInVain = scenario.pending !== null && results.every((check) => check.ok);
  const isSafe = invariantResults.every((one) => one.violations === 0);
  return {
    world,
    violations: invariants.violations.filter((one) => isMeant(one.invariant)),
    strategyCounters: shared.counters,
    result: {
      name: scenario.name,
      ok: failed.length === 0 && isSafe && !isPendingInVain,
      executor: 'sim',
      seed: world.options.seed,
      simulatedMs: scenario.durationMs,
      wallMs: Math.round(options.realTime() - startedMs),
      checks: results,
      invariants: invariantResults,
      counters: record.counters,
      recoveries: record.recoveries,
    },
  };
}

/** That time 0 was reached as it should is a check, too, but nobody wants to read that it was. */
function setUpResult(problems: readonly string[], { pending }: Scenario): CheckResult[] {
  if (problems.length === 0) return [];
  const failed = {
    check: 'everything is as it shall be at 0s',
    ok: false,
    saw: problems.join('; '),
  };
  return [pending === null ? failed : { ...failed, pending }];
}

/** All times at which something is done or looked at, in order, without doubles. */
function moments(scenario: Scenario): number[] {
  const times = new Set<number>([scenario.durationMs]);
  for (const step of scenario.steps) times.add(step.atMs);
  for (const check of scenario.expect) {
    if ('atMs' in check) times.add(check.atMs);
    if (check.kind !== 'never') continue;
    const firstMs = Math.ceil(check.fromMs / sampleMs) * sampleMs;
    for (let atMs = firstMs; atMs <= check.toMs; atMs += sampleMs) times.add(atMs);
  }
  return [...times].filter((atMs) => atMs <= scenario.durationMs).sort((a, b) => a - b);
}
