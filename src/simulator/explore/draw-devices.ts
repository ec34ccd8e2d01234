// Hosts with several devices, in a part of the seeds: which VMs lie on them, and what befalls single ones. Drawn from
// streams of its own, so that seeds without devices are what they would be without this file.

import type { ScenarioDevice, ScenarioHost, ScenarioVm, Step } from '../../scenario/scenario.ts';
import type { SeededRandom } from '../world/random.ts';

const gibibyte = 2 ** 30;

/** Of each seven tenths of the full hosts, one fast device or two. */
export function drawDevices(random: SeededRandom, hosts: readonly ScenarioHost[]): ScenarioHost[] {
  if (!random.chance(0.25)) return [...hosts];
  return hosts.map((host) => {
    const own = random.stream(host.name);
    if (host.kind === 'witness' || !own.chance(0.7)) return host;
    const names = own.chance(0.3) ? ['d1', 'd2'] : ['d1'];
    const devices = names.map(
      (name): ScenarioDevice => ({ name, class: 'fast', diskBytes: 200 * gibibyte }),
    );
    return { ...host, devices };
  });
}

/** Most VMs whose copies may all lie on fast devices have them there. */
export function drawClasses(
  random: SeededRandom,
  vms: readonly ScenarioVm[],
  hosts: readonly ScenarioHost[],
): ScenarioVm[] {
  const pooled = new Set(hosts.filter(({ devices }) => devices).map(({ name }) => name));
  return vms.map((vm) => {
    const data = (vm.components ?? []).slice(0, vm.policy.failuresToTolerate + 1);
    const isPossible = data.length > 0 && data.every((host) => pooled.has(host));
    if (!isPossible || !random.stream(vm.name).chance(0.75)) return vm;
    return { ...vm, policy: { ...vm.policy, deviceClass: 'fast' } };
  });
}

export function drawDeviceFaults(
  random: SeededRandom,
  hosts: readonly ScenarioHost[],
  durationMs: number,
): Step[] {
  const devices = hosts.flatMap(({ name: host, devices = [] }) =>
    devices.map(({ name: device }) => ({ host, device })),
  );
  if (devices.length === 0) return [];
  const steps: Step[] = [];
  const count = random.pick([1, 1, 2, 3, 5, 8]);
  for (let fault = 0; fault < count; fault += 1) {
    const own = random.stream(`fault ${fault}`);
    const on = own.pick(devices);
    // A device that fails for good is admitted only while all is well, which is early.
    const kind = own.pick(['fail', 'pull', 'pull', 'pull', 'full', 'slow'] as const);
    const atMs = 300 + own.below(kind === 'fail' ? durationMs / 3 : durationMs);
    const endMs = atMs + 100 + own.below(own.pick([800, 3000, 9000, 30_000]));
    const byMs = own.pick([20, 200, 1000, 3000]);
    const pairs: Record<typeof kind, readonly [Step, Step]> = {
      fail: [
        { atMs, kind: 'failDisk', ...on },
        { atMs: endMs, kind: 'repairDisk', ...on },
      ],
      pull: [
        { atMs, kind: 'pullDisk', ...on },
        { atMs: endMs, kind: 'plugDisk', ...on },
      ],
      full: [
        { atMs, kind: 'fillDisk', ...on },
        { atMs: endMs, kind: 'freeDisk', ...on },
      ],
      slow: [
        { atMs, kind: 'slowDisk', ...on, byMs },
        { atMs: endMs, kind: 'slowDisk', ...on, byMs: 0 },
      ],
    };
    steps.push(...pairs[kind].filter((step) => step.atMs < durationMs));
  }
  return steps;
}
