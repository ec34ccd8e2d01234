// What must be so again some time after all faults have ended: a system that never did anything wrong
// by never doing anything would keep all invariants. Looked at from outside, at one moment; what
// cannot be otherwise (a machine that is off, a copy that went with its device) is no problem.

import type { VmDetail } from '../../manager/api.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import type { Voting } from '../../model/record.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { World } from '../world/world.ts';
import { parts, Reach, type Working, working } from './reach.ts';
import { waitingProblems } from './waiting.ts';

export interface Expected {
  readonly name: string;
  readonly shouldRun: boolean;
}

export type LiveWorld = Pick<World, 'machines' | 'areLinked' | 'nowMs' | 'options'>;

/** What has been seen of a run. */
export interface Seen {
  /** When a write of the VM was acknowledged last, in the time of the story. */
  lastAcknowledgedMs(name: string): number | null;
  /** See `Ledger.doubtful`. */
  doubtful(object: ObjectId): Voting | null;
}

/** Rounds of its workload without an answered write after which a guest makes no progress. */
const idleRounds = 20;

/** Problems, as sentences; none if all is well. Without `seen` a guest makes progress if its
 * host hears it. */
export function liveness(
  world: LiveWorld,
  expected: readonly Expected[],
  seen: Seen | null = null,
): string[] {
  const up = working(world);
  const reach = new Reach(world, up, (object) => seen?.doubtful(object) ?? null);
  const down = world.machines.filter(
    (machine) => machine.isPowered && !up.some((one) => one.machine === machine),
  );
  return [
    ...down.map(({ name }) => `${name} is on, and its daemon does not work`),
    ...up.flatMap(({ machine: { name } }) => {
      const problem = reach.storeProblem(name);
      return problem === null ? [] : [`the store of ${name} has failed: ${problem}`];
    }),
    ...parts(world, 'ha', up).flatMap((part) => masterProblems(part)),
    ...expected.flatMap((one) => runProblems(world, up, one, seen)),
    ...expected.flatMap(({ name }) => viewProblems(world, up, reach, name)),
    ...waitingProblems(world, up, reach),
  ];
}

/** One master per part of the HA network, which all follow. */
function masterProblems(part: readonly Working[]): string[] {
  const masters = part.filter((one) => ownState(one) === 'master').map((one) => one.machine.name);
  const names = part.map((one) => one.machine.name).join(', ');
  // Witnesses are never master.
  const canElect = part.some((one) => one.machine.member.kind === 'full');
  const [master] = masters;
  if (!canElect) return [];
  if (master === undefined || masters.length > 1) {
    return [`${names} have ${masters.length} masters: ${masters.join(', ')}`];
  }
  return part.flatMap(({ machine, host }) => {
    const follows = host.manager.status().master;
    return follows === master ? [] : [`${machine.name} follows ${follows}; master is ${master}`];
  });
}

function ownState({ machine, host }: Working): string | null {
  return host.manager.hosts().find((one) => one.name === machine.name)?.state ?? null;
}

function guestsOf(world: LiveWorld, name: string): { on: HostId; guest: VirtualGuest }[] {
  return world.machines.flatMap((machine) => {
    const guest = machine.guest(name);
    return guest === null || guest.state === 'exited' ? [] : [{ on: machine.name, guest }];
  });
}

function runProblems(
  world: LiveWorld,
  up: readonly Working[],
  { name, shouldRun }: Expected,
  seen: Seen | null,
): string[] {
  const guests = guestsOf(world, name);
  const running = guests.filter(({ guest }) => guest.state === 'running');
  const where = guests.map(({ on, guest }) => `${guest.state} on ${on}`).join(', ');
  if (!shouldRun) return running.length === 0 ? [] : [`${name} should not run, and is ${where}`];
  const [only] = running;
  if (only === undefined) return [`${name} does not run${where === '' ? '' : `: it is ${where}`}`];
  if (running.length > 1) return [`${name} runs more than once: ${where}`];
  const host = up.find((one) => one.machine.name === only.on)?.host;
  const view = host === undefined ? null : viewOf(host, name);
  if (view === null) return [`${only.on} runs ${name} and does not know it`];
  if (!view.ready) return [`${name} runs on ${only.on}, which does not hear it`];
  return isWriting(world, view, seen) ? [] : [`${name} runs on ${only.on}, and nothing of it`];
}

function isWriting(world: LiveWorld, { name, spec }: VmDetail, seen: Seen | null): boolean {
  const { intervalMs, blocks } = world.options.workload;
  if (seen === null || blocks === 0 || spec.disks.length === 0) return true;
  const lastMs = seen.lastAcknowledgedMs(name);
  const longestMs = idleRounds * intervalMs + world.options.timings.leaseDurationMs;
  return lastMs !== null && world.nowMs() - lastMs <= longestMs;
}

/** A VM that runs is seen as whole and protected wherever its host is reached. */
function viewProblems(
  world: LiveWorld,
  up: readonly Working[],
  reach: Reach,
  name: string,
): string[] {
  const on = guestsOf(world, name).find(({ guest }) => guest.state === 'running')?.on;
  if (on === undefined) return [];
  return up.flatMap(({ machine, host }) => {
    if (!world.areLinked('storage', machine.name, on)) return [];
    const view = viewOf(host, name);
    if (view === null) return [`${machine.name} does not know ${name}`];
    const problems = copyProblems(world, reach, machine.name, view);
    const { status } = view.protection;
    if (view.spec.protected && reach.canUse(machine.name, name, view.objects)) {
      if (!view.accessible) problems.push(`${machine.name} takes ${name} for inaccessible`);
      else if (status !== 'protected') problems.push(`${name} is ${status}, says ${machine.name}`);
    }
    return problems;
  });
}

function copyProblems(world: LiveWorld, reach: Reach, from: HostId, view: VmDetail): string[] {
  return view.objects.flatMap((object) =>
    object.components.flatMap(({ component, host, state }) => {
      if (state === 'active' || !world.areLinked('storage', from, host)) return [];
      if (!reach.hasComponent(host, component)) return [];
      return [`${view.name} ${object.name}: the copy on ${host} is ${state}, says ${from}`];
    }),
  );
}

function viewOf(host: Working['host'], name: string): VmDetail | null {
  // Asking for a VM that is not known is an error.
  return host.manager.vms().some((one) => one.name === name) ? host.manager.vm(name) : null;
}
