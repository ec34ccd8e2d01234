// A voter alone: for whom it refuses what, and for how long.

import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import {
  epoch,
  type HostId,
  hostId,
  incarnation,
  objectId,
  revision,
  storeId,
  vmId,
} from '../../model/ids.ts';
import { defaultPolicy } from '../../model/policy.ts';
import type { NamespaceRecord, Tombstone } from '../../model/record.ts';
import type { Point } from '../../ports/probe.ts';
import { createLeaseVoter, type LeaseVoter } from './voter.ts';

const [a, b, c] = ['a', 'b', 'c'].map(hostId) as [HostId, HostId, HostId];
const vm = vmId('vm-1');
let clock: VirtualClock;
let voter: LeaseVoter;
let longestLeaseMs: number;
let heardSince: Map<HostId, number>;
let sequence: number;
let points: Point[];

function record(holder: HostId | null, at: number): NamespaceRecord {
  return {
    kind: 'namespace',
    id: objectId('o'),
    vm,
    revision: revision(1),
    policy: defaultPolicy,
    voters: [a, b, c].map((host) => ({ host, store: storeId(host), joined: 1 })),
    name: 'vm',
    lifecycle: 'ready',
    lock: { holder, epoch: epoch(at) },
    metadata: {},
    files: {},
    disks: [],
  };
}

function beat(
  from: HostId,
  options: { lapsed?: boolean; leaseMs?: number; run?: number; sequence?: number } = {},
) {
  sequence += 1;
  return voter.heard(from, {
    incarnation: incarnation(options.run ?? 1),
    sequence: options.sequence ?? sequence,
    leaseDurationMs: options.leaseMs ?? 4000,
    lapsed: options.lapsed === true ? [vm] : [],
    store: { id: null, problem: null, totalBytes: 0, freeBytes: 0 },
    digest: '',
  });
}

function make(run = 1): LeaseVoter {
  return createLeaseVoter({
    clock,
    probe: { reached: (point) => void points.push(point) },
    incarnation: run,
    longestLeaseMs: () => longestLeaseMs,
    heardSince: (host) => heardSince.get(host) ?? null,
  });
}

beforeEach(() => {
  clock = new VirtualClock();
  longestLeaseMs = 4000;
  heardSince = new Map([a, b, c].map((host) => [host, 0]));
  sequence = 0;
  points = [];
  voter = make();
  clock.advance(10_000); // what it may have promised before it started is over
  voter.confirmed(record(a, 1));
});

