// The holder's side of leases: until when each VM of this host may run.
//
// A voter counts for a VM from the moment it has confirmed, under its present number, that its own
// accepted record carries this host's lock. What it then protects is bounded by the last heartbeat
// it acknowledged, so the VM's deadline is the *send* time of the oldest heartbeat in the freshest
// majority, plus the lease, minus the safety margin.
//
// While an object's voters are being changed there are two groups of them, and the deadline is the
// earlier one of the two groups'.
//
// When the deadline passes, the VM is lapsed. As soon as its guest certainly stands still, every
// heartbeat says so, which lets another host take over at once. To come back, the VM leaves the list; voters count anew
// from heartbeats that no longer list it, and only after they have confirmed once more.
//
// A host that can not serve a VM ends its lease itself, in the same way, and does not come back.

import type { Epoch, HostId, ObjectId, VmId } from '../../model/ids.ts';
import { groupsOf, majority, type Voting } from '../../model/record.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { LeaseEvents } from '../api.ts';
import type { ConfirmAnswer, ConfirmRequest, HeartbeatAck, VoterNumber } from './messages.ts';
import { Tally } from './tally.ts';

/** What a lease and one of its voters have to do with each other. */
interface Seat {
  readonly voter: Voter;
  /** Its group, as the tally counts it, and its place there. */
  readonly slot: number;
  readonly index: number;
  /** Number under which the voter confirmed; null: it has not, or what it confirmed is outdated. */
  confirmed: VoterNumber | null;
}

interface Held {
  readonly vm: VmId;
  readonly object: ObjectId;
  readonly epoch: Epoch;
  /** The voters that it asks, in one group or two. */
  voting: Voting;
  seats: readonly Seat[];
  /** Where the tally counts the votes for it, one for each group. */
  slots: readonly number[];
  /** Its deadline has been drawn from these groups. */
  isSettled: boolean;
  /** `seeking`: no valid lease, but asking for one; not listed. `lapsed`: listed if its guest is known
   * to stand still; if not, the others wait for the lease to run out, the safety margin included. */
  state: 'seeking' | 'valid' | 'lapsed';
  /** Names the last lapse: that its guest stands still is no news about a later one. */
  lapse: number;
  standsStill: boolean;
  /** The first heartbeat that does not list the VM: older ones protect nothing. */
  firstSequence: number;
  seekingSinceMs: number;
  /** Not before: it has just been sought in vain, and others shall have the time of a lease; or never. */
  seekAgainAtMs: number;
  everValid: boolean;
  deadlineMs: number;
}

/** Another host, or this one, as a voter for locks of this one. */
interface Voter {
  readonly host: HostId;
  /** The newest. */
  ack: Acknowledged | null;
  readonly leases: Set<Held>;
  isAsked: boolean;
  /** For which leases it counts as long as nothing but its acknowledgements changes: what these say
   * is then counted without a look at the leases. Null: to be found out. */
  standing: Standing | null;
}

interface Standing {
  /** In the tally. */
  readonly places: readonly number[];
  readonly width: number;
  /** Some lock that it has not confirmed is still to be asked for. */
  readonly hasOpen: boolean;
}

interface Acknowledged {
  readonly sequence: number;
  readonly sentAtMs: number;
  readonly number: VoterNumber;
}

export interface LeaseHolder {
  /** Begins to seek a lease for a lock whose record this host has committed or had committed. */
  hold(vm: VmId, object: ObjectId, epoch: Epoch, voting: Voting): void;
  /** The object's voters have changed, and its lock has not: its lease goes on with these. */
  reseat(vm: VmId, voting: Voting): void;
  /** Whether all deadlines that were given out are covered by a majority of each of these groups. */
  isSettled(vm: VmId, voting: Voting): boolean;
  /** Ends the lease as if it had lapsed, and does not seek it again: its guest can not be served here. To be repeated
   * until the guest stands still. */
  withhold(vm: VmId): void;
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
  /** Somebody else has the lock, or it is gone. Who hears so late may speak of one that was given back: a newer one
   * stays. */
  lost(vm: VmId, epoch: Epoch): void;
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
  /** By slot of the tally. */
  const bySlot: Held[] = [];
  const tally = new Tally();
  const voters = new Map<HostId, Voter>();
  const disowned = new Set<VmId>();
  const listeners: LeaseEvents[] = [];
  let lastSequence = 0;
  /** One for all leases, for the earliest of their deadlines when it was set, or earlier: they move on
   * with every beat. */
  let timer: Timer | null = null;
  let timerAtMs = Number.POSITIVE_INFINITY;

