// What a scenario asks for that can not be done with real daemons on this machine, each as a sentence that
// names the key. A scenario that runs without what it asks for would look like one that holds.

import { parseDocument } from 'yaml';
import type { Scenario, ScenarioVm, Step } from '../scenario/scenario.ts';

/** The built-in guest does not boot in less. */
const leastQemuMiB = 96;

/** `text` is the file: whether a key was named is not to be seen in what was read from it. */
export function refusals(text: string, scenario: Scenario): string[] {
  const { cluster, vms, steps } = scenario;
  const problems: string[] = [];
  const named = parseDocument(text).toJS() as {
    readonly seed?: unknown;
    readonly strategies?: unknown;
    readonly cluster?: { readonly drift?: unknown };
  };
  if (named.seed !== undefined) problems.push('seed: chance on real machines has none');
  if (named.strategies !== undefined)
    problems.push('strategies: real daemons have the one way only');
  if (named.cluster?.drift !== undefined) {
    problems.push('cluster.drift: all hosts of the lab have the clock of this machine');
  }
  if (cluster.backend === 'ceph') problems.push('cluster.backend: ceph is not built yet');
  for (const vm of vms) problems.push(...ofVm(vm, cluster.guest));
  for (const step of steps) {
    const why = ofStep(step, cluster.guest);
    if (why !== null) problems.push(`steps: ${step.kind}: ${why}`);
  }
  return [...new Set(problems)];
}

function ofVm(vm: ScenarioVm, guest: Scenario['cluster']['guest']): string[] {
  const problems: string[] = [];
  if (guest === 'qemu' && vm.memoryBytes < leastQemuMiB * 2 ** 20) {
    problems.push(`memoryMiB: the guest boots in ${leastQemuMiB} and more, or with guest: process`);
  }
  return problems.map((problem) => `vms: ${vm.name}: ${problem}`);
}

const onlyWhole = 'the devices of the lab fail as a whole, by failDisk or pullDisk';

/** Null: it can be done. */
function ofStep(step: Step, guest: Scenario['cluster']['guest']): string | null {
  switch (step.kind) {
    case 'migrate':
    case 'maintenance':
      return 'it is not built yet';
    case 'flakyDisk':
    case 'corruptDisk':
      return onlyWhole;
    case 'hangGuest':
      return guest === 'qemu' ? 'a part of QEMU can not be stopped; guest: process can' : null;
    default:
      return null;
  }
}
