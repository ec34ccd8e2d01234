// One seed, from its plan to its verdict. First the story, with everything that the budget admits, under
// the invariants; then all faults stop, what is not abandoned is healed, and within a bounded time
// everything must be as it should be: a protocol that never does anything wrong by never doing
// anything would pass the first part.

import { Invariants, type Violation } from '../checkers/invariants.ts';
import { layoutProblems } from '../checkers/layouts.ts';
import { liveness } from '../checkers/liveness.ts';
import { createWorld, setUp } from '../run/set-up.ts';
import type { World } from '../world/world.ts';
import { dueVms } from './due.ts';
import { type Done, Faults } from './faults.ts';
import type { Plan } from './plan.ts';

export interface ExploreOptions {
  /** Only the story: it ends without a look at what becomes of the cluster afterwards. */
  readonly isStoryOnly?: boolean;
  readonly settle: () => void;
  readonly crc32?: (bytes: Uint8Array) => number;
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
/** A guest that has ended soon after each of its starts is not started again for as long as five minutes. */
const longestPauseMs = 300_000;
const lookEachMs = 1000;

/** Runs the plan; to be called outside of all promises. */
export function explore(plan: Plan, options: ExploreOptions): Exploration {
  const { scenario } = plan;
  const world = createWorld(scenario, { ...options, workload: plan.workload });
  const invariants = new Invariants(world);
  const faults = new Faults(world, plan);
  const violations = () => relevant(plan, invariants.violations);
  const isBroken = () => violations().length > 0;
  let livenessProblems = setUp(world, scenario);
  if (livenessProblems.length === 0 && !isBroken()) {
    tellStory(world, plan, faults, isBroken);
    if (options.isStoryOnly !== true)
      livenessProblems = recover(world, plan, invariants, faults.lostDisks, isBroken);
  }
  invariants.finish();
  return {
    seed: scenario.seed,
    violations: violations(),
    livenessProblems: isBroken() ? [] : livenessProblems,
    simulatedMs: world.time.now(),
    events: world.time.events,
    done: faults.done,
  };
}

function tellStory(world: World, plan: Plan, faults: Faults, isBroken: () => boolean): void {
  const { steps, durationMs } = plan.scenario;
  faults.begin();
  for (const step of steps) {
    advance(world, step.atMs, isBroken);
    if (isBroken()) return;
    faults.apply(step);
  }
  advance(world, durationMs, isBroken);
  faults.end();
}

/** In pieces, so that a violation ends the run soon. */
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
  const unconditional = ['single-instance', 'started-with-lock', 'no-stale-write'];
  return violations.filter((one) => unconditional.includes(one.invariant));
}

/** Heals what is not abandoned, and says what is still wrong after all the time for it. */
function recover(
  world: World,
  plan: Plan,
  invariants: Invariants,
  lost: ReadonlySet<string>,
  isBroken: () => boolean,
): string[] {
  if (isBroken() || plan.mercy === 'none') return [];
  world.tell('the faults stop');
  healAll(world, plan);
  const isWhole = plan.abandoned.length === 0 && lost.size === 0;
  const problems = () => {
    const due = dueVms(world, invariants.ledger, lost);
    const running = liveness(world, due, invariants);
    return isWhole ? [...running, ...layoutProblems(invariants.ledger, due)] : running;
  };
  const latestMs = world.nowMs() + longestPauseMs + recoverWithinMs;
  let endMs = world.nowMs() + recoverWithinMs;
  while (world.nowMs() < endMs) {
    advance(world, world.nowMs() + lookEachMs, isBroken);
    if (isBroken() || problems().length === 0) return [];
    // All the time counts from the end of the pause.
    if (hasPause(world)) endMs = Math.min(latestMs, world.nowMs() + recoverWithinMs);
  }
  return problems();
}

/** Some master waits before it starts a VM once more, not for anything that is missing. */
function hasPause(world: World): boolean {
  return world.machines.some((machine) =>
    machine.host?.manager.status().waiting.some((entry) => entry.reason === 'retry'),
  );
}

function healAll(world: World, { abandoned, scenario }: Plan): void {
  world.heal('both');
  for (const machine of world.machines) {
    const { disk, devices } = machine;
    for (const one of machine.disks) {
      one.isFull = false;
      one.slowerByMs = 0;
      one.errorChance = 0;
    }
    machine.thawDaemon();
    if (abandoned.includes(machine.name)) {
      machine.cutPower();
      continue;
    }
    for (const device of devices) {
      if (device.disk.isFailed) device.install();
      device.disk.isPulled = false;
    }
    if (disk.isFailed) machine.replaceDisk();
    machine.powerOn();
    machine.startDaemon();
    for (const { name } of scenario.vms) {
      const guest = machine.guest(name);
      // Whether it has anything that reports nobody knows, so nobody takes it for hung.
      if (guest?.isHung === true && !guest.wasHeard) guest.exit(false, 'it hung');
    }
  }
}