  function announce(event: (listener: LeaseEvents) => void): void {
    for (const listener of listeners) event(listener);
  }

  function voterOf(host: HostId): Voter {
    let voter = voters.get(host);
    if (voter === undefined) {
      voter = { host, ack: null, leases: new Set(), isAsked: false, standing: null };
      voters.set(host, voter);
    }
    return voter;
  }

  /** To be called with every change of what may count for the lease. */
  function unsettle(lease: Held): void {
    for (const { voter } of lease.seats) voter.standing = null;
  }

  /** Nothing that was confirmed or acknowledged so far counts. */
  function clear(lease: Held): void {
    for (const slot of lease.slots) tally.clear(slot);
    for (const seat of lease.seats) seat.confirmed = null;
    unsettle(lease);
  }

  function counts(lease: Held, seat: Seat, ack: Acknowledged): boolean {
    return ack.sequence >= lease.firstSequence && seat.confirmed === ack.number;
  }

  function isOpen(lease: Held, seat: Seat, ack: Acknowledged): boolean {
    return lease.state !== 'lapsed' && seat.confirmed !== ack.number;
  }

  function standingOf(voter: Voter, ack: Acknowledged): Standing {
    const { standing } = voter;
    if (standing !== null && standing.width === tally.width) return standing;
    const places: number[] = [];
    let hasOpen = false;
    for (const lease of voter.leases) {
      for (const seat of lease.seats) {
        if (seat.voter !== voter) continue;
        if (counts(lease, seat, ack)) places.push(tally.place(seat.slot, seat.index));
        if (isOpen(lease, seat, ack)) hasOpen = true;
      }
    }
    voter.standing = { places, width: tally.width, hasOpen };
    return voter.standing;
  }

  /** Breaks off where the standing is outdated. */
  function countAll(voter: Voter, standing: Standing, sentAtMs: number): void {
    for (const place of standing.places) {
      if (!tally.count(place, sentAtMs)) continue;
      extend(bySlot[tally.slotOf(place)] as Held);
      if (voter.standing !== standing) return;
    }
  }

  /** The majority of its voters has become fresher. */
  function extend(lease: Held): void {
    if (lease.state === 'lapsed') return;
    let oldestMs = Number.POSITIVE_INFINITY;
    for (const slot of lease.slots) oldestMs = Math.min(oldestMs, tally.oldest(slot));
    const deadlineMs = oldestMs + options.leaseDurationMs - options.safetyMarginMs;
    if (deadlineMs <= clock.now()) return; // the timer decides about a lapse
    if (lease.state === 'valid' && deadlineMs <= lease.deadlineMs) {
      if (deadlineMs === lease.deadlineMs) lease.isSettled = true;
      return;
    }
    const before = lease.state;
    lease.state = 'valid';
    lease.isSettled = true;
    lease.deadlineMs = deadlineMs;
    if (deadlineMs < timerAtMs) arm(deadlineMs);
    if (before === 'valid' || !lease.everValid) {
      lease.everValid = true;
      for (const listener of listeners) listener.extended(lease.vm, deadlineMs);
    } else {
      log.debug(`lease of ${lease.vm} is valid again`, { vm: lease.vm, epoch: lease.epoch });
      probe.reached({ at: 'lease.regained', vm: lease.vm, epoch: lease.epoch });
      announce((listener) => listener.regained(lease.vm, deadlineMs));
    }
  }

  function arm(atMs: number): void {
    timer?.cancel();
    timerAtMs = atMs;
    timer = clock.after(Math.max(0, atMs - clock.now()), () => {
      timer = null;
      timerAtMs = Number.POSITIVE_INFINITY;
      lapseDue();
    });
  }

