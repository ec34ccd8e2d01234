// Watches the survivors after the failure: their events for the timeline, their APIs and the guests'
// own reports for the result.

import { createClient } from '../../api/client.ts';
import type { EventReply, RecoveryReply } from '../../api/schemas.ts';
import { waitUntil } from '../../lab/waiting.ts';
import type { DemoCluster, DemoHost } from './cluster.ts';
import type { GuestReports } from './guest-reports.ts';
import type { Reporter } from './reporter.ts';
import { lostWrites, sinceKill, type VmResult } from './result.ts';
import { type DemoVm, reportsOn } from './workload.ts';

const recoveryTimeoutMs = 90_000;
/** After its restart a guest must have gone on writing, not only have booted. */
const numbersAfter = 3;

/** A VM as it was when the host failed. */
export interface VmBefore {
  readonly vm: DemoVm;
  readonly host: string;
  readonly reports: GuestReports;
}

export interface EventLog {
  readonly seen: readonly EventReply[];
  stop(): Promise<void>;
}

/** Follows the events of each of the hosts until stopped. */
export function followEvents(hosts: readonly DemoHost[], reporter: Reporter): EventLog {
  const stopping = new AbortController();
  const seen: EventReply[] = [];
  const follow = async (host: DemoHost): Promise<void> => {
    for await (const event of createClient([host.socket]).events({ signal: stopping.signal })) {
      seen.push(event);
      reporter.event(event);
    }
  };
  const all = Promise.allSettled(hosts.map(follow));
  return {
    seen,
    async stop() {
      stopping.abort();
      await all;
    },
  };
}

export async function watchRecovery(
  cluster: DemoCluster,
  before: readonly VmBefore[],
  victim: string,
  killedAt: number,
  reporter: Reporter,
  signal: AbortSignal,
  events: EventLog,
): Promise<VmResult[]> {
  const survivors = cluster.hosts.filter((host) => host.name !== victim);
  return Promise.all(
    before.map((vm) =>
      vm.host === victim
        ? restarted(cluster, survivors, vm, killedAt, reporter, signal, events)
        : ranOn(cluster, vm, signal),
    ),
  );
}

async function restarted(
  cluster: DemoCluster,
  survivors: readonly DemoHost[],
  { vm, host: from, reports: old }: VmBefore,
  killedAt: number,
  reporter: Reporter,
  signal: AbortSignal,
  events: EventLog,
): Promise<VmResult> {
  let to: string | null = null;
  let now: GuestReports | null = null;
  let said = false;
  const missing = async (): Promise<string | null> => {
    for (const host of survivors) {
      const reports = await reportsOn(cluster, host.name, vm);
      const first = reports.reads[0];
      if (first === undefined) continue;
      [to, now] = [host.name, reports];
      if (!said) {
        said = true;
        reporter.moment(
          Date.now(),
          'first guest report',
          `${vm.name}: on ${host.name} the guest read ${first}; the last acknowledged was ${old.lastWrote}.`,
        );
      }
      return (reports.lastWrote ?? 0) >= first + numbersAfter ? null : 'its guest does not go on';
    }
    const info = await cluster.client.vm(vm.id);
    return info.note ?? `it is ${info.power} on ${info.host ?? 'no host'}`;
  };
  const options = { timeoutMs: recoveryTimeoutMs, signal, everyMs: 50 };
  await waitUntil(`${vm.name} runs again`, missing, options);

  const record = await findRecord(survivors, vm, signal);
  const reports = now as GuestReports | null;
  const firstReadAfter = reports?.reads[0] ?? 0;
  const lastAcknowledged = old.lastWrote ?? 0;
  return {
    name: vm.name,
    from,
    to: to ?? from,
    lastAcknowledged,
    firstReadAfter,
    lost: lostWrites(lastAcknowledged, firstReadAfter, reports?.damage ?? []),
    recovery: sinceKill(record, events.seen, killedAt),
  };
}

/** The master's record of the failover; the master is any of the survivors. */
async function findRecord(
  survivors: readonly DemoHost[],
  vm: DemoVm,
  signal: AbortSignal,
): Promise<RecoveryReply> {
  let record: RecoveryReply | undefined;
  const missing = async (): Promise<string | null> => {
    for (const host of survivors) {
      const found = (await createClient([host.socket]).recoveries()).filter((r) => r.vm === vm.id);
      record = found.at(-1) ?? record;
      if (record !== undefined && record.recovery.guestReadyAtMs !== null) return null;
    }
    return record === undefined ? 'no host has a record' : 'the guest was not heard';
  };
  await waitUntil(`the record of the recovery of ${vm.name}`, missing, {
    timeoutMs: 15_000,
    signal,
  });
  return record as RecoveryReply;
}

/** A VM whose host did not fail must have gone on, without a restart. */
async function ranOn(
  cluster: DemoCluster,
  { vm, host, reports: old }: VmBefore,
  signal: AbortSignal,
): Promise<VmResult> {
  let now = old;
  const missing = async (): Promise<string | null> => {
    now = await reportsOn(cluster, host, vm);
    return (now.lastWrote ?? 0) >= (old.lastWrote ?? 0) + numbersAfter
      ? null
      : `its guest stands at ${now.lastWrote}`;
  };
  const options = { timeoutMs: recoveryTimeoutMs, signal };
  await waitUntil(`${vm.name} runs on, on ${host}`, missing, options);
  const restart = now.reads.at(-1);
  const again = now.reads.length > old.reads.length;
  const lastAcknowledged = old.lastWrote ?? 0;
  const info = await cluster.client.vm(vm.id);
  return {
    name: vm.name,
    from: host,
    to: info.host ?? host,
    lastAcknowledged,
    firstReadAfter: again ? (restart ?? null) : null,
    lost: lostWrites(again ? lastAcknowledged : 0, restart ?? 0, now.damage),
    recovery: null,
  };
}
