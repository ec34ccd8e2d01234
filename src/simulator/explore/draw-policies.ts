// Other policies for disks that exist, as steps of a plan: while guests write, hosts fail, and the last change
// may not be done yet.

import { hostsNeeded } from '../../model/policy.ts';
import type { ScenarioHost, ScenarioVm, Step } from '../../scenario/scenario.ts';
import type { SeededRandom } from '../world/random.ts';

/** Those of the wanted numbers of failures that a cluster of these hosts can be asked to stand. */
export function possibleFailures(
  wanted: readonly number[],
  hosts: readonly ScenarioHost[],
): readonly number[] {
  const full = hosts.filter(({ kind }) => kind === 'full').length;
  return wanted.filter((failuresToTolerate) => {
    const needed = hostsNeeded({ failuresToTolerate, stripes: 1 });
    return needed <= hosts.length && failuresToTolerate + 1 <= full;
  });
}

export function drawPolicyChanges(
  random: SeededRandom,
  hosts: readonly ScenarioHost[],
  vms: readonly ScenarioVm[],
  durationMs: number,
): Step[] {
  if (vms.length === 0 || !random.chance(0.35)) return [];
  const possible = possibleFailures([0, 1, 1, 2, 2, 3], hosts);
  const soonMs = random.pick([2000, 10_000, 30_000]);
  return Array.from({ length: 1 + random.below(5) }, (_, index): Step => {
    const own = random.stream(`change ${index}`);
    const vm = own.pick(vms);
    return {
      atMs: 500 + own.below(own.chance(0.5) ? soonMs : durationMs - 500),
      kind: 'setPolicy',
      vm: vm.name,
      disk: `disk${own.below(vm.disksBytes.length)}`,
      policy: {
        failuresToTolerate: own.pick(possible),
        // With other stripes all is made anew; without, copies come and go.
        stripes: own.pick([...Array<number>(4).fill(vm.policy.stripes), 1, 2, 3]),
        ...(own.chance(0.15) ? { thick: true } : {}),
      },
      via: own.chance(0.5) ? own.pick(hosts).name : null,
    };
  });
}