  function lapseDue(): void {
    const now = clock.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const lease of [...held.values()]) {
      if (held.get(lease.vm) !== lease || lease.state !== 'valid') continue;
      // Within the last half millisecond is the end: early is the safe side, and a timer may not be
      // able to wait for less.
      if (lease.deadlineMs - now > 0.5) nextMs = Math.min(nextMs, lease.deadlineMs);
      else lapse(lease, 'no majority of its voters answers');
    }
    if (nextMs < timerAtMs) arm(nextMs);
  }

  function lapse(lease: Held, why: string): void {
    log.debug(`lease of ${lease.vm} lapsed: ${why}`, {
      vm: lease.vm,
      epoch: lease.epoch,
    });
    lease.state = 'lapsed';
    lease.standsStill = false;
    lease.lapse += 1;
    clear(lease);
    probe.reached({ at: 'lease.lapsed', vm: lease.vm, epoch: lease.epoch });
    const { lapse: thisLapse } = lease;
    const stoodStill = () => {
      if (lease.lapse === thisLapse && lease.state !== 'valid') lease.standsStill = true;
    };
    announce((listener) => listener.lapsed(lease.vm, stoodStill));
  }

  /** Asks a voter about all locks that it has not confirmed under its present number. */
  function askFor(voter: Voter, ack: Acknowledged): void {
    if (voter.isAsked) return;
    const open: { readonly lease: Held; readonly seat: Seat; readonly firstSequence: number }[] =
      [];
    for (const lease of voter.leases) {
      const { firstSequence } = lease;
      if (ack.sequence < firstSequence) continue;
      for (const seat of lease.seats) {
        if (seat.voter === voter && isOpen(lease, seat, ack))
          open.push({ lease, seat, firstSequence });
      }
    }
    if (open.length === 0) return;
    voter.isAsked = true;
    const locks = [...new Set(open.map(({ lease }) => lease))].map((lease) => ({
      object: lease.object,
      epoch: lease.epoch,
      voting: votingKey(lease.voting),
    }));
    options.confirm(voter.host, { locks }, (answer) => {
      voter.isAsked = false;
      if (answer === null) return; // asked again at the next acknowledgement
      const confirmed = new Set(answer.confirmed);
      for (const { lease, seat, firstSequence } of open) {
        // A lapse or another group of voters in between makes this confirmation one of an older time.
        const isCurrent =
          held.get(lease.vm) === lease &&
          lease.seats.includes(seat) &&
          lease.state !== 'lapsed' &&
          firstSequence === lease.firstSequence;
        if (!isCurrent) continue;
        unsettle(lease);
        if (confirmed.has(lease.object)) confirmedBy(lease, seat, answer.number);
        else {
          seat.confirmed = null;
          options.repair(lease.vm, lease.epoch);
        }
      }
    });
  }

  function confirmedBy(lease: Held, seat: Seat, number: VoterNumber): void {
    seat.confirmed = number;
    const { ack } = seat.voter;
    if (ack === null || !counts(lease, seat, ack)) return;
    if (tally.count(tally.place(seat.slot, seat.index), ack.sentAtMs)) extend(lease);
  }

  function answering(lease: Held): boolean {
    const now = clock.now();
    return lease.slots.every((slot) => {
      const group = lease.seats.filter((seat) => seat.slot === slot);
      const fresh = group.filter(
        ({ voter: { ack } }) => ack !== null && now - ack.sentAtMs < options.leaseDurationMs / 2,
      );
      return fresh.length >= majority(group.length);
    });
  }

  /** Nobody has confirmed yet. */
  function seatAll(lease: Held, voting: Voting): void {
    const seats: Seat[] = [];
    lease.voting = voting;
    lease.isSettled = false;
    lease.slots = groupsOf(voting).map((group) => {
      const hosts = [...new Set(group.map(({ host }) => host))];
      const slot = tally.open(hosts.length);
      bySlot[slot] = lease;
      for (const [index, host] of hosts.entries()) {
        const voter = voterOf(host);
        seats.push({ voter, slot, index, confirmed: null });
        voter.leases.add(lease);
      }
      return slot;
    });
    lease.seats = seats;
    unsettle(lease);
    options.beatNow(seats.map(({ voter }) => voter.host));
  }

  function unseatAll(lease: Held): void {
    unsettle(lease);
    for (const slot of lease.slots) tally.close(slot);
    for (const { voter } of lease.seats) voter.leases.delete(lease);
  }

  function end(vm: VmId): Held | undefined {
    const lease = held.get(vm);
    if (lease === undefined) return undefined;
    held.delete(vm);
    unseatAll(lease);
    return lease;
  }

  return {
    hold(vm, object, epoch, voting) {
      end(vm);
      disowned.delete(vm);
      const lease: Held = {
        vm,
        object,
        epoch,
        voting,
        seats: [],
        slots: [],
        isSettled: false,
        state: 'seeking',
        // The VM may have been listed until now: only heartbeats from the next one on protect it.
        firstSequence: lastSequence + 1,
        lapse: 0,
        standsStill: false,
        seekingSinceMs: clock.now(),
        seekAgainAtMs: Number.NEGATIVE_INFINITY,
        everValid: false,
        deadlineMs: Number.NEGATIVE_INFINITY,
      };
      held.set(vm, lease);
      seatAll(lease, voting);
    },
    reseat(vm, voting) {
      const lease = held.get(vm);
      if (lease === undefined || votingKey(lease.voting) === votingKey(voting)) return;
      unseatAll(lease);
      seatAll(lease, voting);
    },
    isSettled(vm, voting) {
      const lease = held.get(vm);
      return (
        lease?.state === 'valid' && lease.isSettled && votingKey(lease.voting) === votingKey(voting)
      );
    },
    withhold(vm) {
      const lease = held.get(vm);
      if (lease === undefined) return;
      lease.seekAgainAtMs = Number.POSITIVE_INFINITY;
      if (lease.state === 'lapsed' && lease.standsStill) return;
      lapse(lease, 'its guest can not be served here');
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
    lost(vm, epoch) {
      if (held.get(vm)?.epoch !== epoch) return;
      end(vm);
      log.debug(`lock of ${vm} is lost`, { vm });
      announce((listener) => listener.lost(vm));
    },
    lapsedIn(sequence) {
      lastSequence = sequence;
      const listed = [...disowned];
      const now = clock.now();
      for (const lease of held.values()) {
        if (lease.state === 'lapsed' && now >= lease.seekAgainAtMs && answering(lease)) {
          lease.state = 'seeking';
          lease.firstSequence = sequence;
          lease.seekingSinceMs = now;
          unsettle(lease);
        } else if (
          lease.state === 'seeking' &&
          now - lease.seekingSinceMs > options.leaseDurationMs
        ) {
          // It did not work out, maybe because a voter took a rival's record that is not committed: as long
          // as the others hear that it is sought, they protect it from that record, and neither can be
          // had. So it is listed for as long as it was sought.
          lease.seekAgainAtMs = now + options.leaseDurationMs;
          if (lease.standsStill) {
            lease.state = 'lapsed';
            clear(lease);
          } else lapse(lease, 'it was sought in vain');
        }
        if (lease.state === 'lapsed' && lease.standsStill) listed.push(lease.vm);
      }
      return listed;
    },
    acknowledged(from, { sequence, number }, sentAtMs) {
      const voter = voterOf(from);
      if (voter.ack !== null && sequence <= voter.ack.sequence) return;
      if (voter.ack?.number !== number) voter.standing = null;
      voter.ack = { sequence, sentAtMs, number };
      // Who is told of a longer lease may end or begin others: then what is settled is found out anew.
      let standing: Standing;
      do {
        standing = standingOf(voter, voter.ack);
        countAll(voter, standing, sentAtMs);
      } while (standing !== voter.standing);
      if (standing.hasOpen) askFor(voter, voter.ack);
    },
    onLease: (events) => void listeners.push(events),
  };
}

/** Equal for the same groups of voters; a host and its joining name a voter. */
export function votingKey(voting: Voting): string {
  return groupsOf(voting)
    .map((group) => group.map(({ host, joined }) => `${host}.${joined}`).join(' '))
    .join(' | ');
}
