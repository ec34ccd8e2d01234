// Does the faults of a plan to a world: the steps at their times, the strikes when a host comes to their
// points, all as far as the budget admits; and remembers what was really done, and when.

import type { Point } from '../../ports/probe.ts';
import type { StepKind } from '../../scenario/scenario.ts';
import { apply } from '../run/steps.ts';
import type { Machine } from '../world/machine.ts';
import type { Observer, World } from '../world/world.ts';
import { Budget } from './budget.ts';
import type { Plan } from './plan.ts';
import { type Strike, stepsOf } from './strikes.ts';

export interface Done {
  /** Milliseconds of the story; a strike's is no whole number. */
  readonly atMs: number;
  readonly step: StepKind;
  /** Null: it was a step of the plan. */
  readonly struckAt: Point['at'] | null;
}

interface Armed {
  readonly strike: Strike;
  seen: number;
  isSpent: boolean;
}

export class Faults implements Observer {
  readonly done: Done[] = [];
  readonly #world: World;
  readonly #budget: Budget;
  readonly #armed = new Map<Point['at'], Armed[]>();
  #isOn = false;

  constructor(world: World, plan: Plan) {
    this.#world = world;
    this.#budget = new Budget(world, plan.mercy);
    for (const strike of plan.strikes) {
      const armed = this.#armed.get(strike.point) ?? [];
      armed.push({ strike, seen: 0, isSpent: false });
      this.#armed.set(strike.point, armed);
    }
    world.observe(this);
  }

  /** Hosts whose main disks failed, and further devices that did. */
  get lostDisks(): ReadonlySet<string> {
    return this.#budget.lostDisks;
  }

  /** From now on strikes may happen. */
  begin(): void {
    this.#isOn = true;
  }

  /** The faults have stopped; what would end one of them later is void too. */
  end(): void {
    this.#isOn = false;
  }

  apply(step: StepKind, struckAt: Point['at'] | null = null): void {
    const admitted = this.#budget.admit(step);
    if (admitted === null) return;
    this.done.push({ atMs: this.#world.nowMs(), step: admitted, struckAt });
    apply(this.#world, admitted);
  }

  reached(machine: Machine, point: Point): void {
    if (!this.#isOn) return;
    const armed = this.#armed.get(point.at);
    if (armed === undefined) return;
    const now = this.#world.nowMs();
    for (const one of armed) {
      if (one.isSpent || now < one.strike.fromMs) continue;
      one.seen += 1;
      if (one.seen < one.strike.occurrence) continue;
      one.isSpent = true;
      this.#strike(machine, one.strike, point.at);
    }
  }

  #strike(machine: Machine, strike: Strike, at: Point['at']): void {
    const world = this.#world;
    world.tell(`${machine.name} is struck at ${at}`);
    const others = world.machines.filter((one) => one !== machine && !one.isFrozen);
    const { begin, end, endAfterMs } = stepsOf(
      strike,
      machine.name,
      others.map((one) => one.name),
    );
    for (const step of begin) this.apply(step, at);
    if (end.length === 0) return;
    world.time.after(endAfterMs, () => {
      if (this.#isOn) for (const step of end) this.apply(step, at);
    });
  }
}
