// One seed for the command line: run it, say what was found, and make of it a scenario file that people
// can read and `sim run` can replay.

import { crc32 } from 'node:zlib';
import { readScenario } from '../../scenario/read.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { writeScenario } from '../../scenario/write.ts';
import { asScenario } from '../../simulator/explore/as-scenario.ts';
import { type Exploration, explore } from '../../simulator/explore/explore-run.ts';
import type { Plan } from '../../simulator/explore/plan.ts';
import { shrink } from '../../simulator/explore/shrink.ts';
import { strikeText } from '../../simulator/explore/strikes.ts';
import { runScenario } from '../../simulator/run/run.ts';

export interface Finding {
  readonly seed: number;
  /** The broken invariant; `liveness`: it was not as it should be after the faults. */
  readonly invariant: string;
  /** Milliseconds of the story; null: at its end. */
  readonly atMs: number | null;
  readonly text: string;
}

export function runSeed(
  plan: Plan,
  settle: () => void,
  log: ((line: string) => void) | null = null,
  isStoryOnly = false,
): Exploration {
  return explore(plan, { settle, crc32, log, isStoryOnly });
}

/** The first that was found; null: nothing was. */
export function findingOf(run: Exploration): Finding | null {
  const { seed, violations, livenessProblems } = run;
  const [violation] = violations;
  if (violation !== undefined) return { seed, ...violation };
  const [problem] = livenessProblems;
  if (problem === undefined) return null;
  return { seed, invariant: 'liveness', atMs: null, text: livenessProblems.join('; ') };
}

export interface ShrunkFinding {
  readonly text: string;
  readonly faults: number;
  /** Whether `sim run` of the file finds it too. */
  readonly replays: boolean;
}

/** The plan must fail. */
export function shrinkFound(plan: Plan, settle: () => void, maxRuns: number): ShrunkFinding {
  const found = findingOf(runSeed(plan, settle));
  if (found === null) throw new Error('does not fail when it is run again');
  const fails = (candidate: Plan) => {
    const finding = findingOf(runSeed(candidate, settle));
    if (finding?.invariant !== found.invariant) return null;
    return { atMs: finding.atMs ?? candidate.scenario.durationMs };
  };
  const small = shrink(plan, fails, maxRuns);
  const run = runSeed(small.plan, settle);
  const finding = findingOf(run) ?? found;
  const earlier = asScenario(small.plan, run, Math.floor);
  const later = asScenario(small.plan, run, Math.ceil);
  const replaying = [earlier, later].find((one) => isReplayed(one, found.invariant, settle));
  const scenario = replaying ?? earlier;
  const comment = [
    `${found.invariant}: ${finding.text}`,
    ...commentOf(plan, small.plan, replaying !== undefined),
  ];
  return {
    text: writeScenario(scenario, comment),
    faults: run.done.length,
    replays: replaying !== undefined,
  };
}

function commentOf(plan: Plan, small: Plan, replays: boolean): string[] {
  const original = `Found, and replayed in full, by: holdfast sim explore --seed ${plan.scenario.seed}`;
  if (replays) return [original];
  const { intervalMs, blocks } = small.workload;
  return [
    original,
    'As the scenario below it does NOT happen: what a file can not say was needed.',
    `Guests wrote each ${intervalMs} ms to ${blocks} blocks.`,
    ...small.strikes.map((strike) => `Struck: ${strikeText(strike)}.`),
  ];
}

/** As `sim run` would see it: with the file's text between. */
function isReplayed(scenario: Scenario, invariant: string, settle: () => void): boolean {
  const read = readScenario(writeScenario(scenario));
  const { result, violations } = runScenario(read, { settle, crc32, log: null, realTime: () => 0 });
  if (invariant === 'liveness') return violations.length === 0 && !result.ok;
  return violations.some((one) => one.invariant === invariant);
}
