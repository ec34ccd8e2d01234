// From a plan that fails to a small one that fails in the same way: first all that comes after the
// failure goes, then as many faults as possible (delta debugging: Zeller and Hildebrandt, 2002), then
// what makes the cluster large or strange. What is left is what the failure needs.
//
// Any smaller plan is a run of its own, with other random delays: each is tried, nothing is concluded.

import type { Scenario, ScenarioHost, ScenarioVm, Step } from '../../scenario/scenario.ts';
import { usualWorkload } from '../run/set-up.ts';
import type { Plan } from './plan.ts';
import type { Strike } from './strikes.ts';

/** Whether the plan fails in the way that is looked for; and when, in the time of its story. */
export type Fails = (plan: Plan) => { readonly atMs: number } | null;

export interface Shrunk {
  readonly plan: Plan;
  readonly runs: number;
}

/** The given plan must fail. Tries at most so many others. */
export function shrink(plan: Plan, fails: Fails, maxRuns: number): Shrunk {
  let runs = 0;
  let best = plan;
  const attempt = (candidate: Plan): boolean => {
    if (runs >= maxRuns) return false;
    runs += 1;
    const failure = fails(candidate);
    if (failure === null) return false;
    best = until(candidate, failure.atMs);
    return true;
  };

  attempt(best); // its end is cut off
  for (let before = Number.POSITIVE_INFINITY; size(best) < before; ) {
    before = size(best);
    reduce(faultsOf(best), (faults) => attempt(withFaults(best, faults)));
    for (const simpler of simplifications) {
      const candidate = simpler(best);
      if (candidate !== null) attempt(candidate);
    }
    for (const vm of best.scenario.vms) attempt(withoutVm(best, vm));
    for (const host of best.scenario.cluster.hosts) {
      const candidate = withoutHost(best, host.name);
      if (candidate !== null) attempt(candidate);
    }
  }
  return { plan: best, runs };
}

/**
 * Delta debugging: drops as large parts of the list as `attempt` accepts, then smaller ones, until no
 * single item can go. `attempt` gets what would be left.
 */
export function reduce<T>(items: readonly T[], attempt: (left: readonly T[]) => boolean): T[] {
  let list = [...items];
  for (let parts = 2; list.length > 0; ) {
    const length = Math.ceil(list.length / Math.min(parts, list.length));
    let hasShrunk = false;
    for (let from = 0; from < list.length; ) {
      const left = [...list.slice(0, from), ...list.slice(from + length)];
      if (attempt(left)) {
        list = left;
        hasShrunk = true;
      } else from += length;
    }
    if (length === 1 && !hasShrunk) return list;
    if (!hasShrunk) parts *= 2;
  }
  return list;
}

type Fault = { readonly step: Step } | { readonly strike: Strike };

function faultsOf({ scenario, strikes }: Plan): Fault[] {
  return [...strikes.map((strike) => ({ strike })), ...scenario.steps.map((step) => ({ step }))];
}

function withFaults(plan: Plan, faults: readonly Fault[]): Plan {
  return {
    ...plan,
    strikes: faults.flatMap((fault) => ('strike' in fault ? [fault.strike] : [])),
    scenario: {
      ...plan.scenario,
      steps: faults.flatMap((fault) => ('step' in fault ? [fault.step] : [])),
    },
  };
}

function size({ scenario, strikes, abandoned, workload }: Plan): number {
  const { cluster, vms, steps } = scenario;
  const oddities = [cluster.options, cluster.drift].filter((map) => Object.keys(map).length > 0);
  return (
    steps.length +
    strikes.length +
    vms.length +
    cluster.hosts.length +
    abandoned.length +
    oddities.length +
    cluster.hosts.filter(({ devices }) => devices !== undefined).length +
    (workload === usualWorkload ? 0 : 1) +
    (cluster.loss.storage > 0 ? 1 : 0) +
    (cluster.loss.ha > 0 ? 1 : 0)
  );
}

