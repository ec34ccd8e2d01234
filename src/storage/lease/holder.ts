// The holder's side of leases: until when each VM of this host may run.
//
// A voter counts for a VM from the moment it has confirmed, under its present number, that its own
// accepted record carries this host's lock. What it then protects is bounded by the last heartbeat
// it acknowledged, so the VM's deadline is the *send* time of the oldest heartbeat in the freshest
// majority, plus the lease, minus the safety margin.
//
// When the deadline passes, the VM is lapsed. As soon as its guest certainly stands still, every
// heartbeat says so, which lets another host take over at once. To come back, the VM leaves the list; voters count anew
// from heartbeats that no longer list it, and only after they have confirmed once more.

import type { Epoch, HostId, ObjectId, VmId } from '../../model/ids.ts';
import { majority } from '../../model/record.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { LeaseEvents } from '../api.ts';
import type { ConfirmAnswer, ConfirmRequest, HeartbeatAck, VoterNumber } from './messages.ts';

interface Voting {
  /** Number under which the voter confirmed; null: it has not, or what it confirmed is outdated. */
  confirmed: VoterNumber | null;
  /** Send time of the newest heartbeat that counts; the voter's promise from it still stands. */
  countedAtMs: number;
}

interface Held {
  readonly vm: VmId;
  readonly object: ObjectId;
  readonly epoch: Epoch;
  readonly voters: ReadonlyMap<HostId, Voting>;
  /** The same, to go through quickly: it is done at each acknowledgement. */
  readonly votings: readonly Voting[];
  /** `seeking`: no valid lease, but asking for one; not listed. `lapsed`: listed if its guest is known
   * to stand still; if not, the others wait for the lease to run out, the safety margin included. */
  state: 'seeking' | 'valid' | 'lapsed';
  /** Names the last lapse: that its guest stands still is no news about a later one. */
  lapse: number;
  standsStill: boolean;
  /** The first heartbeat that does not list the VM: older ones protect nothing. */
  firstSequence: number;
  seekingSinceMs: number;
  everValid: boolean;
  deadlineMs: number;
  timer: Timer | null;
}

interface Acknowledged {
  readonly sequence: number;
  readonly sentAtMs: number;
  readonly number: VoterNumber;
}

export interface LeaseHolder {
  /** Begins to seek a lease for a lock whose record this host has committed or had committed. */
  hold(vm: VmId, object: ObjectId, epoch: Epoch, voters: readonly HostId[]): void;
  /** Ends it, without event; the VM is listed as lapsed until `forget`. */
  drop(vm: VmId): void;
  /** Lists a VM as lapsed that is not held: some record may name this host its holder. */
  disown(vm: VmId): void;
  /** What is listed though it is not held. */
  disowned(): Iterable<VmId>;
  /** Stops listing it: no record names this host its holder any more. */
  forget(vm: VmId): void;
  isHeld(vm: VmId): boolean;
  /** The epoch at which it is held, with or without a valid lease; null if it is not. */
  heldEpoch(vm: VmId): Epoch | null;
  deadline(vm: VmId): number | null;
  /** Somebody else has the lock, or it is gone. */
  lost(vm: VmId): void;
  /** What the next heartbeat lists; to be called once per heartbeat, with its number. */
  lapsedIn(sequence: number): VmId[];
  acknowledged(from: HostId, ack: HeartbeatAck, sentAtMs: number): void;
  onLease(events: LeaseEvents): void;
}

