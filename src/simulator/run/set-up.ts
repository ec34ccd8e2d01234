// From a scenario to a world at its time 0: all hosts are up, all VMs are made, and those that shall
// be powered on run where they shall and are protected.

import type { HostParts } from '../../host/create-host.ts';
import type { VmRequest } from '../../manager/api.ts';
import { type HostId, hostId } from '../../model/ids.ts';
import { type Timings, timings } from '../../model/limits.ts';
import { haRulesOf, type Scenario, type ScenarioVm } from '../../scenario/scenario.ts';
import { hiddenVms } from '../strategies/hidden-vms.ts';
import type { Workload } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { Process } from '../world/process.ts';
import { World } from '../world/world.ts';

type OwnDisks = Pick<VmRequest, 'disks' | 'policy'>;

export interface SetUpOptions {
  /** Instead of the scenario's. */
  readonly seed?: number;
  readonly settle: () => void;
  readonly crc32?: (bytes: Uint8Array) => number;
  readonly log: ((line: string) => void) | null;
  readonly workload?: Workload;
  readonly parts?: (machine: Machine, process: Process) => HostParts;
}

/** As the guest of the demo: one write a second, of a few blocks. */
export const usualWorkload: Workload = { intervalMs: 1000, blocks: 8 };

/** VMs that are made, or started, at the same time. */
const atOnce = 100;
const upWithinMs = 60_000;
const callWithinMs = 60_000;

/** What a scenario asks for that the product can not do yet; each a sentence. */
export function notYetPossible(scenario: Scenario): string[] {
  const problems: string[] = [];
  for (const step of scenario.steps) {
    if (step.kind === 'migrate') problems.push(`${step.vm}: migration`);
    if (step.kind === 'maintenance') problems.push(`${step.host}: maintenance mode`);
  }
  return problems;
}

/** The product's timings with the scenario's options. */
function timingsOf(scenario: Scenario): Timings {
  const changed = Object.entries(scenario.cluster.options).map(([name, ms]) => [`${name}Ms`, ms]);
  return { ...timings, ...Object.fromEntries(changed) };
}

export function createWorld(scenario: Scenario, options: SetUpOptions): World {
  const { cluster } = scenario;
  return new World({
    seed: options.seed ?? scenario.seed,
    hosts: cluster.hosts.map((host) => ({ ...host, drift: cluster.drift[host.name] ?? 0 })),
    networks: cluster.networks,
    loss: cluster.loss,
    timings: timingsOf(scenario),
    workload: options.workload ?? usualWorkload,
    settle: options.settle,
    log: options.log,
    ...(options.crc32 === undefined ? {} : { crc32: options.crc32 }),
    ...(options.parts === undefined ? {} : { parts: options.parts }),
  });
}

/** Brings the world to time 0. What can not be is told in the story, and returned. */
export function setUp(world: World, scenario: Scenario): string[] {
  const problems: string[] = [];
  const { time } = world;
  for (const machine of world.machines) machine.powerOn();
  const isUp = () =>
    world.machines.every((one) => (one.host?.manager.status().master ?? null) !== null);
  if (!time.advanceUntil(isUp, upWithinMs)) problems.push('the cluster does not come up');
  time.advance(2 * world.options.timings.heartbeatIntervalMs); // everybody has heard everybody
  if (!time.advanceUntil(() => reachEachOther(world), upWithinMs, 100)) {
    problems.push('not all hosts reach each other');
  }
  const make = (vm: ScenarioVm, via: Machine) => makeVm(world, vm, via);
  const files = hiddenVms(scenario.strategies, scenario.cluster.hosts);
  problems.push(...inBatches(world, [...files, ...scenario.vms], 'made', make));
  time.advance(1000); // what was announced has arrived
  const on = scenario.vms.filter(
    (vm) => vm.powered && !problems.some((it) => it.startsWith(`${vm.name} `)),
  );
  problems.push(...inBatches(world, on, 'started', startVm));
  const shallBeProtected = on.filter((vm) => vm.protected).map((vm) => vm.name);
  if (!time.advanceUntil(() => areProtected(world, shallBeProtected), upWithinMs, 100)) {
    problems.push('not all VMs are protected');
  }
  world.begin();
  for (const problem of problems) world.tell(problem);
  return problems;
}

function inBatches(
  world: World,
  vms: readonly ScenarioVm[],
  what: string,
  act: (vm: ScenarioVm, via: Machine) => Promise<unknown>,
): string[] {
  const problems: string[] = [];
  for (let from = 0; from < vms.length; from += atOnce) {
    const batch = vms.slice(from, from + atOnce).map((vm, index) => {
      // Asked of one host after the other, so that none is the bottleneck of a large cluster.
      const via = world.machines[index % world.machines.length] as Machine;
      return act(vm, via).catch((error: unknown) => {
        problems.push(
          `${vm.name} is not ${what}: ${error instanceof Error ? error.message : String(error)}`,
        );
      });
    });
    world.time.await(Promise.all(batch), callWithinMs);
  }
  return problems;
}

async function makeVm(world: World, vm: ScenarioVm, via: Machine): Promise<void> {
  world.addVm(vm.name, vm.disksBytes);
  const named = Object.entries(vm.objects).map(([object, hosts]) => [object, hosts.map(hostId)]);
  await via.host?.manager.createVm({
    name: vm.name,
    cpus: vm.cpus,
    memoryBytes: vm.memoryBytes,
    ...disksOf(vm),
    protected: vm.protected,
    ...haRulesOf(vm),
    ...(vm.components === null ? {} : { hosts: vm.components.map(hostId) }),
    ...(named.length === 0
      ? {}
      : { objectHosts: Object.fromEntries(named) as Record<string, HostId[]> }),
  });
}

function disksOf({ name, storage, disksBytes, policy, required }: ScenarioVm): OwnDisks {
  if (storage === 'shared') {
    return { disks: disksBytes.map((_, index) => ({ path: `/shared/${name}/disk${index}` })) };
  }
  return {
    disks: disksBytes.map((sizeBytes, index) => ({
      sizeBytes,
      ...(required === null || required.includes(`disk${index}`) ? {} : { required: false }),
    })),
    policy,
  };
}

async function startVm(vm: ScenarioVm, via: Machine): Promise<void> {
  await via.host?.manager.startVm(vm.name, vm.on === null ? {} : { on: hostId(vm.on) });
}

/** Words that were lost on the way are said again later. */
function reachEachOther(world: World): boolean {
  return world.machines.every((one) =>
    one.host?.manager.status().hosts.every(({ storage }) => storage === 'reachable'),
  );
}

function areProtected(world: World, names: readonly string[]): boolean {
  const [manager] = world.machines.flatMap((one) => one.host?.manager ?? []);
  if (names.length === 0) return true;
  const isProtected = new Set(
    manager?.vms().flatMap((vm) => (vm.protection.status === 'protected' ? [vm.name] : [])),
  );
  return names.every((name) => isProtected.has(name));
}
