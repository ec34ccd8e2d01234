// Where a VM shall start, from what the hosts said of themselves. Memory is a hard bound; processors
// are shared, so a VM must only fit the host's number of them. Among the hosts that do: the one that
// the VM prefers, then hosts with its data, then the least loaded, then by name.

import type { HostId } from '../model/ids.ts';
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
}

interface Wishes {
  /** The living host on which the VM's guest ended by itself. */
  readonly prefer: HostId | null;
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
  return need.memoryBytes <= target.freeMemoryBytes && need.cpus <= target.cpus;
}

/** The best of the targets for a VM that fits each of them; null of none. */
export function choose(targets: readonly Target[], wishes: Wishes): HostId | null {
  const better = (a: Target, b: Target): number =>
    Number(b.host === wishes.prefer) - Number(a.host === wishes.prefer) ||
    Number(wishes.dataHosts.includes(b.host)) - Number(wishes.dataHosts.includes(a.host)) ||
    load(a) - load(b) ||
    (a.host < b.host ? -1 : 1);
  return targets.toSorted(better)[0]?.host ?? null;
}

function load(target: Target): number {
  return target.memoryBytes === 0 ? 1 : 1 - target.freeMemoryBytes / target.memoryBytes;
}
