// What befalls the world: each step of a scenario, and each fault of a plan, is one call of `apply`.

import type { StepKind } from '../../scenario/scenario.ts';
import { stepText } from '../../scenario/step-text.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { World } from '../world/world.ts';

/** Does it, and tells it in the story. What a user is refused is told, too. */
export function apply(world: World, step: StepKind): void {
  world.tell(stepText(step));
  switch (step.kind) {
    case 'partition':
      return world.partition(step.network, step.groups);
    case 'block':
      return world.block(step.network, step.from, step.to);
    case 'isolate':
      return world.isolate(step.network, step.host);
    case 'heal':
      return world.heal(step.network);
    case 'killGuest':
      return eachGuest(world, step.vm, (guest) => guest.exit(false, 'killed by the scenario'));
    case 'hangGuest':
      return eachGuest(world, step.vm, (guest) => {
        guest.isHung = true;
      });
    case 'powerOff':
    case 'powerOn':
      return asUser(world, step);
    case 'setPolicy':
      return asUser(world, step);
    case 'migrate':
    case 'maintenance':
      return world.tell(`there is no ${step.kind === 'migrate' ? 'migration' : 'maintenance'} yet`);
    default:
      return toMachine(world, world.machine(step.host), step);
  }
}

type MachineStep = Extract<StepKind, { readonly host: string }>;

function toMachine(world: World, machine: Machine, step: MachineStep): void {
  const device = 'device' in step ? machine.device(step.device) : null;
  const disk = device?.disk ?? machine.disk;
  switch (step.kind) {
    case 'crash':
      return machine.cutPower();
    case 'boot':
      return machine.powerOn();
    case 'stopDaemon':
      return machine.killDaemon();
    case 'startDaemon':
      return machine.startDaemon();
    case 'freeze':
      machine.freezeDaemon();
      world.time.after(step.forMs, () => {
        if (machine.isFrozen) world.tell(`the daemon of ${machine.name} goes on`);
        machine.thawDaemon();
      });
      return;
    case 'failDisk':
      disk.isFailed = true;
      return;
    case 'repairDisk':
      return device === null ? machine.replaceDisk() : device.install();
    case 'slowDisk':
      disk.slowerByMs = step.byMs;
      return;
    case 'flakyDisk':
      disk.errorChance = step.errorShare;
      return;
    case 'corruptDisk':
      for (const { file, offset } of disk.corrupt(step.blocks)) {
        world.tell(`${machine.name}: bits flip in ${file} at ${offset}`);
      }
      return;
    case 'fillDisk':
      disk.isFull = true;
      return;
    case 'freeDisk':
      disk.isFull = false;
      return;
    case 'pullDisk':
      return disk.pull();
    case 'plugDisk':
      disk.isPulled = false;
      return;
    default:
      throw new Error(`${step.kind} is not for one machine`);
  }
}

function eachGuest(world: World, vm: string, action: (guest: VirtualGuest) => void): void {
  const guests = world.machines.flatMap((machine) => machine.guest(vm) ?? []);
  for (const guest of guests) if (guest.state !== 'exited') action(guest);
}

type UserStep = Extract<
  StepKind,
  { readonly kind: 'powerOff' | 'powerOn' } | { readonly kind: 'setPolicy' }
>;

function asUser(world: World, step: UserStep): void {
  const { vm } = step;
  const manager = world.manager(step.via);
  if (manager === null) return world.tell(`nobody answers the user of ${vm}`);
  const call = async (): Promise<string> => {
    if (step.kind === 'setPolicy') {
      const { problems } = await manager.setDiskPolicy(vm, step.disk, step.policy);
      return problems.length === 0 ? 'it complies' : problems.join('; ');
    }
    if (step.kind === 'powerOff') return (await manager.stopVm(vm, { force: false })).power;
    return (await manager.startVm(vm, {})).power;
  };
  call().then(
    (seen) => world.tell(`the user of ${vm} sees: ${seen}`),
    (error: unknown) => {
      world.tell(
        `the user of ${vm} is told: ${error instanceof Error ? error.message : String(error)}`,
      );
    },
  );
}
