// A holder alone: which acknowledgements count, what the deadline is, when it lists a VM as lapsed.

import { beforeEach, describe, expect, it } from 'vitest';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import {
  epoch,
  type HostId,
  hostId,
  incarnation,
  objectId,
  storeId,
  vmId,
} from '../../model/ids.ts';
import { noProbe } from '../../ports/probe.ts';
import { createLeaseHolder, type LeaseHolder } from './holder.ts';
import type { ConfirmAnswer } from './messages.ts';

const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(hostId) as [HostId, HostId, HostId, HostId];
const voting = (...hosts: readonly HostId[]) => ({
  voters: hosts.map((host) => ({ host, store: storeId('s'), joined: 1 })),
});
const vm = vmId('vm-1');
const object = objectId('o');
let clock: VirtualClock;
let holder: LeaseHolder;
let sequence: number;
let listed: readonly string[];
let events: string[];
let repairs: number;
let standsStillAtOnce: boolean;
let stillLater: () => void;
/** What each voter would confirm, under which number; null: it does not answer. */
let voters: Map<HostId, { number: string; carries: boolean } | null>;
let sentAt: Map<number, number>;
/** Answers are held back while set. */
let held: (() => void)[] | null;

beforeEach(() => {
  clock = new VirtualClock();
  clock.advance(10_000);
  sequence = 0;
  listed = [];
  events = [];
  repairs = 0;
  standsStillAtOnce = true;
  held = null;
  sentAt = new Map();
  voters = new Map([a, b, c, d].map((voter) => [voter, { number: `${voter}.0`, carries: true }]));
  holder = createLeaseHolder({
    clock,
    log: new SilentLog(),
    probe: noProbe,
    leaseDurationMs: 4000,
    safetyMarginMs: 1000,
    confirm(voter, request, done) {
      const state = voters.get(voter);
      const answer: ConfirmAnswer | null =
        state == null
          ? null
          : {
              number: state.number,
              confirmed: state.carries ? request.locks.map((lock) => lock.object) : [],
            };
      if (held === null) done(answer);
      else held.push(() => done(answer));
    },
    repair: () => {
      repairs += 1;
    },
    beatNow: () => undefined,
  });
  holder.onLease({
    extended: (_vm, deadlineMs) => events.push(`extended ${deadlineMs - clock.now()}`),
    lapsed: (_vm, stoodStill) => {
      events.push('lapsed');
      if (standsStillAtOnce) stoodStill();
      else stillLater = stoodStill;
    },
    regained: () => events.push('regained'),
    lost: () => events.push('lost'),
  });
});

function beat(): number {
  sequence += 1;
  listed = holder.lapsedIn(sequence);
  sentAt.set(sequence, clock.now());
  return sequence;
}

function ack(voter: HostId, number = sequence): void {
  const state = voters.get(voter);
  if (state == null) return;
  const message = { incarnation: incarnation(1), sequence: number, number: state.number };
  holder.acknowledged(voter, message, sentAt.get(number) as number);
}

function take(): void {
  holder.hold(vm, object, epoch(1), voting(a, b, c));
  beat();
}

