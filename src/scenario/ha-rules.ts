// What HA keeps to of a scenario's VM, as it is asked for when the VM is made.

import { type HaRules, rulesOf } from '../model/vm.ts';
import type { ScenarioVm } from './scenario.ts';

export function haRulesOf(vm: ScenarioVm): HaRules {
  const { priority, after, separate, readyWhen, affinity, isolationResponse } = vm;
  return rulesOf({
    priority,
    ...(after.length === 0 ? {} : { after }),
    ...(separate === null ? {} : { separate }),
    ...(readyWhen === null ? {} : { readyWhen }),
    ...(affinity === null ? {} : { affinity }),
    ...(isolationResponse === null ? {} : { isolationResponse }),
  });
}
