// What a host's API, and through it the CLI, can ask of the cluster. Any host answers for the whole
// part of the cluster that it can reach.

import type { HostState, Waiting } from '../ha/api.ts';
import type { DeviceClass } from '../model/device.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { ClusterEvent } from '../model/events.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { DiskFormat } from '../model/path-disk.ts';
import type { StoragePolicy } from '../model/policy.ts';
import type { ProtectionStatus } from '../model/protection.ts';
import type { VmRecovery } from '../model/recovery.ts';
import type { ProofOfDeath } from '../model/restart.ts';
import type { HaRules, PowerState, VmSpec } from '../model/vm.ts';
import type { DeviceView, ObjectView, VmPlacement } from '../storage/api.ts';
import type { DiskService, DiskServiceRequest } from './disk-service.ts';

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
  /** Disks that its guest runs without; it gets them when they can be reached. */
  readonly detached: readonly string[];
}

export interface VmDetail extends VmInfo {
  /** Why HA might start it, the last time that it did; null: it never did, or its record is out of reach. */
  readonly restart: ProofOfDeath | null;
  readonly objects: readonly ObjectView[];
}

export interface HostInfo {
  readonly name: HostId;
  readonly state: HostState;
  readonly storage: 'reachable' | 'unreachable' | 'failed';
  readonly problem: string | null;
  readonly site: string | null;
  readonly vms: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly diskTotalBytes: number;
  readonly diskFreeBytes: number;
  /** `full`: none of its devices takes new objects. */
  readonly diskFill: 'ok' | 'nearFull' | 'full';
  /** The main one first; none as long as nothing was heard of it. */
  readonly devices: readonly DeviceView[];
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

/** A new object (`sizeBytes`), or what lies at `path` on each host. */
export interface DiskRequest {
  readonly sizeBytes?: number;
  readonly policy?: string | StoragePolicy;
  readonly required?: boolean;
  readonly path?: string;
  readonly format?: DiskFormat;
}

/** What a user asks for, and where its objects shall be; names of the policies are resolved against
 * the cluster's policies. */
export interface VmRequest extends VmPlacement, Partial<HaRules> {
  readonly name: string;
  readonly cpus?: number;
  readonly memoryBytes: number;
  readonly disks: readonly DiskRequest[];
  readonly policy?: string | StoragePolicy;
  readonly boot?: string;
  readonly protected?: boolean;
}

export interface MetadataRequest {
  /** Name or id. */
  readonly vm: string;
  readonly service: string;
  readonly key: string;
  /** Null removes the key. */
  readonly value: JsonValue;
  /** Only if the key has this value now; null: only if it has none. */
  readonly expected?: JsonValue;
  /** Only if the VM's namespace record has this revision. */
  readonly revision?: number;
}

export interface MetadataOutcome {
  readonly vm: string;
  readonly done: boolean;
  readonly code: ErrorCode | null;
  readonly message: string | null;
}

export interface MetadataReply {
  readonly values: readonly {
    readonly vm: VmId;
    readonly name: string;
    readonly value: JsonValue;
    readonly revision: number;
  }[];
  /** Of the VMs asked for: those that have no such key, and those that are not accessible now. */
  readonly without: readonly string[];
  readonly inaccessible: readonly string[];
  /** Reads of objects that the answer took. */
  readonly objectReads: number;
}

export interface ObjectInfo extends ObjectView {
  readonly vmName: string;
  /** `namespace`, or the name of a disk: `VM/LABEL` names an object for people. */
  readonly label: string;
}

export interface PolicyInfo {
  readonly name: string;
  readonly failuresToTolerate: number;
  readonly stripes: number;
  readonly thick: boolean;
  /** Null: either. */
  readonly deviceClass: DeviceClass | null;
  /** Hosts that an object of this policy needs. */
  readonly hostsNeeded: number;
  readonly isBuiltIn: boolean;
  /** Objects whose maker names no policy get this one. */
  readonly isDefault: boolean;
}

/** Named storage policies. What one says is copied into an object when it is made, or is given the policy. */
export interface Policies {
  list(): Promise<PolicyInfo[]>;
  /** Rejects with `unknown-object`; `default` is the name of whichever is the default. */
  get(name: string): Promise<PolicyInfo>;
  /** Resolves when this host has it durably. Rejects with `name-in-use`, `bad-request`. */
  create(name: string, policy: StoragePolicy): Promise<PolicyInfo>;
  setDefault(name: string): Promise<PolicyInfo>;
  /** Objects made with it keep what it said. Rejects with `bad-request` for one that is built in, and
   * with `conflict` for the default. */
  remove(name: string): Promise<void>;
  /** What a name stands for now; rejects with `bad-request` naming the key of the request. */
  resolve(key: string, policy: string | StoragePolicy | undefined): Promise<StoragePolicy>;
}

export interface Manager {
  readonly policies: Policies;
  status(): ClusterStatus;
  hosts(): HostInfo[];
  /** Takes a host that does not answer out of the cluster for good: its votes and copies go to others.
   * Rejects with `unknown-host`, or with `conflict` while it answers. */
  removeHost(name: string): Promise<void>;
  vms(): VmInfo[];
  /** By name or id; throws `unknown-vm`. */
  vm(nameOrId: string): VmDetail;
  /** Of one VM, or of all; with `problems` those that are out of compliance with their policies. */
  objects(which: { readonly vm?: string; readonly problems?: boolean }): ObjectInfo[];
  /** By id, or as `VM/LABEL`; throws `unknown-object`, `unknown-vm`. */
  object(name: string): ObjectInfo;
  createVm(request: VmRequest): Promise<VmInfo>;
  /** Resolves when the guest's process runs. `on`: the host to start it on. */
  startVm(nameOrId: string, options: { readonly on?: HostId }): Promise<VmInfo>;
  /** Asks the guest to switch itself off; ends it after a grace time, or at once with `force`. */
  stopVm(nameOrId: string, options: { readonly force: boolean }): Promise<VmInfo>;
  /** Another policy for a disk that exists: `policy` names one, or is one. Resolves when it is agreed on; what
   * it takes is done in the background, while the guest runs. */
  setDiskPolicy(
    nameOrId: string,
    disk: string,
    policy: string | StoragePolicy,
  ): Promise<ObjectInfo>;
  /** Whether the VM can be started, and goes on being accessible, without this disk. */
  setRequired(nameOrId: string, disk: string, required: boolean): Promise<VmInfo>;
  /** Of the VMs named, or of all that are accessible. Throws `unknown-vm`. */
  metadata(service: string, key: string, vms?: readonly string[]): MetadataReply;
  /** Each for itself; in the order of the requests. */
  setMetadata(changes: readonly MetadataRequest[]): Promise<MetadataOutcome[]>;
  removeVm(nameOrId: string): Promise<void>;
  /** Serves a disk of a VM that is switched off, by this host; rejects with `already-running` or
   * `lock-held` if it is not. */
  serveDisk(nameOrId: string, request: DiskServiceRequest): Promise<DiskService>;
  recoveries(): VmRecovery[];
  /** The last events that this host saw, oldest first. */
  events(): readonly ClusterEvent[];
  onEvent(listener: (event: ClusterEvent) => void): () => void;
}
