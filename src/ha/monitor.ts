// What should run and does not. The master remembers every protection state that it has seen in the
// directory, also when the object later becomes inaccessible (the GET answers only for what is
// accessible now), and compares it with what the agents of its partition report. Level-triggered: the
// whole comparison each time, so that no change can be missed.

import type { HostId, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { Storage } from '../storage/api.ts';
import type { RunningVm } from './api.ts';
import type { Candidate } from './failover-entry.ts';
import type { Membership } from './membership.ts';
import type { ProtectionView } from './protection-view.ts';

interface Comparison {
  readonly candidates: readonly Candidate[];
  readonly runsOn: ReadonlyMap<VmId, HostId>;
}

export class Monitor {
  readonly #self: HostId;
  readonly #storage: Storage;
  readonly #membership: Membership;
  readonly #running: () => readonly RunningVm[];
  readonly #view: ProtectionView;
  readonly #known = new Map<VmId, ProtectionState>();

  constructor(options: {
    readonly self: HostId;
    readonly storage: Storage;
    readonly membership: Membership;
    readonly running: () => readonly RunningVm[];
    readonly view: ProtectionView;
  }) {
    this.#self = options.self;
    this.#storage = options.storage;
    this.#membership = options.membership;
    this.#running = options.running;
    this.#view = options.view;
  }

  /** The generic GET, merged into what is known. */
  get(): void {
    for (const [vm, state] of this.#view.all()) this.#known.set(vm, state);
  }

  compare(nowMs: number): Comparison {
    const runsOn = this.#runsOn();
    const candidates: Candidate[] = [];
    for (const [vm, state] of this.#known) {
      if (!state.protected || runsOn.has(vm)) continue;
      const view = this.#storage.vm(vm);
      if (view === null || view.lifecycle !== 'ready') {
        this.#known.delete(vm); // removed; should it come back, so does its metadata
        continue;
      }
      const { priority, memoryBytes, cpus } = state;
      const past = this.#past(vm, view.lock.holder, nowMs);
      candidates.push({ vm, name: view.name, priority, memoryBytes, cpus, ...past });
    }
    return { candidates, runsOn };
  }

  /** Who reports what, of all hosts that are not known to have failed. */
  #runsOn(): Map<VmId, HostId> {
    const runsOn = new Map<VmId, HostId>();
    for (const member of this.#membership.members()) {
      if (member.condition === 'failed') continue;
      for (const { vm } of member.list?.vms ?? []) runsOn.set(vm, member.host);
    }
    for (const { vm } of this.#running()) runsOn.set(vm, this.#self);
    return runsOn;
  }

  /** Where it was, and when there was the last sign of it. */
  #past(
    vm: VmId,
    holder: HostId | null,
    nowMs: number,
  ): Pick<Candidate, 'from' | 'failedAtMs' | 'prefer'> {
    const seen = this.#membership.lastSeen(vm);
    const isLater = holder !== null && holder !== seen?.host; // it moved on, unseen
    const from = isLater ? holder : (seen?.host ?? null);
    if (from === null) return { from, failedAtMs: nowMs, prefer: null };
    const member = this.#membership.member(from);
    const isAlive = from === this.#self || member?.condition === 'linked';
    const goneAtMs = isLater ? null : (seen?.goneAtMs ?? null);
    if (goneAtMs !== null) {
      return { from, failedAtMs: goneAtMs, prefer: isAlive ? from : null };
    }
    return { from, failedAtMs: isAlive ? nowMs : (member?.heardAtMs ?? nowMs), prefer: null };
  }
}