export function createLeaseHolder(options: {
  readonly clock: Clock;
  readonly log: Log;
  readonly probe: Probe;
  readonly leaseDurationMs: number;
  readonly safetyMarginMs: number;
  readonly confirm: (
    voter: HostId,
    request: ConfirmRequest,
    done: (answer: ConfirmAnswer | null) => void,
  ) => void;
  /** A voter did not confirm: find out who holds the lock, and send the record where it misses. */
  readonly repair: (vm: VmId, epoch: Epoch) => void;
  /** Sends these hosts a heartbeat now instead of at the next beat. */
  readonly beatNow: (hosts: readonly HostId[]) => void;
}): LeaseHolder {
  const { clock, log, probe } = options;
  const held = new Map<VmId, Held>();
  const byVoter = new Map<HostId, Set<Held>>();
  const disowned = new Set<VmId>();
  const acks = new Map<HostId, Acknowledged>();
  const asking = new Set<HostId>();
  const listeners: LeaseEvents[] = [];
  let lastSequence = 0;

  function announce(event: (listener: LeaseEvents) => void): void {
    for (const listener of listeners) event(listener);
  }

  function count(lease: Held, voter: HostId): void {
    const voting = lease.voters.get(voter);
    const ack = acks.get(voter);
    if (voting === undefined || ack === undefined) return;
    if (ack.sequence < lease.firstSequence || voting.confirmed !== ack.number) return;
    voting.countedAtMs = Math.max(voting.countedAtMs, ack.sentAtMs);
  }

  function recompute(lease: Held): void {
    if (lease.state === 'lapsed') return;
    const deadlineMs =
      oldestOfMajority(lease.votings) + options.leaseDurationMs - options.safetyMarginMs;
    if (deadlineMs <= clock.now()) return; // the timer decides about a lapse
    if (lease.state === 'valid' && deadlineMs <= lease.deadlineMs) return;
    const before = lease.state;
    lease.state = 'valid';
    lease.deadlineMs = deadlineMs;
    arm(lease);
    if (before === 'valid' || !lease.everValid) {
      lease.everValid = true;
      announce((listener) => listener.extended(lease.vm, deadlineMs));
    } else {
      log.debug(`lease of ${lease.vm} is valid again`, { vm: lease.vm, epoch: lease.epoch });
      probe.reached({ at: 'lease.regained', vm: lease.vm, epoch: lease.epoch });
      announce((listener) => listener.regained(lease.vm, deadlineMs));
    }
  }

  function arm(lease: Held): void {
    if (lease.timer !== null) return;
    lease.timer = clock.after(Math.max(0, lease.deadlineMs - clock.now()), () => {
      lease.timer = null;
      if (held.get(lease.vm) !== lease || lease.state !== 'valid') return;
      // Within the last half millisecond is the end: early is the safe side, and a timer may not be
      // able to wait for less.
      if (lease.deadlineMs - clock.now() > 0.5) arm(lease);
      else lapse(lease);
    });
  }

  function lapse(lease: Held): void {
    log.debug(`lease of ${lease.vm} lapsed: no majority of its voters answers`, {
      vm: lease.vm,
      epoch: lease.epoch,
    });
    lease.state = 'lapsed';
    lease.standsStill = false;
    lease.lapse += 1;
    for (const voting of lease.votings) reset(voting);
    probe.reached({ at: 'lease.lapsed', vm: lease.vm, epoch: lease.epoch });
    const { lapse: thisLapse } = lease;
    const stoodStill = () => {
      if (lease.lapse === thisLapse && lease.state !== 'valid') lease.standsStill = true;
    };
    announce((listener) => listener.lapsed(lease.vm, stoodStill));
  }

  /** Asks a voter about all locks that it has not confirmed under its present number. */
  function askFor(voter: HostId): void {
    const ack = acks.get(voter);
    if (ack === undefined || asking.has(voter)) return;
    const open = [...(byVoter.get(voter) ?? [])].filter((lease) => {
      const voting = lease.voters.get(voter);
      return (
        voting !== undefined &&
        lease.state !== 'lapsed' &&
        ack.sequence >= lease.firstSequence &&
        voting.confirmed !== ack.number
      );
    });
    if (open.length === 0) return;
    asking.add(voter);
    const locks = open.map((lease) => ({ object: lease.object, epoch: lease.epoch }));
    const sequences = new Map(open.map((lease) => [lease, lease.firstSequence]));
    options.confirm(voter, { locks }, (answer) => {
      asking.delete(voter);
      if (answer === null) return; // asked again at the next acknowledgement
      const confirmed = new Set(answer.confirmed);
      for (const lease of open) {
        const voting = lease.voters.get(voter);
        // A lapse in between makes this confirmation one of an older time.
        const current =
          held.get(lease.vm) === lease &&
          lease.state !== 'lapsed' &&
          sequences.get(lease) === lease.firstSequence;
        if (voting === undefined || !current) continue;
        if (confirmed.has(lease.object)) {
          voting.confirmed = answer.number;
          count(lease, voter);
          recompute(lease);
        } else {
          voting.confirmed = null;
          options.repair(lease.vm, lease.epoch);
        }
      }
    });
  }

  function answering(lease: Held): boolean {
    const now = clock.now();
    const fresh = [...lease.voters.keys()].filter((voter) => {
      const ack = acks.get(voter);
      return ack !== undefined && now - ack.sentAtMs < options.leaseDurationMs / 2;
    });
    return fresh.length >= majority(lease.voters.size);
  }

  function end(vm: VmId): Held | undefined {
    const lease = held.get(vm);
    if (lease === undefined) return undefined;
    lease.timer?.cancel();
    held.delete(vm);
    for (const voter of lease.voters.keys()) byVoter.get(voter)?.delete(lease);
    return lease;
  }

  return {
    hold(vm, object, epoch, voters) {
      end(vm);
      disowned.delete(vm);
      const votings = new Map(
        voters.map((voter) => [voter, reset({ confirmed: null, countedAtMs: 0 })]),
      );
      const lease: Held = {
        vm,
        object,
        epoch,
        voters: votings,
        votings: [...votings.values()],
        state: 'seeking',
        // The VM may have been listed until now: only heartbeats from the next one on protect it.
        firstSequence: lastSequence + 1,
        lapse: 0,
        standsStill: false,
        seekingSinceMs: clock.now(),
        everValid: false,
        deadlineMs: Number.NEGATIVE_INFINITY,
        timer: null,
      };
      held.set(vm, lease);
      for (const voter of votings.keys()) {
        const leases = byVoter.get(voter) ?? new Set();
        byVoter.set(voter, leases.add(lease));
      }
      options.beatNow(voters);
    },
    drop(vm) {
      end(vm);
      disowned.add(vm);
    },
    disown(vm) {
      if (!held.has(vm)) disowned.add(vm);
    },
    disowned: () => disowned,
    forget: (vm) => void disowned.delete(vm),
    isHeld: (vm) => held.has(vm),
    heldEpoch: (vm) => held.get(vm)?.epoch ?? null,
    deadline(vm) {
      const lease = held.get(vm);
      if (lease?.state !== 'valid') return null;
      // The clock decides, not the timer: it may be late on a busy host.
      return clock.now() < lease.deadlineMs ? lease.deadlineMs : null;
    },
    lost(vm) {
      if (end(vm) === undefined) return;
      log.debug(`lock of ${vm} is lost`, { vm });
      announce((listener) => listener.lost(vm));
    },
    lapsedIn(sequence) {
      lastSequence = sequence;
      const listed = [...disowned];
      for (const lease of held.values()) {
        if (lease.state === 'lapsed' && answering(lease)) {
          lease.state = 'seeking';
          lease.firstSequence = sequence;
          lease.seekingSinceMs = clock.now();
        } else if (
          lease.state === 'seeking' &&
          lease.everValid &&
          clock.now() - lease.seekingSinceMs > options.leaseDurationMs
        ) {
          lease.state = 'lapsed'; // it did not work out: let others have it meanwhile
          for (const voting of lease.votings) reset(voting);
        }
        if (lease.state === 'lapsed' && lease.standsStill) listed.push(lease.vm);
      }
      return listed;
    },
    acknowledged(from, ack, sentAtMs) {
      const last = acks.get(from);
      if (last !== undefined && ack.sequence <= last.sequence) return;
      acks.set(from, { sequence: ack.sequence, sentAtMs, number: ack.number });
      for (const lease of byVoter.get(from) ?? []) {
        count(lease, from);
        recompute(lease);
      }
      askFor(from);
    },
    onLease: (events) => void listeners.push(events),
  };
}

/** Send time of the oldest heartbeat in the freshest majority. */
function oldestOfMajority(votings: readonly Voting[]): number {
  const needed = majority(votings.length);
  let oldest = Number.NEGATIVE_INFINITY;
  for (const { countedAtMs } of votings) {
    if (countedAtMs <= oldest) continue;
    let notOlder = 0;
    for (const other of votings) if (other.countedAtMs >= countedAtMs) notOlder += 1;
    if (notOlder >= needed) oldest = countedAtMs;
  }
  return oldest;
}

function reset(voting: Voting): Voting {
  voting.confirmed = null;
  voting.countedAtMs = Number.NEGATIVE_INFINITY;
  return voting;
}
