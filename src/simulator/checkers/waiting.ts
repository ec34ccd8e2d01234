// Each VM that a master has on its wait list must wait for something that is really missing: a reason
// that is not true is a VM that waits for ever.

import type { World } from '../world/world.ts';
import type { Reach, Working } from './reach.ts';

type Seen = Pick<World, 'machines' | 'areLinked' | 'options'>;

/** Of each entry of each master's wait list, what is wrong with it. */
export function waitingProblems(world: Seen, up: readonly Working[], reach: Reach): string[] {
  return up.flatMap(({ machine: { name: master }, host }) =>
    host.manager.status().waiting.flatMap((entry) => {
      // What the master can order to start a VM, itself included.
      const targets = up.filter(
        ({ machine }) =>
          machine.member.kind === 'full' && world.areLinked('ha', master, machine.name),
      );
      const problem = problemOf(world, reach, targets, entry.name, entry.reason);
      return problem === null
        ? []
        : [`${entry.name} waits for ${entry.reason} on ${master}: ${problem}`];
    }),
  );
}

function problemOf(
  world: Seen,
  reach: Reach,
  targets: readonly Working[],
  vm: string,
  reason: string,
): string | null {
  const runsOn = targets.find(({ machine }) => machine.guest(vm)?.state === 'running');
  if (runsOn !== undefined) return `it runs on ${runsOn.machine.name}`;
  switch (reason) {
    case 'storage': {
      const able = targets.find((one) => canUse(reach, one, vm));
      return able === undefined ? null : `${able.machine.name} can use all its objects`;
    }
    case 'lock': {
      const isThere = world.machines.some((machine) => {
        const guest = machine.guest(vm);
        return guest !== null && guest.state !== 'exited';
      });
      return isThere ? null : 'no guest of it is anywhere';
    }
    case 'capacity': {
      const roomy = targets.find((one) => hasRoom(world, one, vm) && canUse(reach, one, vm));
      return roomy === undefined ? null : `${roomy.machine.name} has room`;
    }
    default:
      return null; // a pause between two attempts: that it does not run is told elsewhere
  }
}

function canUse(reach: Reach, { machine, host }: Working, vm: string): boolean {
  const isKnown = host.manager.vms().some((one) => one.name === vm);
  return isKnown && reach.canUse(machine.name, vm, host.manager.vm(vm).objects);
}

function hasRoom({ options }: Seen, { machine, host }: Working, vm: string): boolean {
  const size = options.hosts.find((one) => one.name === machine.name);
  if (size === undefined) return false;
  const vms = host.manager.vms();
  const spec = vms.find((one) => one.name === vm)?.spec;
  const usedBytes = vms.reduce(
    (sum, one) => sum + (machine.guest(one.name) === null ? 0 : one.spec.memoryBytes),
    0,
  );
  if (spec === undefined || spec.cpus > size.cpus) return false;
  return spec.memoryBytes <= size.memoryBytes - usedBytes;
}
