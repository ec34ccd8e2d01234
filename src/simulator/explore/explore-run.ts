// One seed, from its plan to its verdict. First the story, with everything that the budget admits, under
// the invariants; then all faults stop, what is not abandoned is healed, and within a bounded time
// everything must be as it should be: a protocol that never does anything wrong by never doing
// anything would pass the first part.

import type { NetworkChoice } from '../../scenario/scenario.ts';
import type { Violation } from '../checkers/violation.ts';
import { createWorld, setUp } from '../run/set-up.ts';
import type { World } from '../world/world.ts';
import { type Done, Faults } from './faults.ts';
import type { Plan } from './plan.ts';
import { Invariants, liveness } from './stand-in.ts';

export interface ExploreOptions {
  readonly settle: () => void;
  readonly log: ((line: string) => void) | null;
}

export interface Exploration {
  readonly seed: number;
  readonly violations: readonly Violation[];
  /** What still was not as it should be when the time for it was over; empty if all was, or if there
   * was a violation before. */
  readonly livenessProblems: readonly string[];
  /** From the world's beginning, with the set-up. */
  readonly simulatedMs: number;
  readonly events: number;
  /** What was done to the cluster. */
  readonly done: readonly Done[];
}

/** After the faults have stopped. */
const recoverWithinMs = 120_000;
const lookEachMs = 1000;

/** Runs the plan; to be called outside of all promises. */
export function explore(plan: Plan, options: ExploreOptions): Exploration {
  const { scenario } = plan;
  const world = createWorld(scenario, { ...options, workload: plan.workload });
  const invariants = new Invariants(world);
  const faults = new Faults(world, plan);
  const isBroken = () => relevant(plan, invariants.violations).length > 0;
  let livenessProblems = setUp(world, scenario);
  if (livenessProblems.length === 0 && !isBroken()) {
    faults.begin();
    for (const step of scenario.steps) {
      advance(world, step.atMs, isBroken);
      if (isBroken()) break;
      faults.apply(step);
    }
    advance(world, scenario.durationMs, isBroken);
    faults.end();
    if (!isBroken()) livenessProblems = recover(world, plan, isBroken);
  }
  invariants.finish();
  const violations = relevant(plan, invariants.violations);
  return {
    seed: scenario.seed,
    violations,
    livenessProblems: violations.length > 0 ? [] : livenessProblems,
    simulatedMs: world.time.now(),
    events: world.time.events,
    done: faults.done,
  };
}

/** In steps, so that a violation ends the run soon. */
function advance(world: World, untilMs: number, isOver: () => boolean): void {
  let atMs = world.nowMs();
  while (atMs < untilMs && !isOver()) {
    atMs = Math.min(untilMs, atMs + lookEachMs);
    world.advanceTo(atMs);
  }
}

/** Where disks are lost without mercy, what was on them is. */
function relevant(plan: Plan, violations: readonly Violation[]): readonly Violation[] {
  if (plan.mercy !== 'none') return violations;
  const lossless = ['single-instance', 'started-with-lock', 'no-stale-write'];
  return violations.filter((one) => lossless.includes(one.invariant));
}

/** Heals what is not abandoned, and says what is still wrong after all the time for it. */
function recover(world: World, plan: Plan, isOver: () => boolean): string[] {
  world.tell('the faults stop');
  healAll(world, plan.abandoned);
  const endMs = world.nowMs() + recoverWithinMs;
  const problems = () => (plan.mercy === 'none' ? [] : liveness(world, plan.scenario));
  while (world.nowMs() < endMs && !isOver()) {
    advance(world, world.nowMs() + lookEachMs, isOver);
    if (problems().length === 0) return [];
  }
  return isOver() ? [] : problems();
}

function healAll(world: World, abandoned: readonly string[]): void {
  const both: NetworkChoice = 'both';
  world.heal(both);
  for (const machine of world.machines) {
    const { disk } = machine;
    disk.isFull = false;
    disk.slowerByMs = 0;
    machine.thawDaemon();
    if (abandoned.includes(machine.name)) {
      machine.cutPower();
      continue;
    }
    if (disk.isFailed) machine.replaceDisk();
    machine.powerOn();
    machine.startDaemon();
  }
}
