// A scenario: a cluster, its VMs, steps in time, and what must hold. This is the file after reading,
// with every default filled in and every unit resolved: milliseconds, bytes, fractions. The same
// scenario runs on virtual time and on real daemons.

import type { DeviceClass } from '../model/device.ts';
import type { StoragePolicy } from '../model/policy.ts';
import type { WaitReason } from '../model/recovery.ts';
import { type HaRules, type HostAffinity, type RestartPriority, rulesOf } from '../model/vm.ts';

export interface Scenario {
  readonly name: string;
  readonly seed: number;
  /** What is missing for the checks to pass; null: nothing is. */
  readonly pending: string | null;
  readonly durationMs: number;
  readonly cluster: ScenarioCluster;
  readonly strategies: Strategies;
  /** With `count` expanded: `web` of count 2 stands here as `web-1` and `web-2`. */
  readonly vms: readonly ScenarioVm[];
  /** In order of time; those of the same time in the order of the file. */
  readonly steps: readonly Step[];
  readonly expect: readonly Check[];
}

export interface ScenarioHost {
  readonly name: string;
  readonly kind: 'full' | 'witness';
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Of its main device. */
  readonly diskBytes: number;
  readonly site: string | null;
  /** Of its main device; absent: the usual one. */
  readonly diskClass?: DeviceClass;
  /** Beside the main one. */
  readonly devices?: readonly ScenarioDevice[];
}

export interface ScenarioDevice {
  readonly name: string;
  readonly class: DeviceClass;
  readonly diskBytes: number;
}

export type Network = 'storage' | 'ha';

export interface ScenarioCluster {
  readonly hosts: readonly ScenarioHost[];
  readonly networks: 'separate' | 'shared';
  /** Options of the product in milliseconds, by the name in `timings` without its `Ms`. */
  readonly options: Readonly<Record<string, number>>;
  /** Host -> how much faster (or, negative, slower) its clock runs, as a fraction. */
  readonly drift: Readonly<Record<string, number>>;
  /** Probability per frame. */
  readonly loss: Readonly<Record<Network, number>>;
  readonly backend: 'builtin' | 'ceph';
  readonly guest: 'qemu' | 'process';
}

/** The product's own way is the first of each. */
export interface Strategies {
  readonly protection:
    | 'namespace-metadata'
    | 'central-file'
    | 'per-vm-file'
    | 'witness-file'
    | 'segmented-file';
  readonly failover: 'accessibility-aware' | 'conventional';
  readonly coordination: 'master' | 'peers';
  readonly access: 'query' | 'publish' | 'trial';
  readonly notify: 'vm' | 'object' | 'interval';
  readonly accessible: 'all' | 'namespace-only';
}

export const productStrategies: Strategies = {
  protection: 'namespace-metadata',
  failover: 'accessibility-aware',
  coordination: 'master',
  access: 'query',
  notify: 'vm',
  accessible: 'all',
};

export interface ScenarioVm {
  readonly name: string;
  /** Powered on there at time 0; null: spread. */
  readonly on: string | null;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly disksBytes: readonly number[];
  readonly policy: StoragePolicy;
  /** Hosts of all its objects: data copies first, then witnesses; null: placed by the product. */
  readonly components: readonly string[] | null;
  /** Hosts of single objects, by `namespace`, `disk0`, ...; these win over `components`. */
  readonly objects: Readonly<Record<string, readonly string[]>>;
  /** Objects that must be accessible; null: all. */
  readonly required: readonly string[] | null;
  readonly storage: 'object' | 'shared';
  readonly protected: boolean;
  readonly priority: RestartPriority;
  /** Names of VMs (with `count` expanded). */
  readonly after: readonly string[];
  readonly separate: string | null;
  readonly readyWhen: NonNullable<HaRules['readyWhen']> | null;
  readonly affinity: HostAffinity | null;
  readonly isolationResponse: NonNullable<HaRules['isolationResponse']> | null;
  readonly whenHung: NonNullable<HaRules['whenHung']> | null;
  readonly powered: boolean;
}

export type NetworkChoice = Network | 'both';

/** `atMs` counts from time 0, when all powered VMs run and are protected. */
export type Step = { readonly atMs: number } & StepKind;

