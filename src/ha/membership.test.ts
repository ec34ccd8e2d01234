// What Membership keeps from list to list, against the obvious: everything computed anew from all lists.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { epoch, type HostId, hostId, term, type VmId, vmId } from '../model/ids.ts';
import { timings } from '../model/limits.ts';
import type { RunningVm } from './api.ts';
import { Membership } from './membership.ts';
import type { Heartbeat } from './messages.ts';

const [self, ...others] = ['h0', 'h1', 'h2', 'h3'].map(hostId) as [HostId, ...HostId[]];
const vms = ['a', 'b', 'c', 'd', 'e', 'f'].map(vmId);

const runs = (vm: VmId): RunningVm => ({
  vm,
  name: vm,
  epoch: epoch(1),
  state: 'running',
  ready: true,
  hung: false,
  cpus: 1,
  memoryBytes: 1,
});

const beatOf = (instance: number): Heartbeat => ({
  instance: String(instance),
  hearsYou: true,
  kind: 'full',
  role: 'agent',
  master: null,
  term: term(1),
  reachable: 4,
  cpus: 1,
  memoryBytes: 1,
  listVersion: 0,
});

const step = fc.record({
  host: fc.constantFrom(self, ...others),
  what: fc.constantFrom('list', 'list', 'list', 'list', 'restart', 'silence'),
  list: fc.uniqueArray(fc.constantFrom(...vms)),
});

describe('what a host lists', () => {
  test('counts as if it were put together anew each time', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const membership = new Membership(self, timings);
        membership.setMembers([self, ...others], 0);
        membership.takeTouched();
        const instances = new Map<HostId, number>();
        const lastSeen = new Map<
          VmId,
          { host: HostId; goneAtMs: number | null; hasHung: boolean }
        >();
        let ran = new Map<VmId, HostId | null>();
        let own: readonly VmId[] = [];
        let nowMs = 0;
        for (const [version, { host, what, list }] of steps.entries()) {
          nowMs += what === 'silence' ? timings.failAfterMs : 1;
          if (what === 'silence') membership.expire(nowMs);
          else if (what === 'restart' && host !== self) {
            instances.set(host, version);
            membership.heard(host, beatOf(version), nowMs);
          } else {
            const instance = instances.get(host) ?? 0;
            if (host === self) {
              own = list;
              membership.sawList(self, list.map(runs), nowMs);
            } else {
              membership.heard(host, beatOf(instance), nowMs);
              const vms = list.map(runs);
              const told = { instance: String(instance), version, vms, reaches: [] };
              membership.listed(host, told, nowMs);
            }
            for (const [vm, seen] of lastSeen) {
              if (seen.host !== host || seen.goneAtMs !== null || list.includes(vm)) continue;
              lastSeen.set(vm, { host, goneAtMs: nowMs, hasHung: false });
            }
            for (const vm of list) lastSeen.set(vm, { host, goneAtMs: null, hasHung: false });
          }
          const now = new Map<VmId, HostId | null>();
          for (const member of membership.members()) {
            if (member.condition === 'failed') continue;
            for (const { vm } of member.list?.vms ?? []) now.set(vm, member.host);
          }
          for (const vm of own) now.set(vm, self);
          const touched = membership.takeTouched();
          for (const vm of vms) {
            const on = now.get(vm) ?? null;
            expect(membership.runsOn(vm)).toBe(on);
            expect(membership.lastSeen(vm)).toEqual(lastSeen.get(vm) ?? null);
            if (on !== (ran.get(vm) ?? null)) expect(touched?.has(vm)).toBe(true);
          }
          ran = now;
        }
      }),
      { numRuns: 1000 },
    );
  });
});
