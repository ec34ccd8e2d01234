// The story of one failover in numbers. One schema for the demo, the timelines and the scenarios.
// All times are milliseconds; in a master's own record they count from the failure, which is the
// last sign of life of the failed host; null is "not yet".

import type { HostId, VmId } from './ids.ts';

export interface Recovery {
  readonly failedAtMs: number;
  readonly detectedAtMs: number | null;
  readonly lockFreeAtMs: number | null;
  readonly accessibleAtMs: number | null;
  readonly placedAtMs: number | null;
  readonly startedAtMs: number | null;
  readonly guestReadyAtMs: number | null;
}

export interface VmRecovery {
  readonly vm: VmId;
  readonly name: string;
  readonly from: HostId | null;
  readonly to: HostId | null;
  readonly recovery: Recovery;
}

/** Why a VM waits. */
export type WaitReason = 'storage' | 'capacity' | 'lock' | 'dependency' | 'retry';
