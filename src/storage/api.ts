// The object store as HA and the manager see it. What is answered from the directory (GET,
// accessibility, views) informs and may lag; what changes a record goes through the object's
// register and is exact. All times are milliseconds of the host's clock.

import type { ComponentId, Epoch, HostId, ObjectId, VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { StoragePolicy } from '../model/policy.ts';
import type { Lifecycle, Lock } from '../model/record.ts';
import type { VmSpec } from '../model/vm.ts';

/** A VM as the directory of this host knows it. */
export interface VmView {
  readonly vm: VmId;
  readonly name: string;
  readonly spec: VmSpec;
  readonly lifecycle: Lifecycle;
  readonly lock: Lock;
  readonly accessible: Accessibility;
  /** Bytes of the VM's data components per host; for placement near the data. */
  readonly dataHosts: readonly HostId[];
}

export type Accessibility =
  | { readonly accessible: true }
  | {
      readonly accessible: false;
      readonly object: ObjectId | null;
      readonly hosts: readonly HostId[];
      /** A sentence that names the object, what it lacks, and the hosts that would bring it. */
      readonly text: string;
    };

/** What must hold of the VM's namespace record for a change to be made. */
export interface SetCondition {
  /** The lock is held, with this epoch. */
  readonly heldAtEpoch?: Epoch;
}

export interface LockStatus {
  readonly holder: HostId | null;
  readonly epoch: Epoch;
  /** For how long the voters still protect it; 0: it may be taken now. */
  readonly remainingMs: number;
}

export interface LockOptions {
  /** Take the lock only if the record still says that the VM is protected (a start by HA). */
  readonly onlyIfProtected?: boolean;
  /** What the protection record becomes in the same change, if given. */
  readonly protection?: JsonValue;
}

export interface LeaseEvents {
  /** The VM may run until the deadline. */
  extended(vm: VmId, deadlineMs: number): void;
  /** The lease lapsed: the guest must stand still now. Only when `stoodStill` is called are others told
   * that they need not wait for the lease to run out. */
  lapsed(vm: VmId, stoodStill: () => void): void;
  /** A lapsed lease is valid again, and nobody else has had the lock: the guest may go on. */
  regained(vm: VmId, deadlineMs: number): void;
  /** Somebody else has the lock: the guest must be ended. */
  lost(vm: VmId): void;
}

export interface OpenDisks {
  /** Sockets in the order of the VM's disks. */
  readonly disks: readonly { readonly name: string; readonly socket: string }[];
  /** Ends service after what is in flight is done or, without lease, dropped. */
  close(): Promise<void>;
}

export interface OpenDisksOptions {
  readonly epoch: Epoch;
  /** A guest has been using the disks and goes on (the daemon restarted): it must be reset if
   * acknowledged writes that it has not flushed were lost. */
  readonly guestRuns: boolean;
  /** Called when that is so. */
  readonly onWritesLost: () => void;
}

export type ComponentState = 'active' | 'absent' | 'stale' | 'resyncing';

export interface ComponentView {
  readonly component: ComponentId;
  readonly host: HostId;
  readonly mirror: number;
  readonly stripe: number;
  readonly state: ComponentState;
}

export interface ObjectView {
  readonly object: ObjectId;
  readonly vm: VmId;
  readonly kind: 'namespace' | 'disk';
  readonly name: string;
  readonly sizeBytes: number;
  readonly policy: StoragePolicy;
  readonly accessible: Accessibility;
  readonly components: readonly ComponentView[];
  readonly voters: readonly HostId[];
}

export interface StorageHostView {
  readonly host: HostId;
  readonly reachable: boolean;
  readonly store: 'ok' | 'failed' | 'unknown';
  /** Why the store failed. */
  readonly problem?: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/**
 * On which hosts the objects of a new VM go, where that is not left to the store. It decides once; it
 * is no part of what the VM is. A list names the 2f+1 hosts of an object, those with a copy of the data
 * first (f+1 of them, no witnesses), then those that only vote. The namespace object holds no data;
 * its f follows from the length of its list, and must not be smaller than that of any disk.
 */
export interface VmPlacement {
  /** Of all objects; so its length has to fit the policies of all disks. */
  readonly hosts?: readonly HostId[];
  /** Of single objects, `namespace` or the name of a disk (`disk0`, ...); wins over `hosts`. */
  readonly objectHosts?: Readonly<Record<string, readonly HostId[]>>;
}

export interface Storage {
  /** Generic SET. Resolves when a majority of the namespace object's voters has it durably. Rejects
   * with `inaccessible`, `conflict` (the condition does not hold), `unknown-vm`, `bad-request`. */
  setMetadata(
    vm: VmId,
    service: string,
    key: string,
    value: JsonValue,
    condition?: SetCondition,
  ): Promise<void>;
  /** Generic GET over all VMs accessible now, from memory. Who knows which VMs are news names them, and
   * need not look at what there is of others. */
  getMetadata(
    service: string,
    key: string,
    vms?: readonly VmId[],
  ): { readonly values: ReadonlyMap<VmId, JsonValue>; readonly objectReads: 0 };
  accessibility(vms: readonly VmId[]): Map<VmId, Accessibility>;
  /** Batches of VMs that became accessible since the last call back. */
  watchAccessibility(listener: (vms: readonly VmId[]) => void): void;
  /** VMs whose metadata of this service changed in the directory. */
  watchMetadata(service: string, listener: (vms: readonly VmId[]) => void): void;
  /** Hosts of the storage network that answer now, this one included. */
  reachableHosts(): HostId[];
  hosts(): StorageHostView[];

  vms(): VmView[];
  vm(vm: VmId): VmView | null;
  vmNamed(name: string): VmView | null;
  objects(vm: VmId): ObjectView[];
  /** What this host's directory knows of a VM's objects, for another host that is to act on it at
   * once and may not have heard of the last changes. */
  knowledge(vm: VmId): JsonValue;
  /** Takes over what another host knows. */
  learn(knowledge: JsonValue): void;
  /** Makes the VM's objects; nothing is left where it rejects. What is chosen in `placement` is taken
   * or refused: `bad-request`, `policy-unsatisfiable`, `no-capacity`, naming key and host. */
  createVm(spec: VmSpec, placement?: VmPlacement): Promise<VmId>;
  /** Removes a VM that is switched off. Rejects with `lock-held` if it runs. */
  removeVm(vm: VmId): Promise<void>;

  /** Asks the voters; rejects with `inaccessible`. */
  lockStatus(vm: VmId): Promise<LockStatus>;
  /** Takes the VM's lock for this host and begins to hold its lease. Rejects with `lock-held`,
   * `not-protected`, `inaccessible`, `outcome-unknown`. */
  lock(vm: VmId, options?: LockOptions): Promise<Epoch>;
  /** Holds on to a lock that an earlier daemon of this host took: its guest still exists. */
  adopt(vm: VmId, epoch: Epoch): void;
  /** Gives the lock back, changing the protection record in the same step if given. The guest must
   * be gone. Goes on trying in the background where the object is inaccessible, and then rejects. */
  unlock(vm: VmId, epoch: Epoch, protection?: JsonValue): Promise<void>;
  /** Until when the VM's guest may run; null without a valid lease. */
  leaseDeadline(vm: VmId): number | null;
  onLease(events: LeaseEvents): void;

  openDisks(vm: VmId, options: OpenDisksOptions): Promise<OpenDisks>;
}
