// The demo's VMs: each runs the guest that counts on its disk. They are ready for the failure when
// HA protects them and each has acknowledged some numbers.

import type { ApiClient } from '../../api/client.ts';
import { waitUntil } from '../../lab/waiting.ts';
import { builtInGuest } from '../built-in-guest.ts';
import type { DemoCluster, DemoHost } from './cluster.ts';
import { type GuestReports, readReports } from './guest-reports.ts';
import type { Reporter } from './reporter.ts';

const memoryBytes = 96 * 2 ** 20;
const diskBytes = 256 * 2 ** 20;
const enoughNumbers = 5;
/** Emulated guests boot slowly where several start at once on few processors. */
const readyTimeoutMs = 90_000;

export interface DemoVm {
  readonly id: string;
  readonly name: string;
}

export async function createVms(
  client: ApiClient,
  count: number,
  reporter: Reporter,
): Promise<DemoVm[]> {
  const vms: DemoVm[] = [];
  for (let number = 1; number <= count; number += 1) {
    const name = `vm-${number}`;
    const { id } = await client.createVm({
      name,
      memoryBytes,
      disks: [{ sizeBytes: diskBytes }],
      boot: builtInGuest,
    });
    vms.push({ id, name });
    reporter.say(`created ${name}`);
  }
  return vms;
}

/** VM 1 on host 1, VM 2 on host 2, and around again. */
export async function startVms(
  cluster: DemoCluster,
  vms: readonly DemoVm[],
  reporter: Reporter,
): Promise<void> {
  const { hosts, client } = cluster;
  for (const [index, vm] of vms.entries()) {
    const host = hosts[index % hosts.length] as DemoHost;
    await client.startVm(vm.id, { on: host.name });
    reporter.say(`started ${vm.name} on ${host.name}`);
  }
}

export async function waitForVms(
  cluster: DemoCluster,
  vms: readonly DemoVm[],
  signal: AbortSignal,
): Promise<void> {
  for (const vm of vms) {
    const missing = async (): Promise<string | null> => {
      const info = await cluster.client.vm(vm.id);
      if (info.power !== 'running') return `it is ${info.power}`;
      if (!info.ready) return 'its guest was not heard yet';
      if (info.protection.status !== 'protected') {
        const { status } = info.protection;
        return status === 'unprotected'
          ? `${status}: ${info.protection.reason}`
          : `it is ${status}`;
      }
      const { lastWrote } = await reportsOn(cluster, info.host, vm);
      return (lastWrote ?? 0) >= enoughNumbers ? null : `its guest wrote ${lastWrote ?? 'nothing'}`;
    };
    await waitUntil(`${vm.name} runs, protected`, missing, { timeoutMs: readyTimeoutMs, signal });
  }
}

export async function reportsOn(
  cluster: DemoCluster,
  hostName: string | null,
  vm: DemoVm,
): Promise<GuestReports> {
  const host = cluster.hosts.find(({ name }) => name === hostName);
  return readReports(host?.runDir ?? '/nonexistent', vm.id);
}
