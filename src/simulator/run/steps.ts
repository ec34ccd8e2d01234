// What befalls the world: each step of a scenario, and each fault of a plan, is one call of `apply`.

import { policyText } from '../../model/policy.ts';
import type { Network, NetworkChoice, Step, StepKind } from '../../scenario/scenario.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { World } from '../world/world.ts';

/** The hosts that a step befalls; for the time of a failure. */
export function befallen(step: StepKind, world: World): readonly string[] {
  switch (step.kind) {
    case 'crash':
    case 'stopDaemon':
    case 'freeze':
    case 'failDisk':
    case 'slowDisk':
    case 'flakyDisk':
    case 'corruptDisk':
    case 'fillDisk':
    case 'pullDisk':
    case 'isolate':
      return [step.host];
    case 'partition':
      return step.groups.flat();
    case 'block':
      return [step.from, step.to];
    case 'killGuest':
    case 'hangGuest':
      return world.machines.filter((it) => it.guest(step.vm) !== null).map((it) => it.name);
    default:
      return [];
  }
}

/** Does it, and tells it in the story. What a user is refused is told, too. */
export function apply(world: World, step: StepKind): void {
  world.tell(textOf(step));
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

/** A step as the story and a list of faults tell it. */
export function textOf(step: StepKind | Step): string {
  const on = (network: NetworkChoice) =>
    network === 'both' ? 'both networks' : `the ${name(network)} network`;
  switch (step.kind) {
    case 'partition':
      return `${on(step.network)} ${verb(step.network, 'split')}: ${step.groups.map((group) => group.join(' ')).join(' | ')}`;
    case 'block':
      return `${on(step.network)} ${verb(step.network, 'carry')} nothing from ${step.from} to ${step.to}`;
    case 'isolate':
      return `${step.host} is cut off from ${on(step.network)}`;
    case 'heal':
      return `${on(step.network)} ${step.network === 'both' ? 'are' : 'is'} whole again`;
    case 'crash':
      return `${step.host} loses its power`;
    case 'boot':
      return `${step.host} has power again`;
    case 'stopDaemon':
      return `the daemon of ${step.host} is killed`;
    case 'startDaemon':
      return `the daemon of ${step.host} is started`;
    case 'freeze':
      return `the daemon of ${step.host} stands still for ${step.forMs / 1000} s`;
    case 'killGuest':
      return `the guest of ${step.vm} is killed`;
    case 'hangGuest':
      return `the guest of ${step.vm} hangs`;
    case 'powerOff':
      return `a user switches ${step.vm} off${step.via === null ? '' : ` at ${step.via}`}`;
    case 'powerOn':
      return `a user switches ${step.vm} on${step.via === null ? '' : ` at ${step.via}`}`;
    case 'setPolicy':
      return `a user gives ${step.vm}/${step.disk} the policy ${policyText(step.policy)}`;
    case 'failDisk':
      return `${disk(step)} fails`;
    case 'repairDisk':
      return step.device === undefined
        ? `${step.host} gets an empty disk`
        : `an empty disk is put in the place of ${disk(step)}`;
    case 'slowDisk':
      return step.byMs === 0
        ? `${disk(step)} is fast again`
        : `${disk(step)} is slower by ${step.byMs} ms`;
    case 'flakyDisk':
      return step.errorShare === 0
        ? `${disk(step)} makes no errors any more`
        : `${disk(step)} fails ${step.errorShare * 100}% of what it is asked for`;
    case 'corruptDisk':
      return `${disk(step)} rots`;
    case 'fillDisk':
      return `${disk(step)} is full`;
    case 'freeDisk':
      return `${disk(step)} has room again`;
    case 'pullDisk':
      return `${disk(step)} is taken out`;
    case 'plugDisk':
      return `${disk(step)} is put back`;
    case 'migrate':
      return `a user moves ${step.vm} to ${step.to}`;
    case 'maintenance':
      return `${step.host} ${step.on ? 'goes into' : 'leaves'} maintenance`;
  }
}

function disk(step: { readonly host: string; readonly device?: string }): string {
  return step.device === undefined
    ? `the disk of ${step.host}`
    : `device ${step.device} of ${step.host}`;
}

function verb(network: string, base: 'split' | 'carry'): string {
  if (network === 'both') return base;
  return base === 'split' ? 'splits' : 'carries';
}

function name(network: Network): string {
  return network === 'ha' ? 'HA' : network;
}
