// The voter's side of leases: for how long this host refuses to end whose locks.
//
// A holder's heartbeat is a promise asked of this voter: for `leaseDurationMs` from its receipt the
// voter ends none of the sender's locks that it has confirmed to it, whoever proposes it, unless the
// sender itself takes the step, or has listed the VM as lapsed. A majority of such promises is a
// lease, because any change of the record needs a majority too. A lock that was never confirmed is
// nobody's lease: its take-over may have reached this voter alone, and is in the way of all others.
//
// A voter that restarts has forgotten its promises, and one that was cut off may not have heard the
// renewals of promises that others rely on: both wait for the longest lease they ever granted.

import type { HostId, ObjectId, StoreId, VmId } from '../../model/ids.ts';
import {
  groupsOf,
  type Lock,
  majority,
  type NamespaceRecord,
  type ObjectRecord,
  sameVoting,
} from '../../model/record.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Admission } from '../register/admission.ts';
import type { Heartbeat, VoterNumber } from './messages.ts';

interface Grant {
  /** Incarnations count starts on one store: a replaced one begins anywhere. */
  store: StoreId | null;
  incarnation: number;
  sequence: number;
  /** Only moves forward: a later heartbeat may name a shorter lease (another configuration), while
   * the guard of a guest still goes by the longer one. */
  untilMs: number;
  lapsed: ReadonlySet<VmId>;
}

export interface LeaseVoter extends Admission {
  /** Takes note of a heartbeat; null if it is older than one heard before, or asks for a longer
   * lease than may be granted before `longestLeaseMs` is durable. */
  heard(from: HostId, heartbeat: Heartbeat): VoterNumber | null;
  number(holder: HostId): VoterNumber;
  /** The holder is told that this voter carries its lock, and relies on it from now on. */
  confirmed(record: NamespaceRecord): void;
  /** Milliseconds for which the lock in `record` is protected; 0 for a free lock. */
  remainingMs(record: NamespaceRecord): number;
  /** A committed record replaces the accepted one without a vote of this host. */
  learned(current: ObjectRecord | null, next: ObjectRecord): void;
}

const none: ReadonlySet<VmId> = new Set();

