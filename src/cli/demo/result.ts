// What the demo's observations amount to: pure arithmetic on what was seen before and after.

import type { EventReply, RecoveryReply } from '../../api/schemas.ts';
import type { Recovery } from '../../model/recovery.ts';
import { leastRateHz, type Observation, rateHz } from './sampler.ts';

/** From the kill to the guest's process on the other host, with default timings. */
export const startBoundMs = 6000;

export interface VmResult {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly lastAcknowledged: number;
  /** Null for a VM that was not restarted. */
  readonly firstReadAfter: number | null;
  readonly lost: number;
  readonly recovery: Recovery | null;
}

export interface DemoResult {
  readonly ok: boolean;
  readonly hosts: number;
  readonly vms: readonly VmResult[];
  readonly maxInstancesAtOnce: number;
  readonly accelerator: string;
  /** With --keep. */
  readonly context?: string;
}

/** Acknowledged numbers that the guest did not find again; damage that it found is a loss too. */
export function lostWrites(
  lastAcknowledged: number,
  firstReadAfter: number,
  damage: readonly string[],
): number {
  return Math.max(lastAcknowledged - firstReadAfter, damage.length > 0 ? 1 : 0, 0);
}

const eventOf: readonly (readonly [keyof Recovery, EventReply['type']])[] = [
  ['detectedAtMs', 'failover.detected'],
  ['lockFreeAtMs', 'failover.lockFree'],
  ['placedAtMs', 'failover.placed'],
  ['startedAtMs', 'failover.started'],
  ['guestReadyAtMs', 'failover.guestReady'],
];

/**
 * The master's record with times from the kill. The master counts from the host's last heartbeat,
 * which is up to one interval before the kill; an event of the same step, whose wall time is known,
 * ties both together (all hosts of the demo share this machine's clock).
 */
export function sinceKill(
  record: RecoveryReply,
  events: readonly EventReply[],
  killedAt: number,
): Recovery {
  let shift = 0;
  for (const [key, type] of eventOf) {
    const time = record.recovery[key];
    const event = events.find((e) => e.type === type && e.vm === record.vm && e.at >= killedAt);
    if (time === null || event === undefined) continue;
    shift = event.at - time - killedAt;
    break;
  }
  const convert = (time: number | null): number | null =>
    time === null ? null : Math.max(0, Math.round(time + shift));
  const { recovery } = record;
  return {
    failedAtMs: 0,
    detectedAtMs: convert(recovery.detectedAtMs),
    lockFreeAtMs: convert(recovery.lockFreeAtMs),
    accessibleAtMs: convert(recovery.accessibleAtMs),
    placedAtMs: convert(recovery.placedAtMs),
    startedAtMs: convert(recovery.startedAtMs),
    guestReadyAtMs: convert(recovery.guestReadyAtMs),
  };
}

/** Everything that keeps the demo from being `ok`, each as a sentence. */
export function faults(
  vms: readonly VmResult[],
  victim: string,
  observation: Observation,
): string[] {
  const found: string[] = [];
  for (const vm of vms) {
    if (vm.from === victim && vm.to === victim) found.push(`${vm.name} did not move.`);
    if (vm.from !== victim && vm.to !== vm.from) {
      found.push(`${vm.name} was moved though its host had not failed.`);
    }
    if (vm.lost > 0) found.push(`${vm.name} lost ${vm.lost} acknowledged writes.`);
  }
  for (const [vm, count] of Object.entries(observation.maxInstances)) {
    if (count !== 1) found.push(`VM ${vm} had ${count} running instances at once.`);
  }
  const rate = rateHz(observation);
  if (rate < leastRateHz) {
    found.push(
      `The observer looked only ${rate.toFixed(1)} times a second; ${leastRateHz} are needed to trust it.`,
    );
  }
  return found;
}

export function maxInstances(observation: Observation): number {
  return Math.max(0, ...Object.values(observation.maxInstances));
}
