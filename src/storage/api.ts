// The object store as HA and the manager see it. What is answered from the directory (GET,
// accessibility, views) informs and may lag; what changes a record goes through the object's
// register and is exact. All times are milliseconds of the host's clock.

import type { DeviceClass } from '../model/device.ts';
import type { HoldfastError } from '../model/errors.ts';
import type { ComponentId, Epoch, HostId, ObjectId, StoreId, VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { StoragePolicy } from '../model/policy.ts';
import type { Lifecycle, Lock } from '../model/record.ts';
import type { VmSpec } from '../model/vm.ts';
import type { DiskActivity } from '../ports/guests.ts';
import type { Progress } from './disk/progress.ts';

/** A VM as the directory of this host knows it. */
export interface VmView {
  readonly vm: VmId;
  readonly name: string;
  readonly spec: VmSpec;
  readonly lifecycle: Lifecycle;
  /** Nobody holds it where it is held for repair. */
  readonly lock: Lock;
  /** Who brings its disks up to date, while it is switched off. */
  readonly repairedBy: HostId | null;
  readonly accessible: Accessibility;
  /** Bytes of the VM's data components per host; for placement near the data. */
  readonly dataHosts: readonly HostId[];
  /** Of its namespace record: grows with every change. */
  readonly revision: number;
  /** Disks that its present guest was started without. */
  readonly detached: readonly string[];
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
  /** The key's present value; null: it has none. */
  readonly expected?: JsonValue;
  readonly revision?: number;
  /** All metadata of the VM has at most so many bytes afterwards. */
  readonly withinBytes?: number;
}

export interface MetadataChange {
  readonly vm: VmId;
  readonly service: string;
  readonly key: string;
  /** Null removes the key. */
  readonly value: JsonValue;
  readonly condition?: SetCondition;
}

export interface SetResult {
  readonly vm: VmId;
  readonly error: HoldfastError | null;
}

export interface ValueOfVm {
  readonly vm: VmId;
  readonly value: JsonValue;
}

export interface MetadataValues {
  /** Each VM once. A list, because most who ask go through it, and of all VMs a map takes ten times as long. */
  readonly values: readonly ValueOfVm[];
  /** Reads of objects that the answer took; from memory: none. */
  readonly objectReads: number;
}

/** Of a VM: all objects that it needs, or its namespace object, whatever there is of its disks. */
export type AccessScope = 'vm' | 'namespace';

/** How it is told that something became accessible. */
export interface Notice {
  /** `some` names no VM: some object may have become accessible, and who waits for one asks again. The
   * usual is `vm`. */
  readonly form?: AccessScope | 'some';
  /** What there is to tell is gathered and told once in so many milliseconds; absent: at once. */
  readonly everyMs?: number;
}

export interface LockStatus {
  readonly holder: HostId | null;
  readonly epoch: Epoch;
  /** By the newest record that a voter has accepted: a start by HA would not be refused. */
  readonly isProtected: boolean;
  /** It is given up on demand. */
  readonly use?: 'repair';
  /** For how long the voters still protect it; 0: it may be taken now. */
  readonly remainingMs: number;
}

export interface LockOptions {
  /** Take the lock only if the record still says that the VM is protected (a start by HA). */
  readonly onlyIfProtected?: boolean;
  /** Metadata that is set in the same change. */
  readonly set?: { readonly service: string; readonly key: string; readonly value: JsonValue };
  /** Taken only to bring the disks up to date; whoever takes it otherwise has it given up first. */
  readonly use?: 'repair';
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
  /** Disks that are not required and could not be opened, each with the reason. For a guest that
   * goes on they are opened as soon as they can be; one that is started does without them. */
  readonly missing: readonly { readonly name: string; readonly reason: string }[];
  /** Opens one more of the VM's disks, which its guest has not had so far, if that can be at present;
   * and says where one is served that is open. */
  openLate(name: string): Promise<{ readonly socket: string } | { readonly reason: string }>;
  /** What the guest has asked of all of them. Making a connection counts: whoever has been waiting for the disk asks
   * for it first. */
  activity(): DiskActivity;
  /** Ends service after what is in flight is done or, without lease, dropped. */
  close(): Promise<void>;
}

export interface OpenDisksOptions {
  readonly epoch: Epoch;
  /** A guest has been using the disks and goes on (the daemon restarted): it must be ended if
   * acknowledged writes that it has not flushed were lost. */
  readonly guestRuns: boolean;
  /** Called, once, when that is so, then or later. That disk answers no request any more; all are to be
   * closed when their user is ended. */
  readonly onWritesLost: () => void;
  /** Disks to leave alone: the guest that goes on was started without them. */
  readonly without?: readonly string[];
  /** Only this one of the VM's disks, and not where a guest would look for it. */
  readonly only?: { readonly disk: string; readonly socket: string; readonly readOnly: boolean };
}

/**
 * `active`: in sync and within reach. `absent`: its host does not answer; it may come back as it was.
 * `degraded`: its host answers and its device has failed, or is another one by now. `stale`: it has
 * missed writes. `resyncing`: it gets what it missed.
 */
export type ComponentState = 'active' | 'absent' | 'stale' | 'resyncing' | 'degraded';

export interface VoteView {
  readonly host: HostId;
  /** A witness has no data of the object. */
  readonly role: 'data' | 'witness';
  readonly state: 'reachable' | 'absent' | 'degraded';
}

export interface ComponentView {
  readonly component: ComponentId;
  readonly host: HostId;
  readonly mirror: number;
  readonly stripe: number;
  readonly state: ComponentState;
  /** On which of its host's devices; null where the host has but one. */
  readonly device: string | null;
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
  /** Of the tree that is being filled to take the place of the present one; empty: none is. */
  readonly next: readonly ComponentView[];
  readonly voters: readonly HostId[];
  readonly votes: readonly VoteView[];
  readonly inSync: readonly ComponentId[];
  /** How far its copies are that are being brought up to date, or made; null: none is, or nobody told. */
  readonly resync: Progress | null;
  /** What keeps it from surviving what its policy says, each a sentence; empty: it complies. */
  readonly problems: readonly string[];
}

export interface DeviceView {
  /** Null: it can not be told. */
  readonly store: StoreId | null;
  readonly name: string;
  readonly class: DeviceClass;
  /** Why it is not used; null: it is. */
  readonly problem: string | null;
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly fill: 'ok' | 'nearFull' | 'full';
  /** Of a small write and of making it durable, together, as of late; null: there was none. */
  readonly latencyMs: number | null;
  /** By the directory. */
  readonly components: number;
}

export interface StorageHostView {
  readonly host: HostId;
  readonly reachable: boolean;
  /** The main device: who votes. */
  readonly store: 'ok' | 'failed' | 'unknown';
  /** Why it failed. */
  readonly problem?: string;
  readonly site: string | null;
  /** `nearFull`: told before it hurts; `full`: it takes no new objects. */
  readonly fill: 'ok' | 'nearFull' | 'full';
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Of components, by the directory. */
  readonly components: number;
  /** The main one first; space and components above are those of all. */
  readonly devices: readonly DeviceView[];
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
  getMetadata(service: string, key: string, vms?: readonly VmId[]): MetadataValues;
  /** SET of many at once: each for itself, in parallel, with a result for each in their order. */
  setAllMetadata(changes: readonly MetadataChange[]): Promise<SetResult[]>;
  /** From memory. Of all VMs that the directory knows, if none are named; of all objects that each
   * needs, or of its namespace object alone. */
  accessibility(vms?: readonly VmId[], scope?: AccessScope): Map<VmId, Accessibility>;
  /** Batches of VMs that became accessible since the last call back. */
  watchAccessibility(listener: (vms: readonly VmId[]) => void, notice?: Notice): void;
  /** VMs whose metadata of this service changed in the directory. */
  watchMetadata(service: string, listener: (vms: readonly VmId[]) => void): void;
  /** Hosts of the storage network that answer now, this one included. */
  reachableHosts(): HostId[];
  hosts(): StorageHostView[];

  vms(): VmView[];
  vm(vm: VmId): VmView | null;
  vmNamed(name: string): VmView | null;
  objects(vm: VmId): ObjectView[];
  object(object: ObjectId): ObjectView | null;
  /** What this host's directory knows of a VM's objects, for another host that is to act on it at
   * once and may not have heard of the last changes. */
  knowledge(vm: VmId): JsonValue;
  /** Takes over what another host knows. */
  learn(knowledge: JsonValue): void;
  /** Makes the VM's objects; nothing is left where it rejects. What is chosen in `placement` is taken
   * or refused: `bad-request`, `policy-unsatisfiable`, `no-capacity`, naming key and host. */
  createVm(spec: VmSpec, placement?: VmPlacement): Promise<VmId>;
  /** Whether the VM can be accessible, and be started, without this disk. Rejects with `bad-request`
   * naming the disks that there are, and as `setMetadata` does. */
  setRequired(vm: VmId, disk: string, required: boolean): Promise<void>;
  /** What a disk is to survive, and how it is spread, from now on; resolves when that is agreed on, and it is
   * made so in the background. Rejects with `unknown-object`, `policy-unsatisfiable`, `no-capacity`, and as
   * `setMetadata` does. */
  setDiskPolicy(vm: VmId, disk: string, policy: StoragePolicy): Promise<void>;
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
  /** Whether this host's own store could be opened. Without one it makes no ballots: until its next start it takes
   * and gives back no lock, changes no record and opens no disk. */
  hasStore(): boolean;
  /** Its guest can not be served here before the next start: ends its lease as if it had lapsed, and does not seek it
   * again. Whoever can use the VM's objects may take the lock once the guest stands still. To be repeated until then. */
  withhold(vm: VmId): void;
  /** Until when the VM's guest may run; null without a valid lease. */
  leaseDeadline(vm: VmId): number | null;
  onLease(events: LeaseEvents): void;

  openDisks(vm: VmId, options: OpenDisksOptions): Promise<OpenDisks>;
}