export function createLeaseVoter(options: {
  readonly clock: Clock;
  readonly probe: Probe;
  /** Distinguishes this start of the daemon from all others. */
  readonly incarnation: number;
  /** The longest lease ever granted, as is durable by now. */
  readonly longestLeaseMs: () => number;
  /** Since when the host has been heard without a break; null if it is silent now. */
  readonly heardSince: (host: HostId) => number | null;
}): LeaseVoter {
  const { clock } = options;
  const startedAtMs = clock.now();
  const grants = new Map<HostId, Grant>();
  const endings = new Map<HostId, number>();
  /** Of the holders with endings; put into text once, not for each heartbeat. */
  const numbers = new Map<HostId, VoterNumber>();
  const reliedOn = new Map<ObjectId, Lock>();

  const firstNumber: VoterNumber = `${options.incarnation}.0`;
  const number = (holder: HostId): VoterNumber => numbers.get(holder) ?? firstNumber;

  /** Since when a majority of the voters has been in touch with this one, without a break. */
  function majoritySince(record: NamespaceRecord): number {
    const ofGroups = groupsOf(record).map((group) => {
      const since = group
        .map((voter) => options.heardSince(voter.host) ?? Number.POSITIVE_INFINITY)
        .sort((a, b) => a - b);
      return since[majority(since.length) - 1] ?? Number.POSITIVE_INFINITY;
    });
    return Math.max(...ofGroups);
  }

  function remainingMs(record: NamespaceRecord): number {
    const holder = record.lock.holder;
    if (holder === null) return 0;
    const now = clock.now();
    const grant = grants.get(holder);
    if (grant?.lapsed.has(record.vm)) return 0;
    const relied = reliedOn.get(record.id);
    const isReliedOn = relied?.holder === holder && relied.epoch === record.lock.epoch;
    const promised = isReliedOn && grant !== undefined ? grant.untilMs : now;
    const cautious = Math.max(startedAtMs, majoritySince(record)) + options.longestLeaseMs();
    if (cautious === Number.POSITIVE_INFINITY) {
      return Math.max(promised - now, options.longestLeaseMs());
    }
    return Math.max(0, promised - now, cautious - now);
  }

  function ended(object: ObjectId, holder: HostId): void {
    reliedOn.delete(object);
    const count = (endings.get(holder) ?? 0) + 1;
    endings.set(holder, count);
    numbers.set(holder, `${options.incarnation}.${count}`);
  }

  return {
    heard(from, heartbeat) {
      if (heartbeat.leaseDurationMs > options.longestLeaseMs()) return null;
      const grant = grants.get(from);
      if (
        grant?.store === heartbeat.store.id &&
        (heartbeat.incarnation < grant.incarnation ||
          (heartbeat.incarnation === grant.incarnation && heartbeat.sequence <= grant.sequence))
      ) {
        return null;
      }
      const untilMs = clock.now() + heartbeat.leaseDurationMs;
      const lapsed = heartbeat.lapsed.length === 0 ? none : new Set(heartbeat.lapsed);
      const { incarnation, sequence, store } = heartbeat;
      if (grant === undefined) {
        grants.set(from, { store: store.id, incarnation, sequence, untilMs, lapsed });
      } else {
        grant.store = store.id;
        grant.incarnation = incarnation;
        grant.sequence = sequence;
        grant.untilMs = Math.max(grant.untilMs, untilMs);
        grant.lapsed = lapsed;
      }
      return number(from);
    },
    number,
    confirmed: (record) => void reliedOn.set(record.id, record.lock),
    remainingMs,
    admit(current, next, proposer) {
      const holder = endedHolder(current, next) ?? unseatedHolder(current, next, proposer);
      if (holder === null) return 0;
      const isByHolder = proposer === holder && isOwnStep(current as NamespaceRecord, next);
      if (!isByHolder) {
        const remaining = remainingMs(current as NamespaceRecord);
        if (remaining > 0) return Math.ceil(remaining);
      }
      // From here on the holder's acknowledgements carry another number, so that it cannot count
      // this voter on the strength of a confirmation that this decision has made untrue.
      ended(next.id, holder);
      if (!isByHolder) options.probe.reached({ at: 'lease.ended', object: next.id, holder });
      return 0;
    },
    learned(current, next) {
      const holder = endedHolder(current, next);
      if (holder !== null) ended(next.id, holder);
    },
  };
}

/** The holder whose lock the step from `current` to `next` would take away. */
function endedHolder(current: ObjectRecord | null, next: ObjectRecord): HostId | null {
  if (current?.kind !== 'namespace' || current.lock.holder === null) return null;
  const kept =
    next.kind === 'namespace' &&
    next.lock.holder === current.lock.holder &&
    next.lock.epoch === current.lock.epoch;
  return kept ? null : current.lock.holder;
}

/** The holder whose voters somebody else would change. When it does so itself, its lock stays as it is,
 * and so does what it was promised. */
function unseatedHolder(
  current: ObjectRecord | null,
  next: ObjectRecord,
  proposer: HostId,
): HostId | null {
  if (current?.kind !== 'namespace' || current.lock.holder === proposer) return null;
  return sameVoting(current, next) ? null : current.lock.holder;
}

/**
 * Whether only the holder itself can have made this step: a release, another take, a removal. Any
 * other end of its lock that a holder proposes is one that it has found, as a finisher of somebody's
 * take-over, and not one that it has stopped its guest for.
 */
function isOwnStep(current: NamespaceRecord, next: ObjectRecord): boolean {
  if (next.kind !== 'namespace') return true;
  const { holder, epoch } = next.lock;
  return (holder === null || holder === current.lock.holder) && epoch >= current.lock.epoch;
}