describe('a holder', () => {
  it('has a deadline from the send time of the oldest heartbeat in the freshest majority', () => {
    take();
    const first = clock.now();
    ack(a);
    expect(holder.deadline(vm)).toBe(null);
    ack(b);
    expect(holder.deadline(vm)).toBe(first + 3000);
    clock.advance(500);
    beat();
    clock.advance(100); // the way there and back counts against the holder
    ack(c);
    expect(holder.deadline(vm)).toBe(first + 3000);
    ack(b);
    expect(holder.deadline(vm)).toBe(first + 500 + 3000);
    ack(a);
    expect(holder.deadline(vm)).toBe(first + 500 + 3000);
  });

  it('counts a voter only after that has confirmed the lock', () => {
    voters.set(b, { number: 'b.0', carries: false });
    voters.set(c, null);
    take();
    ack(a);
    ack(b);
    expect(holder.deadline(vm)).toBe(null);
    expect(repairs).toBe(1);
    voters.set(b, { number: 'b.0', carries: true });
    beat();
    ack(b);
    expect(holder.deadline(vm)).toBe(clock.now() + 3000);
  });

  it('counts no acknowledgement under another number than the confirmed one', () => {
    take();
    ack(a);
    ack(b);
    const deadline = holder.deadline(vm);
    clock.advance(500);
    beat();
    voters.set(b, { number: 'b.1', carries: false }); // it has ended the lock, or restarted
    ack(a);
    ack(b);
    expect(holder.deadline(vm)).toBe(deadline);
    voters.set(b, { number: 'b.1', carries: true }); // a restarted one that carries the lock still
    beat();
    ack(b);
    expect(holder.deadline(vm)).toBe(clock.now() + 3000);
  });

  it('does not count a confirmation whose number has changed on its way', () => {
    take();
    held = [];
    ack(a);
    ack(b);
    voters.set(b, { number: 'b.1', carries: true });
    beat();
    ack(b); // with the new number, while the answer of the old one is on its way
    for (const answer of held.splice(0)) answer();
    expect(holder.deadline(vm)).toBe(null);
  });

  it('goes by the clock, not by its timer', () => {
    take();
    ack(a);
    ack(b);
    const late = new VirtualClock();
    late.advance(clock.now());
    const { now } = clock;
    clock.now = () => now.call(clock) + 3000;
    expect(holder.deadline(vm)).toBe(null);
    expect(events).not.toContain('lapsed');
  });

  it('ends a lease that is withheld, lists the VM once its guest stands, and never seeks it again', () => {
    take();
    ack(a);
    ack(b);
    standsStillAtOnce = false;
    holder.withhold(vm);
    expect(events.at(-1)).toBe('lapsed');
    expect(holder.deadline(vm)).toBe(null);
    beat();
    expect(listed).toEqual([]); // its guest may still run
    holder.withhold(vm); // its guest could not be paused: once more
    expect(events.filter((event) => event === 'lapsed')).toHaveLength(2);
    stillLater();
    holder.withhold(vm);
    expect(events.filter((event) => event === 'lapsed')).toHaveLength(2);
    for (let beats = 0; beats < 20; beats += 1) {
      clock.advance(500);
      beat();
      expect(listed).toEqual([vm]);
      ack(a);
      ack(b);
      expect(holder.deadline(vm)).toBe(null);
    }
  });

  it('lapses at the deadline, lists the VM, and comes back only with new confirmations', () => {
    take();
    ack(a);
    ack(b);
    const old = sequence;
    clock.advance(3000);
    expect(events.at(-1)).toBe('lapsed');
    expect(holder.deadline(vm)).toBe(null);
    beat();
    expect(listed).toEqual([vm]);
    ack(c, old); // an acknowledgement of before the lapse
    expect(holder.deadline(vm)).toBe(null);
    ack(a);
    ack(b); // of a heartbeat that listed it: a majority answers again, no more
    expect(holder.deadline(vm)).toBe(null);
    beat();
    expect(listed).toEqual([]);
    ack(a);
    expect(holder.deadline(vm)).toBe(null);
    ack(b);
    expect(holder.deadline(vm)).toBe(clock.now() + 3000);
    expect(events.at(-1)).toBe('regained');
  });

  it('lists the VM only when its guest stands still, and not for the pause of an older lapse', () => {
    take();
    ack(a);
    ack(b);
    standsStillAtOnce = false;
    clock.advance(3000);
    beat();
    expect(listed).toEqual([]);
    const firstPause = stillLater;
    ack(a);
    ack(b);
    beat();
    ack(a);
    ack(b);
    expect(events.at(-1)).toBe('regained');
    clock.advance(3000);
    firstPause();
    beat();
    expect(listed).toEqual([]);
    stillLater();
    beat();
    expect(listed).toEqual([vm]);
  });

  it('does not come back on the strength of heartbeats that listed it', () => {
    take();
    ack(a);
    ack(b);
    clock.advance(3000);
    beat();
    const listing = sequence;
    ack(a);
    ack(b);
    beat();
    ack(c, listing); // late
    ack(a);
    expect(holder.deadline(vm)).toBe(null);
  });

  it('does not come back where the lock has gone meanwhile', () => {
    take();
    ack(a);
    ack(b);
    clock.advance(3000);
    for (const voter of [a, b, c]) voters.set(voter, { number: `${voter}.1`, carries: false });
    for (let beats = 0; beats < 3; beats += 1) {
      beat();
      for (const voter of [a, b, c]) ack(voter);
    }
    expect(holder.deadline(vm)).toBe(null);
    expect(repairs).toBeGreaterThan(0);
    holder.lost(vm, 99 as never);
    expect(holder.isHeld(vm)).toBe(true);
    holder.lost(vm, holder.heldEpoch(vm) as never);
    expect(events.at(-1)).toBe('lost');
    expect(holder.isHeld(vm)).toBe(false);
  });

  it('lets others have it again when seeking the lease does not work out', () => {
    take();
    ack(a);
    ack(b);
    clock.advance(3000);
    beat();
    ack(a);
    ack(b);
    beat();
    expect(listed).toEqual([]);
    clock.advance(4500);
    beat();
    expect(listed).toEqual([vm]);
  });

  it('does not rely on heartbeats that listed the VM when it takes the lock again at once', () => {
    take();
    holder.drop(vm);
    beat();
    expect(listed).toEqual([vm]);
    holder.forget(vm);
    holder.hold(vm, object, epoch(2), voting(a, b, c));
    // The voters go on by the heartbeat that listed it until they hear the next one.
    for (const voter of [a, b, c]) ack(voter);
    expect(holder.deadline(vm)).toBe(null);
    beat();
    expect(listed).toEqual([]);
    ack(a);
    ack(b);
    expect(holder.deadline(vm)).toBe(clock.now() + 3000);
  });

  it('lists what it disowns until it is told to forget it', () => {
    holder.disown(vm);
    beat();
    beat();
    expect(listed).toEqual([vm]);
    holder.forget(vm);
    beat();
    expect(listed).toEqual([]);
  });

  it('has the earlier deadline of two groups while the voters are being changed', () => {
    take();
    for (const voter of [a, b]) ack(voter);
    const first = clock.now() + 3000;
    const joint = { ...voting(a, b, c), nextVoters: voting(a, c, d).voters };
    holder.reseat(vm, joint);
    expect(holder.deadline(vm)).toBe(first); // what was promised stays promised
    expect(holder.isSettled(vm, joint)).toBe(false);
    clock.advance(500);
    beat();
    expect(listed).toEqual([]);
    ack(a);
    ack(b);
    expect(holder.deadline(vm)).toBe(first);
    expect(holder.isSettled(vm, joint)).toBe(false);
    ack(d);
    expect(holder.deadline(vm)).toBe(clock.now() + 3000);
    expect(holder.isSettled(vm, joint)).toBe(true);
    holder.reseat(vm, voting(a, c, d));
    expect(holder.isSettled(vm, joint)).toBe(false);
    ack(a);
    ack(d);
    expect(holder.isSettled(vm, voting(a, c, d))).toBe(false); // asked for at the next acknowledgement
    beat();
    ack(a);
    ack(d);
    expect(holder.isSettled(vm, voting(a, c, d))).toBe(true);
  });
});
