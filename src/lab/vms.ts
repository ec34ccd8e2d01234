// The VMs of a scenario, made and started as a user would. They are at time 0 when those that shall run do, are
// protected where they shall be, and have acknowledged some numbers: what is to be lost must be there.

import type { ApiClient } from '../api/client.ts';
import type { VmReply } from '../api/schemas.ts';
import { haRulesOf, type Scenario, type ScenarioVm } from '../scenario/scenario.ts';
import type { LabCluster } from './cluster.ts';
import { sharedDisks } from './shared-storage.ts';
import { waitUntil } from './waiting.ts';
import type { Watch, WatchedVm } from './watch.ts';

/** The guest that comes with Holdfast and counts on its disk. */
const image = 'counter';
const enoughNumbers = 3;
const atOnce = 4;
/** Emulated guests boot slowly where several start at once on few processors. */
const readyWithinMs = 90_000;
const readyWithinMsEach = 5000;

export async function makeVms(cluster: LabCluster): Promise<WatchedVm[]> {
  const made: WatchedVm[] = [];
  await each(
    cluster.scenario.vms,
    async (vm, via) => {
      const { id } = await via.createVm(requestOf(vm, disksOf(vm, cluster.lab.folder)));
      made.push({ id, name: vm.name });
    },
    cluster,
  );
  return made;
}

type Request = Parameters<ApiClient['createVm']>[0];
type Disks = Pick<Request, 'disks' | 'policy'>;

function requestOf(vm: ScenarioVm, disks: Disks): Request {
  return {
    name: vm.name,
    cpus: vm.cpus,
    memoryBytes: vm.memoryBytes,
    ...disks,
    protected: vm.protected,
    ...haRulesOf(vm),
    boot: image,
    ...(vm.components === null ? {} : { hosts: vm.components }),
    ...(Object.keys(vm.objects).length === 0 ? {} : { objectHosts: vm.objects }),
  };
}

function disksOf(vm: ScenarioVm, labFolder: string): Disks {
  if (vm.storage === 'shared') return { disks: sharedDisks(vm, labFolder) };
  const disks = vm.disksBytes.map((sizeBytes, index) => ({
    sizeBytes,
    ...(vm.required === null || vm.required.includes(`disk${index}`) ? {} : { required: false }),
  }));
  return { disks, policy: vm.policy };
}

export async function startVms(cluster: LabCluster): Promise<void> {
  const start = async (vm: ScenarioVm, via: ApiClient): Promise<void> => {
    await via.startVm(vm.name, vm.on === null ? {} : { on: vm.on });
  };
  await each(powered(cluster.scenario), start, cluster);
}

export async function waitForVms(
  cluster: LabCluster,
  watch: Watch,
  signal: AbortSignal,
): Promise<void> {
  const vms = powered(cluster.scenario);
  const missing = async (): Promise<string | null> => {
    const infos = new Map((await cluster.client.vms()).map((info) => [info.name, info]));
    for (const vm of vms) {
      const lacks = lacking(vm, infos.get(vm.name), watch.numbers(vm.name).wrote);
      if (lacks !== null) return `${vm.name}: ${lacks}`;
    }
    return null;
  };
  const timeoutMs = readyWithinMs + readyWithinMsEach * vms.length;
  await waitUntil('all VMs run', missing, { timeoutMs, signal });
}

function lacking(vm: ScenarioVm, info: VmReply | undefined, wrote: number): string | null {
  if (info === undefined) return 'no host knows it';
  if (info.power !== 'running') return `it is ${info.power}`;
  if (!info.ready) return 'its guest was not heard yet';
  const { protection } = info;
  if (vm.protected && protection.status !== 'protected') return `it is ${protection.status}`;
  return wrote >= enoughNumbers ? null : `its guest wrote ${wrote}`;
}

const powered = ({ vms }: Scenario): ScenarioVm[] => vms.filter((vm) => vm.powered);

/** Asked of one host after the other, some at the same time. */
async function each(
  vms: readonly ScenarioVm[],
  act: (vm: ScenarioVm, via: ApiClient) => Promise<void>,
  { hosts }: LabCluster,
): Promise<void> {
  const queue = [...vms.entries()];
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [index, vm] = next;
      const via = hosts[index % hosts.length];
      if (via !== undefined) await act(vm, via.client);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}
