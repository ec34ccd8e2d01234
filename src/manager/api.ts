// What a host's API, and through it the CLI, can ask of the cluster. Any host answers for the whole
// part of the cluster that it can reach.

import type { HostState, Waiting } from '../ha/api.ts';
import type { ClusterEvent } from '../model/events.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { StoragePolicy } from '../model/policy.ts';
import type { ProtectionStatus } from '../model/protection.ts';
import type { VmRecovery } from '../model/recovery.ts';
import type { PowerState, VmSpec } from '../model/vm.ts';
import type { ObjectView, VmPlacement } from '../storage/api.ts';

export interface VmInfo {
  readonly id: VmId;
  readonly name: string;
  readonly power: PowerState;
  /** Where it runs, as far as this host knows. */
  readonly host: HostId | null;
  readonly ready: boolean;
  readonly protection: ProtectionStatus;
  readonly accessible: boolean;
  readonly spec: VmSpec;
  readonly epoch: number;
  /** Why it does not run though it should, or what its objects lack; null if all is well. */
  readonly note: string | null;
}

export interface VmDetail extends VmInfo {
  readonly objects: readonly ObjectView[];
}

export interface HostInfo {
  readonly name: HostId;
  readonly state: HostState;
  readonly storage: 'reachable' | 'unreachable' | 'failed';
  readonly problem: string | null;
  readonly vms: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly diskTotalBytes: number;
  readonly diskFreeBytes: number;
}

export interface ClusterStatus {
  readonly cluster: string;
  readonly answeredBy: HostId;
  readonly master: HostId | null;
  readonly accelerator: string;
  readonly hosts: readonly HostInfo[];
  readonly vms: { readonly total: number; readonly running: number; readonly protected: number };
  readonly waiting: readonly Waiting[];
}

/** What a user asks for, and where its objects shall be; names of the policies are resolved against
 * the cluster's policies. */
export interface VmRequest extends VmPlacement {
  readonly name: string;
  readonly cpus?: number;
  readonly memoryBytes: number;
  readonly disks: readonly {
    readonly sizeBytes: number;
    readonly policy?: string | StoragePolicy;
  }[];
  readonly policy?: string | StoragePolicy;
  readonly boot?: string;
  readonly protected?: boolean;
  readonly priority?: VmSpec['priority'];
}

export interface Manager {
  status(): ClusterStatus;
  hosts(): HostInfo[];
  vms(): VmInfo[];
  /** By name or id; throws `unknown-vm`. */
  vm(nameOrId: string): VmDetail;
  createVm(request: VmRequest): Promise<VmInfo>;
  /** Resolves when the guest's process runs. `on`: the host to start it on. */
  startVm(nameOrId: string, options: { readonly on?: HostId }): Promise<VmInfo>;
  /** Asks the guest to switch itself off; ends it after a grace time, or at once with `force`. */
  stopVm(nameOrId: string, options: { readonly force: boolean }): Promise<VmInfo>;
  removeVm(nameOrId: string): Promise<void>;
  recoveries(): VmRecovery[];
  /** The last events that this host saw, oldest first. */
  events(): readonly ClusterEvent[];
  onEvent(listener: (event: ClusterEvent) => void): () => void;
}
