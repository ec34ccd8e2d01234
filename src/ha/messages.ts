// What HA modules say to each other over the HA network. The bodies are plain JSON; the peer layer
// has authenticated the sender, so that a shape is not checked twice.

import type { ErrorCode } from '../model/errors.ts';
import type { Epoch, HostId, Term, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { Attempts, ProofOfDeath } from '../model/restart.ts';
import type { HaRules } from '../model/vm.ts';
import type { RunningVm } from './api.ts';
import type { HaState } from './protection-view.ts';
import type { SeenVm } from './sight.ts';

export type Role = 'election' | 'agent' | 'master';
export type HostKind = 'full' | 'witness';

/** `ha.heartbeat`, one way. */
export interface Heartbeat {
  /** Of the sender's HA module; a new one after each start, so that versions do not mix. */
  readonly instance: string;
  /** The sender hears the receiver: without that the link counts as none. */
  readonly hearsYou: boolean;
  readonly kind: HostKind;
  readonly role: Role;
  /** The master that the sender follows; itself if it is one. */
  readonly master: HostId | null;
  readonly term: Term;
  /** Storage hosts that the sender reaches, itself included. */
  readonly reachable: number;
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Version of the list of VMs that was last sent. */
  readonly listVersion: number;
}

/** `ha.vms`, one way: the sender's whole list. `ha.wantVms` asks for it. */
export interface VmList {
  readonly instance: string;
  readonly version: number;
  readonly vms: readonly RunningVm[];
  /** Hosts of the storage network that the sender reaches, itself included. */
  readonly reaches: readonly HostId[];
}

/** `ha.protect`, request to the master; the answer only says that it has been noted. */
export interface ProtectReport extends HaRules {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly memoryBytes: number;
  readonly cpus: number;
}

/** `ha.unprotect`, one way to the master: forget what is noted up to this epoch. */
export interface UnprotectReport {
  readonly vm: VmId;
  readonly epoch: Epoch;
}

/** `ha.canReach`, request: the answer is the subset that the receiver can reach. */
export interface ReachQuestion {
  readonly vms: readonly VmId[];
}

/** `ha.start`, request of the master; the answer has the epoch. Failures carry the runner's code. */
export interface StartOrder {
  readonly vm: VmId;
  readonly proof: ProofOfDeath;
}

export interface StartAnswer {
  readonly epoch: Epoch;
}

/** `ha.endHung`, request of the master: end this guest, it hangs. Refused where it does not. */
export interface EndOrder {
  readonly vm: VmId;
  readonly epoch: Epoch;
}

/** `ha.outlook`, request of the master: what is new of the VMs that the receiver reaches. `ha.news`, one way, says
 * that there is something. */
export interface OutlookQuestion {
  /** Whose answer the last one was, and its version; null, 0: there was none. */
  readonly instance: string | null;
  readonly since: number;
}

export interface OutlookAnswer {
  readonly instance: string;
  readonly version: number;
  readonly vms: readonly ToldVm[];
  /** They are not reached any more. */
  readonly gone: readonly VmId[];
  /** There are no such VMs. */
  readonly removed: readonly VmId[];
  /** There is more than goes into one answer. */
  readonly isMore: boolean;
}

export interface ToldVm extends SeenVm {
  readonly vm: VmId;
  /** Of the namespace record. */
  readonly revision: number;
  readonly state: HaState | null;
}

/** `ha.lockStatus`, request of the master: the answer is the storage's. */
export interface LockQuestion {
  readonly vm: VmId;
}

/** `ha.setProtection`, request of the master: the generic SET in its place. */
export interface SetOrder {
  readonly vm: VmId;
  readonly state: ProtectionState;
}

/** `ha.saveAttempts`, request of the master: likewise. */
export interface AttemptsOrder {
  readonly vm: VmId;
  readonly attempts: Attempts | null;
}

/** Codes after which nobody knows whether the order was carried out. */
export const unknownOutcomes: readonly ErrorCode[] = [
  'timeout',
  'unreachable',
  'outcome-unknown',
  'stopped',
];