/** Nothing that comes after the failure can have caused it. */
function until(plan: Plan, atMs: number): Plan {
  const { scenario } = plan;
  const durationMs = Math.min(scenario.durationMs, Math.ceil(Math.max(atMs, 0)) + 1);
  const steps = scenario.steps.filter((step) => step.atMs < durationMs);
  return { ...plan, scenario: { ...scenario, steps, durationMs } };
}

type Cluster = Scenario['cluster'];

function changed(plan: Plan, cluster: Partial<Cluster>): Plan {
  const { scenario } = plan;
  return { ...plan, scenario: { ...scenario, cluster: { ...scenario.cluster, ...cluster } } };
}

/** Null where no host has more than its main device. */
function withoutDevices(plan: Plan): Plan | null {
  const { scenario } = plan;
  if (scenario.cluster.hosts.every(({ devices }) => devices === undefined)) return null;
  const hosts = scenario.cluster.hosts.map((host): ScenarioHost => {
    const { devices: _, ...plain } = host;
    return plain;
  });
  const vms = scenario.vms.map((vm) => {
    const { deviceClass: _, ...policy } = vm.policy;
    return { ...vm, policy };
  });
  const steps = scenario.steps.filter((step) => !('device' in step));
  return changed({ ...plan, scenario: { ...scenario, vms, steps } }, { hosts });
}

/** Each gives a plainer plan, or null where it is as plain as that already. */
const simplifications: readonly ((plan: Plan) => Plan | null)[] = [
  withoutDevices,
  (plan) => (plan.workload === usualWorkload ? null : { ...plan, workload: usualWorkload }),
  (plan) => (plan.abandoned.length === 0 ? null : { ...plan, abandoned: [] }),
  (plan) => {
    const { loss } = plan.scenario.cluster;
    return loss.storage + loss.ha === 0 ? null : changed(plan, { loss: { storage: 0, ha: 0 } });
  },
  (plan) =>
    Object.keys(plan.scenario.cluster.drift).length === 0 ? null : changed(plan, { drift: {} }),
  (plan) =>
    Object.keys(plan.scenario.cluster.options).length === 0 ? null : changed(plan, { options: {} }),
];

function withoutVm(plan: Plan, vm: ScenarioVm): Plan {
  const { scenario } = plan;
  const vms = scenario.vms
    .filter((one) => one.name !== vm.name)
    .map((one) => ({ ...one, after: one.after.filter((name) => name !== vm.name) }));
  const steps = scenario.steps.filter((step) => !('vm' in step) || step.vm !== vm.name);
  return { ...plan, scenario: { ...scenario, vms, steps } };
}

/** Null where a VM is on that host, or has components there. */
function withoutHost(plan: Plan, host: string): Plan | null {
  const { scenario } = plan;
  const isNeeded = scenario.vms.some(
    (vm) => vm.on === host || vm.components?.includes(host) !== false,
  );
  const hosts = scenario.cluster.hosts.filter((one) => one.name !== host);
  if (isNeeded || hosts.length === 0) return null;
  const { [host]: _, ...drift } = scenario.cluster.drift;
  return {
    ...changed(
      { ...plan, scenario: { ...scenario, steps: stepsWithout(scenario.steps, host) } },
      {
        hosts,
        drift,
      },
    ),
    abandoned: plan.abandoned.filter((one) => one !== host),
  };
}

function stepsWithout(steps: readonly Step[], host: string): Step[] {
  return steps.flatMap((step): Step[] => {
    if ('host' in step) return step.host === host ? [] : [step];
    if (step.kind === 'block') return [step.from, step.to].includes(host) ? [] : [step];
    if ('via' in step) return [step.via === host ? { ...step, via: null } : step];
    if (step.kind !== 'partition') return [step];
    const groups = step.groups
      .map((group) => group.filter((one) => one !== host))
      .filter((group) => group.length > 0);
    return groups.length > 1 ? [{ ...step, groups }] : [];
  });
}
