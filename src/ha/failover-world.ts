// What goes into the failover machine and what comes out of it: the world that it looks at, the
// answers that it gets, the actions that it asks for. `failover.ts` decides, `master.ts` carries out.

import type { ErrorCode } from '../model/errors.ts';
import type { Epoch, HostId, VmId } from '../model/ids.ts';
import type { Accessibility, LockStatus } from '../storage/api.ts';
import type { AttemptsToSave } from './attempts.ts';
import type { Candidate } from './failover-entry.ts';
import type { Condition } from './membership.ts';
import type { Target } from './placement.ts';

export interface LockView {
  readonly holder: HostId | null;
  readonly epoch: Epoch;
  /** `here`: in our partition; `elsewhere`: only the storage network reaches it; `silent`: neither. */
  readonly holderIs: 'here' | 'elsewhere' | 'silent';
}

export interface World {
  accessibility(vms: readonly VmId[]): ReadonlyMap<VmId, Accessibility>;
  /** The lock as the directory has it; it may lag. */
  lock(vm: VmId): LockView | null;
  /** Hosts that may be told to start VMs, with the room that they say they have. */
  targets(): readonly Target[];
  dataHosts(vm: VmId): readonly HostId[];
  condition(host: HostId): Condition;
  /** What it must wait for of the VMs that it starts after, in words; null: nothing. */
  unmet(candidate: Candidate): string | null;
  /** How many VMs with the candidate's label each host runs. */
  crowd(candidate: Candidate): ReadonlyMap<HostId, number>;
}

export type NoteType =
  | 'detected'
  | 'waiting'
  | 'lockFree'
  | 'accessible'
  | 'placed'
  | 'started'
  | 'failed'
  | 'over';

/** A step of one VM's failover, for people and for the record. */
export interface Note {
  readonly type: NoteType;
  readonly candidate: Candidate;
  readonly atMs: number;
  readonly host: HostId | null;
  readonly text: string;
}

export type Action =
  | { readonly kind: 'askLock'; readonly vm: VmId }
  | {
      readonly kind: 'askReach';
      readonly question: number;
      readonly vms: readonly VmId[];
      readonly hosts: readonly HostId[];
    }
  | {
      readonly kind: 'start';
      readonly vm: VmId;
      readonly host: HostId;
      readonly candidate: Candidate;
      /** As its voters told it last: free. */
      readonly lock: LockStatus;
    }
  | { readonly kind: 'save'; readonly save: AttemptsToSave }
  | { readonly kind: 'note'; readonly note: Note };

export type LockAnswer =
  | { readonly ok: true; readonly status: LockStatus }
  | { readonly ok: false; readonly code: ErrorCode; readonly text: string };
export type StartResult =
  | { readonly ok: true }
  | { readonly ok: false; readonly code: ErrorCode; readonly text: string };