export type StepKind =
  | {
      readonly kind: 'partition';
      readonly network: NetworkChoice;
      readonly groups: readonly (readonly string[])[];
    }
  | {
      readonly kind: 'block';
      readonly network: NetworkChoice;
      readonly from: string;
      readonly to: string;
    }
  | { readonly kind: 'isolate'; readonly host: string; readonly network: NetworkChoice }
  | { readonly kind: 'heal'; readonly network: NetworkChoice }
  | { readonly kind: 'crash'; readonly host: string }
  | { readonly kind: 'boot'; readonly host: string }
  | { readonly kind: 'stopDaemon'; readonly host: string }
  | { readonly kind: 'startDaemon'; readonly host: string }
  | { readonly kind: 'freeze'; readonly host: string; readonly forMs: number }
  | { readonly kind: 'killGuest'; readonly vm: string }
  | { readonly kind: 'hangGuest'; readonly vm: string }
  | { readonly kind: 'powerOff'; readonly vm: string; readonly via: string | null }
  | { readonly kind: 'powerOn'; readonly vm: string; readonly via: string | null }
  | {
      readonly kind: 'setPolicy';
      readonly vm: string;
      readonly disk: string;
      readonly policy: StoragePolicy;
      readonly via: string | null;
    }
  | ({ readonly kind: 'failDisk' } & OnDevice)
  | ({ readonly kind: 'repairDisk' } & OnDevice)
  | ({ readonly kind: 'slowDisk'; readonly byMs: number } & OnDevice)
  | ({ readonly kind: 'flakyDisk'; readonly errorShare: number } & OnDevice)
  | ({ readonly kind: 'corruptDisk'; readonly blocks: number } & OnDevice)
  | ({ readonly kind: 'fillDisk' } & OnDevice)
  | ({ readonly kind: 'freeDisk' } & OnDevice)
  | { readonly kind: 'pullDisk'; readonly host: string; readonly device: string }
  | { readonly kind: 'plugDisk'; readonly host: string; readonly device: string }
  | { readonly kind: 'migrate'; readonly vm: string; readonly to: string }
  | { readonly kind: 'maintenance'; readonly host: string; readonly on: boolean };

/** Without the name of a device it befalls the main one. */
interface OnDevice {
  readonly host: string;
  readonly device?: string;
}

export type VmStateName = 'running' | 'off' | 'waiting' | 'paused';

/** `vms` are the names that the pattern of the file stood for; `text` is the check as people read it. */
export type Check = { readonly text: string } & CheckKind;

export type CheckKind =
  | {
      readonly kind: 'state';
      readonly atMs: number;
      readonly vms: readonly string[];
      readonly state: VmStateName;
      readonly on: readonly string[] | null;
      readonly for: WaitReason | null;
    }
  | {
      readonly kind: 'never';
      readonly fromMs: number;
      readonly toMs: number;
      readonly vms: readonly string[];
      readonly state: VmStateName;
    }
  | {
      readonly kind: 'masters';
      readonly atMs: number;
      readonly groups: readonly (readonly string[])[];
    }
  | { readonly kind: 'protected'; readonly atMs: number; readonly vms: readonly string[] }
  | { readonly kind: 'restartedWithin'; readonly vms: readonly string[]; readonly withinMs: number }
  | {
      readonly kind: 'counter';
      readonly counter: string;
      readonly min: number | null;
      readonly max: number | null;
    };

/** The counters that a result carries and a check may name. */
export const counterNames = [
  'restartAttempts',
  'restartAttemptsFailed',
  'metadataSets',
  'metadataSetsRefused',
  'metadataGets',
  'elections',
  'pauses',
  'resumes',
] as const;

export type CounterName = (typeof counterNames)[number];

/** One run, as `--json` prints it. Times are milliseconds from time 0. */
export interface ScenarioResult {
  readonly name: string;
  readonly ok: boolean;
  readonly executor: 'sim' | 'lab';
  readonly seed: number;
  readonly simulatedMs: number;
  readonly wallMs: number;
  readonly checks: readonly CheckResult[];
  readonly invariants: readonly { readonly name: string; readonly violations: number }[];
  readonly counters: Readonly<Record<CounterName, number>>;
  readonly recoveries: readonly RecoveryResult[];
}

export interface CheckResult {
  readonly check: string;
  readonly ok: boolean;
  /** What was there instead, or as well. */
  readonly saw: string;
  /** The scenario is pending and this check failed: it counts neither as passed nor as failed. */
  readonly pending?: string;
}

export interface RecoveryResult {
  readonly vm: string;
  readonly from: string | null;
  readonly to: string | null;
  readonly failedAtMs: number;
  readonly detectedAtMs: number | null;
  readonly lockFreeAtMs: number | null;
  readonly accessibleAtMs: number | null;
  readonly placedAtMs: number | null;
  readonly startedAtMs: number | null;
  readonly guestReadyAtMs: number | null;
}

/** What HA keeps to of the VM, as it is asked for when the VM is made. */
export function haRulesOf(vm: ScenarioVm): HaRules {
  const { priority, after, separate, readyWhen, affinity, isolationResponse, whenHung } = vm;
  return rulesOf({
    priority,
    ...(after.length === 0 ? {} : { after }),
    ...(separate === null ? {} : { separate }),
    ...(readyWhen === null ? {} : { readyWhen }),
    ...(affinity === null ? {} : { affinity }),
    ...(isolationResponse === null ? {} : { isolationResponse }),
    ...(whenHung === null ? {} : { whenHung }),
  });
}
