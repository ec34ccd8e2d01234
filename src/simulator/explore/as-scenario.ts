// A plan with what was really done in its run, as a scenario that needs no plan any more: budgets have
// decided, strikes are steps at the time at which they struck, the end of the faults is written out.

import type { Scenario, ScenarioVm, Step, StepKind } from '../../scenario/scenario.ts';
import type { Exploration } from './explore-run.ts';
import type { Plan } from './plan.ts';

const recoverMs = 120_000;
const afterViolationMs = 1000;

/** `rounded`: how the time of a strike, which is no whole number of milliseconds, becomes one. */
export function asScenario(
  plan: Plan,
  run: Exploration,
  rounded: (ms: number) => number,
): Scenario {
  const { scenario } = plan;
  const [violation] = run.violations;
  const endMs = scenario.durationMs;
  const done = run.done.map(({ atMs, step }): Step => ({ atMs: whole(atMs, rounded), ...step }));
  const steps = [...done, ...recovery(plan, run).map((step) => ({ atMs: endMs, ...step }))];
  if (violation !== undefined) {
    const name = nameOf(plan, violation.invariant);
    const durationMs = Math.ceil(violation.atMs) + afterViolationMs;
    const isInStory = violation.atMs < endMs;
    return { ...scenario, name, steps: isInStory ? done : steps, durationMs };
  }
  const durationMs = endMs + recoverMs;
  const running = scenario.vms.filter((vm) => isDue(plan, vm)).map((vm) => vm.name);
  return {
    ...scenario,
    name: nameOf(plan, 'not as it should be after the faults'),
    steps,
    durationMs,
    expect: running.map((vm) => ({
      text: '',
      kind: 'state',
      atMs: durationMs,
      vms: [vm],
      state: 'running',
      on: null,
      for: null,
    })),
  };
}

/** Whether it must run in the end, as far as can be told before the run. */
function isDue({ abandoned, scenario }: Plan, vm: ScenarioVm): boolean {
  const { failuresToTolerate } = vm.policy;
  // Where its objects are after another policy is not known, nor where they are that nobody placed.
  const isChanged = scenario.steps.some((step) => step.kind === 'setPolicy' && step.vm === vm.name);
  if ((isChanged || vm.components === null) && abandoned.length > 0) return false;
  const gone = (vm.components ?? []).filter((host) => abandoned.includes(host));
  return vm.powered && vm.protected && gone.length <= failuresToTolerate;
}

function nameOf({ scenario }: Plan, what: string): string {
  return `Found by exploration, seed ${scenario.seed}: ${what}`;
}

function whole(atMs: number, rounded: (ms: number) => number): number {
  return Number.isInteger(atMs) ? atMs : Math.max(0, rounded(atMs));
}

/** What ends all faults, for hosts that are not abandoned. */
function recovery({ abandoned, scenario }: Plan, { done }: Exploration): StepKind[] {
  const failed = new Set<string>();
  const nameOfDisk = (host: string, device = '') => `${host}/${device}`;
  for (const { step } of done) {
    if (step.kind === 'failDisk') failed.add(nameOfDisk(step.host, step.device));
    if (step.kind === 'repairDisk') failed.delete(nameOfDisk(step.host, step.device));
  }
  return [
    { kind: 'heal', network: 'both' },
    ...scenario.cluster.hosts.flatMap(({ name: host, devices = [] }): StepKind[] => {
      if (abandoned.includes(host)) return [{ kind: 'crash', host }];
      const disks = [{ host }, ...devices.map(({ name }) => ({ host, device: name }))];
      return [
        ...disks.flatMap((on: { host: string; device?: string }): StepKind[] => [
          { kind: failed.has(nameOfDisk(host, on.device)) ? 'repairDisk' : 'freeDisk', ...on },
          { kind: 'slowDisk', ...on, byMs: 0 },
          { kind: 'flakyDisk', ...on, errorShare: 0 },
        ]),
        ...devices.map(({ name: device }): StepKind => ({ kind: 'plugDisk', host, device })),
        { kind: 'boot', host },
        { kind: 'startDaemon', host },
      ];
    }),
  ];
}
