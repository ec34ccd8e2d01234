// What hosts say to each other about leases, over the storage network.

import type { Epoch, HostId, Incarnation, ObjectId, VmId } from '../../model/ids.ts';
import type { Voting } from '../../model/record.ts';
import type { StoreReport } from '../devices/report.ts';

/** `storage.heartbeat`: one per pair of hosts, not per VM. */
export interface Heartbeat {
  readonly incarnation: Incarnation;
  /** Grows with each heartbeat of this incarnation. */
  readonly sequence: number;
  /** For how long the receiver shall protect the sender's locks. */
  readonly leaseDurationMs: number;
  /** VMs that the sender, where some record names it their holder, does not run: their guests stand
   * still or do not exist, and the sender does not rely on the receiver's protection. */
  readonly lapsed: readonly VmId[];
  readonly store: StoreReport;
  /** Of the sender's directory: equal digests mean equal directories. */
  readonly digest: string;
}

/**
 * Names a state of a voter's promises to one holder. It changes when the voter restarts and when it
 * decides to end a lock of this holder: what was confirmed under an older number counts no more.
 */
export type VoterNumber = string;

export interface HeartbeatAck {
  readonly incarnation: Incarnation;
  readonly sequence: number;
  readonly number: VoterNumber;
}

/** `storage.heartbeatAck`: a `HeartbeatAck` without names, because of no message are there more (8000
 * per second with 64 hosts, each of them parsed once, while a heartbeat is parsed once for all). */
export type HeartbeatAckBody = readonly [Incarnation, number, VoterNumber];

/** `lease.confirm`: do your own accepted records carry these locks of mine, and these voters? */
export interface ConfirmRequest {
  readonly locks: readonly {
    readonly object: ObjectId;
    readonly epoch: Epoch;
    /** See `votingKey`. */
    readonly voting: string;
  }[];
}

export interface ConfirmAnswer {
  readonly number: VoterNumber;
  readonly confirmed: readonly ObjectId[];
}

/** Of `lease.status` with an object: what does your accepted record say, and for how long is its lock
 * protected? */
export interface StatusAnswer {
  readonly holder: HostId | null;
  readonly epoch: Epoch;
  readonly use?: 'repair';
  readonly remainingMs: number;
  readonly revision: number;
  /** Of the record: who decides on the next one. */
  readonly voting: Voting;
  /** HA may start the VM. */
  readonly isProtected: boolean;
}
