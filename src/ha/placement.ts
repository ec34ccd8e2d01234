// Where a VM shall start, from what the hosts said of themselves. Memory is a hard bound; processors
// are shared, so a VM must only fit the host's number of them; and a required host affinity is one. Among the
// hosts that do: the one that the VM prefers, then any but the one where it was tried in vain, then those of its
// affinity, then those with the fewest VMs that it is to be apart from, then hosts with its data, then the least
// loaded, then by name.

import type { HostId } from '../model/ids.ts';
import type { HostAffinity } from '../model/vm.ts';
import type { RunningVm } from './api.ts';

/** A host that may be told to start VMs. */
export interface Target {
  readonly host: HostId;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly freeMemoryBytes: number;
}

export interface Need {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly affinity?: HostAffinity;
}

export interface Wishes {
  /** The living host on which the VM's guest ended by itself. */
  readonly prefer: HostId | null;
  /** Where it was last tried in vain. */
  readonly avoid: HostId | null;
  readonly affinity: HostAffinity | undefined;
  /** How many of the VMs that it is to be apart from each host has. */
  readonly crowd: ReadonlyMap<HostId, number>;
  readonly dataHosts: readonly HostId[];
}

export function targetOf(
  host: HostId,
  capacity: { readonly cpus: number; readonly memoryBytes: number },
  running: readonly RunningVm[],
): Target {
  const used = running.reduce((sum, vm) => sum + vm.memoryBytes, 0);
  return {
    host,
    cpus: capacity.cpus,
    memoryBytes: capacity.memoryBytes,
    freeMemoryBytes: capacity.memoryBytes - used,
  };
}

export function fits(need: Need, target: Target): boolean {
  const { affinity } = need;
  if (affinity?.required === true && !affinity.hosts.includes(target.host)) return false;
  return need.memoryBytes <= target.freeMemoryBytes && need.cpus <= target.cpus;
}

/** The best of the targets for a VM that fits each of them; null of none. */
export function choose(targets: readonly Target[], wishes: Wishes): HostId | null {
  const { prefer, avoid, affinity, crowd, dataHosts } = wishes;
  const isIn = (hosts: readonly string[] | undefined, { host }: Target) =>
    Number(hosts?.includes(host) ?? false);
  const crowdOf = ({ host }: Target) => crowd.get(host) ?? 0;
  const better = (a: Target, b: Target): number =>
    Number(b.host === prefer) - Number(a.host === prefer) ||
    Number(a.host === avoid) - Number(b.host === avoid) ||
    isIn(affinity?.hosts, b) - isIn(affinity?.hosts, a) ||
    crowdOf(a) - crowdOf(b) ||
    isIn(dataHosts, b) - isIn(dataHosts, a) ||
    load(a) - load(b) ||
    (a.host < b.host ? -1 : 1);
  return targets.toSorted(better)[0]?.host ?? null;
}

function load(target: Target): number {
  return target.memoryBytes === 0 ? 1 : 1 - target.freeMemoryBytes / target.memoryBytes;
}
