// The HA module as the manager and the host see it, and what HA itself needs from the host: somebody
// who starts a VM here.

import type { Epoch, HostId, Term, VmId } from '../model/ids.ts';
import type { ProtectionStatus } from '../model/protection.ts';
import type { VmRecovery, WaitReason } from '../model/recovery.ts';
import type { ProofOfDeath } from '../model/restart.ts';
import type { GuestState } from '../model/vm.ts';

/** vSphere's names. `unknown`: never heard of since this agent started. */
export type HostState =
  | 'unknown'
  | 'initializationError'
  | 'election'
  | 'master'
  | 'connectedToMaster'
  | 'networkPartitionedFromMaster'
  | 'networkIsolated'
  | 'hostDown';

export interface RunningVm {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly state: GuestState;
  /** Since its start the guest has been heard on its heartbeat port. */
  readonly ready: boolean;
  /** It was heard and is silent, and asks nothing of its disks. */
  readonly hung: boolean;
  readonly cpus: number;
  readonly memoryBytes: number;
}

export interface StartOptions {
  readonly byHa: boolean;
  /** Recorded in the change that takes the lock. */
  readonly proof?: ProofOfDeath;
}

/** Runs VMs on this host; the manager implements it, HA's agent and the users' commands call it. */
export interface VmRunner {
  /** Takes the lock, opens the disks, starts the guest. By HA: only if the VM is still protected.
   * Rejects with `lock-held`, `not-protected`, `inaccessible`, `no-capacity`, `already-running`,
   * `guest-failed`, ...; then nothing runs and the lock is given back. */
  start(vm: VmId, options: StartOptions): Promise<Epoch>;
  /** Ends a guest that hangs, as if it had ended by itself. Rejects with `conflict` where it does not hang (any
   * more), or is not that of this epoch; then nothing is done. */
  endHung(vm: VmId, epoch: Epoch): Promise<void>;
  /** Guests of this host, those that start or stop included. */
  running(): readonly RunningVm[];
  capacity(): { readonly cpus: number; readonly memoryBytes: number };
  /** Something in `running()` changed. */
  onChange(listener: () => void): void;
}

export interface HaHostView {
  readonly host: HostId;
  readonly state: HostState;
  /** Milliseconds since its last heartbeat; null if never heard. */
  readonly silentForMs: number | null;
  readonly running: readonly RunningVm[];
  readonly cpus: number;
  readonly memoryBytes: number;
}

export interface Waiting {
  readonly vm: VmId;
  readonly name: string;
  readonly reason: WaitReason;
  /** A sentence that names what is waited for. */
  readonly text: string;
}

export interface Ha {
  readonly state: HostState;
  master(): HostId | null;
  term(): Term;
  /** Every host that this agent knows, itself included. */
  hosts(): HaHostView[];
  protectionStatus(vm: VmId): ProtectionStatus;
  /** The VM was powered on here at this epoch: report it to the master until it is protected. */
  poweredOn(vm: VmId, epoch: Epoch): void;
  /** The VM was powered off here by its user: nothing is to be protected any more. */
  poweredOff(vm: VmId, epoch: Epoch): void;
  /** Where to start a VM now: capacity, access to all its objects, then data locality and load.
   * Null where no host can. */
  place(vm: VmId): HostId | null;
  /** What the master of this partition waits for; empty on agents. */
  waiting(): Waiting[];
  /** Failovers that the master of this partition carried out, oldest first. */
  recoveries(): VmRecovery[];
}