describe('a voter', () => {
  it('ends no lock of a holder for one lease after its last heartbeat', () => {
    beat(a);
    clock.advance(1000);
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBe(3000);
    expect(voter.admit(record(a, 1), record(null, 1), c)).toBe(3000);
    clock.advance(2999);
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBe(1);
    clock.advance(1);
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBe(0);
  });

  it('protects no lock that it has not confirmed to its holder, nor confirmed again since its end', () => {
    beat(a);
    expect(voter.admit(record(a, 7), record(b, 8), b)).toBe(0);
    voter.confirmed(record(a, 9));
    expect(voter.admit(record(a, 9), record(b, 10), b)).toBe(4000);
    expect(voter.admit(record(a, 9), record(null, 9), a)).toBe(0);
    expect(voter.remainingMs(record(a, 9))).toBe(0);
  });

  it('admits what keeps the lock, and what ends no lock', () => {
    beat(a);
    const changed = { ...record(a, 1), metadata: { ha: { protection: true } } };
    expect(voter.admit(record(a, 1), changed, b)).toBe(0);
    expect(voter.admit(record(null, 1), record(b, 2), b)).toBe(0);
    expect(voter.admit(null, record(b, 1), b)).toBe(0);
  });

  it('refuses other voters, another epoch and a removal as it refuses another holder', () => {
    beat(a);
    const moved = { ...record(a, 1), voters: record(a, 1).voters.slice(1) };
    const { id, revision: at, policy, voters } = record(a, 1);
    const tombstone: Tombstone = { kind: 'tombstone', id, vm, revision: at, policy, voters };
    for (const next of [moved, record(a, 2), tombstone]) {
      expect(voter.admit(record(a, 1), next, b)).toBe(4000);
    }
  });

  it('lets the holder itself release, take again and remove', () => {
    beat(a);
    const { id, revision: at, policy, voters } = record(a, 1);
    const tombstone: Tombstone = { kind: 'tombstone', id, vm, revision: at, policy, voters };
    for (const next of [record(null, 1), record(a, 2), tombstone]) {
      expect(voter.admit(record(a, 1), next, a)).toBe(0);
    }
  });

  it("does not let the holder finish somebody else's take-over that it found", () => {
    beat(a);
    expect(voter.admit(record(a, 1), record(b, 2), a)).toBe(4000);
  });

  it('protects no VM that the holder listed as lapsed', () => {
    beat(a, { lapsed: true });
    expect(voter.remainingMs(record(a, 1))).toBe(0);
    beat(a);
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBe(4000);
  });

  it('keeps a longer promise when a later heartbeat names a shorter lease', () => {
    beat(a);
    beat(a, { leaseMs: 1000, run: 2 });
    expect(voter.remainingMs(record(a, 1))).toBe(4000);
  });

  it('takes no heartbeat that is older than one it has heard', () => {
    expect(beat(a, { sequence: 7 })).not.toBe(null);
    clock.advance(1000);
    expect(beat(a, { sequence: 7 })).toBe(null);
    expect(beat(a, { sequence: 6, lapsed: true })).toBe(null);
    expect(beat(a, { sequence: 1, run: 2 })).not.toBe(null);
    clock.advance(1000);
    expect(beat(a, { sequence: 9, run: 1 })).toBe(null);
    expect(voter.remainingMs(record(a, 1))).toBe(3000);
  });

  it('grants no lease that it might not remember', () => {
    expect(beat(a, { leaseMs: 5000 })).toBe(null);
    expect(voter.remainingMs(record(a, 1))).toBe(0);
    longestLeaseMs = 5000;
    expect(beat(a, { leaseMs: 5000 })).not.toBe(null);
    expect(voter.remainingMs(record(a, 1))).toBe(5000);
  });

  it('waits for the longest lease after its own start', () => {
    longestLeaseMs = 9000;
    voter = make(2);
    expect(voter.remainingMs(record(a, 1))).toBe(9000);
    beat(a);
    clock.advance(5000);
    expect(voter.remainingMs(record(a, 1))).toBe(4000);
    expect(voter.remainingMs(record(null, 1))).toBe(0);
  });

  it('waits for the longest lease after it was without a majority', () => {
    heardSince.delete(b);
    heardSince.delete(c);
    expect(voter.remainingMs(record(a, 1))).toBe(4000);
    clock.advance(60_000);
    expect(voter.remainingMs(record(a, 1))).toBe(4000);
    heardSince.set(b, clock.now());
    clock.advance(3000);
    expect(voter.remainingMs(record(a, 1))).toBe(1000);
    clock.advance(1000);
    expect(voter.remainingMs(record(a, 1))).toBe(0);
  });

  it('tells the probe whose lock it ends, unless the holder itself gives it back', () => {
    expect(voter.admit(record(a, 1), record(null, 1), a)).toBe(0);
    expect(points).toEqual([]);
    beat(a);
    voter.confirmed(record(a, 1));
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBeGreaterThan(0);
    expect(points).toEqual([]);
    clock.advance(5000);
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBe(0);
    expect(points).toEqual([{ at: 'lease.ended', object: record(a, 1).id, holder: a }]);
  });

  it('changes its number for a holder whose lock it ends, before it says so', () => {
    const before = beat(a);
    const other = voter.number(b);
    clock.advance(5000);
    expect(beat(c)).not.toBe(null);
    expect(voter.number(a)).toBe(before);
    expect(voter.admit(record(a, 1), record(b, 2), b)).toBe(0);
    const ended = voter.number(a);
    expect(ended).not.toBe(before);
    expect(beat(a)).toBe(ended);
    voter.learned(record(a, 1), record(b, 2));
    expect(voter.number(a)).not.toBe(ended);
    expect(voter.number(b)).toBe(other);
    expect(make(2).number(a)).not.toBe(make(1).number(a));
  });
});
