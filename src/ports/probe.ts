// Named points of the protocols at which somebody outside may watch, or strike: each stands where a
// crash is most instructive, between a decision and what follows from it. In production nobody
// listens.
//
// A listener is called synchronously. It may look at what it is given, and it may end this whole
// host at that very line (loss of power, a freeze); what comes after the call must therefore stand
// what any crash there does, as everything here must anyway. It must not throw, change what it is
// given, or call back into the host. What is given is what the host has at hand, never made for it.

import type { Ballot } from '../model/ballot.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { ComponentId, Epoch, HostId, ObjectId, Term, VmId } from '../model/ids.ts';
import type { ObjectRecord, Voter } from '../model/record.ts';
import type { WaitReason } from '../model/recovery.ts';

export interface Probe {
  reached(point: Point): void;
}

/** How a change of a record ended. `changed`: it is committed, and `record` is what it wrote, made
 * from `read`; where these are the same it kept the record, which is a read. `refused`: it looked at
 * `read`, which is committed (null: nothing ever was), and wrote nothing. `failed`: it did not happen,
 * never will, and says nothing about the record. `unknown`: it may have happened, or happen yet. */
export type ChangeEnd = 'changed' | 'refused' | 'failed' | 'unknown';

export type Point =
  // --- register, as proposer ---
  /** A change begins: none of its messages is sent. `call` is unique within a run of this host. */
  | { readonly at: 'register.invoked'; readonly object: ObjectId; readonly call: number }
  /** It has ended, and nobody has been answered. Changes that never began (the host stops, or the
   * time was up while they queued) have neither point. */
  | {
      readonly at: 'register.returned';
      readonly object: ObjectId;
      readonly call: number;
      readonly outcome: ChangeEnd;
      /** Null unless `changed`. */
      readonly record: ObjectRecord | null;
      /** Null where nothing was there, and where `failed` or `unknown`. */
      readonly read: ObjectRecord | null;
    }
  /** With promises of a majority, about to send the accepts to all voters. */
  | {
      readonly at: 'register.accepting';
      readonly object: ObjectId;
      readonly ballot: Ballot;
      readonly record: ObjectRecord;
    }
  /** The first voter has accepted, and one is no majority. */
  | { readonly at: 'register.acceptedOne'; readonly object: ObjectId }
  /** A majority has accepted; nothing is announced, taught or answered. */
  | {
      readonly at: 'register.committed';
      readonly object: ObjectId;
      readonly ballot: Ballot;
      readonly record: ObjectRecord;
    }
  // --- register, as voter ---
  /** It has accepted this record, durably, and is about to answer; once more if asked once more. */
  | {
      readonly at: 'acceptor.accepted';
      readonly object: ObjectId;
      readonly ballot: Ballot;
      readonly record: ObjectRecord;
      /** As which it was asked. */
      readonly voter: Voter;
    }
  // --- locks and leases ---
  /** This host's take is committed (to start the VM, or to remove it); it has no lease of it yet, and
   * no disk is open. The lock under which a VM is made is not told. */
  | {
      readonly at: 'lock.taken';
      readonly vm: VmId;
      readonly epoch: Epoch;
      /** Taken on condition that the VM is still protected: a start by HA. */
      readonly byHa: boolean;
    }
  /** This host's release is committed, and nobody has been answered. */
  | { readonly at: 'lock.released'; readonly vm: VmId; readonly epoch: Epoch }
  /** The deadline has passed; nobody has been told, so the guest has not been paused by this. */
  | { readonly at: 'lease.lapsed'; readonly vm: VmId; readonly epoch: Epoch }
  /** A lapsed lease is valid again; nobody has been told, so the guest still stands. */
  | { readonly at: 'lease.regained'; readonly vm: VmId; readonly epoch: Epoch }
  /** This voter admits a record that ends the lock of `holder` without the holder's doing; it is
   * decided, and not accepted yet. */
  | { readonly at: 'lease.ended'; readonly object: ObjectId; readonly holder: HostId }
  // --- disks ---
  /** The fence is committed in the record; no component has taken it. */
  | {
      readonly at: 'disk.fenced';
      readonly object: ObjectId;
      readonly epoch: Epoch;
      readonly open: number;
    }
  /** All copies that count are taken; from the next line on there can be I/O. */
  | { readonly at: 'disk.opened'; readonly object: ObjectId; readonly epoch: Epoch }
  /** Another in-sync set is committed; nothing has been acknowledged without the removed components,
   * nor read from the added one. */
  | {
      readonly at: 'disk.inSyncChanged';
      readonly object: ObjectId;
      readonly inSync: readonly ComponentId[];
      readonly removed: readonly ComponentId[];
      readonly added: readonly ComponentId[];
    }
  /** The component holds everything, durably; about to ask the register to count it; again at each
   * attempt. */
  | {
      readonly at: 'resync.joining';
      readonly object: ObjectId;
      readonly component: ComponentId;
    }
  /** Old and new voters decide together from now on. */
  | { readonly at: 'voters.joint'; readonly object: ObjectId }
  | { readonly at: 'voters.changed'; readonly object: ObjectId }
  /** The record names another component in the place of one that is gone; nothing is in it yet. */
  | { readonly at: 'copy.replaced'; readonly object: ObjectId; readonly component: ComponentId }
  /** The record names a mirror that holds nothing yet / names one no more, and its files are there still. */
  | {
      readonly at: 'mirror.added' | 'mirror.removed';
      readonly object: ObjectId;
      readonly components: readonly ComponentId[];
    }
  /** The record names a tree that is to be filled, of which nothing exists yet. */
  | { readonly at: 'next.begun'; readonly object: ObjectId }
  /** Every change goes to both trees from now on. */
  | { readonly at: 'next.filling'; readonly object: ObjectId }
  /** It has everything, durably, and nothing is in flight; about to ask the register to count it. */
  | { readonly at: 'next.swapping'; readonly object: ObjectId }
  /** It is the disk's tree, by the record; no request has gone on yet. */
  | { readonly at: 'next.swapped'; readonly object: ObjectId }
  // --- guests and protection ---
  /** The disks are open and served; about to start the guest's process. */
  | { readonly at: 'guest.starting'; readonly vm: VmId; readonly epoch: Epoch }
  /** The start has succeeded: the guest runs, or is paused because its lease has lapsed meanwhile.
   * Nobody has been told, HA included. */
  | { readonly at: 'guest.started'; readonly vm: VmId; readonly epoch: Epoch }
  /** It hangs, also at the last look, and the master wants it ended; nothing has been done. */
  | { readonly at: 'guest.hung'; readonly vm: VmId; readonly epoch: Epoch }
  /** A change of the protection state is committed, and is acknowledged next: a SET, to the master
   * that made it; an end, with the release of the lock after a power-off, to the runner (or to nobody
   * any more, where it was made late). An end whose outcome stays unknown is not told. */
  | {
      readonly at: 'protection.set';
      readonly vm: VmId;
      readonly protected: boolean;
      readonly epoch: Epoch;
    }
  // --- HA ---
  /** This host is master, of this term; no other host has been told. */
  | { readonly at: 'ha.elected'; readonly term: Term }
  /** It is master no more: its lists are dropped. */
  | { readonly at: 'ha.abdicated' }
  /** The master has done the generic GET, over this many VMs. */
  | { readonly at: 'ha.metadataGet'; readonly values: number }
  /** The master has put the VM on its wait list; again after each look at it that was in vain. */
  | { readonly at: 'ha.waiting'; readonly vm: VmId; readonly reason: WaitReason }
  /** The master is about to order `on` to start the VM. */
  | { readonly at: 'ha.restarting'; readonly vm: VmId; readonly on: HostId }
  /** The order was refused, or nobody knows what became of it (`timeout`, `unreachable`). */
  | {
      readonly at: 'ha.restartFailed';
      readonly vm: VmId;
      readonly on: HostId;
      readonly code: ErrorCode;
    };

/** Nobody listens: what every host has in production. */
export const noProbe: Probe = { reached() {} };
