// What should run and does not. The master remembers every protection state that it has seen in the
// directory, also when the object later becomes inaccessible (the GET answers only for what is
// accessible now), and compares it with what the agents of its partition report. Of 10,000 VMs only
// those are compared again of which something was heard; all of them every few seconds, so that no
// change can be missed for good.

import type { HostId, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { Storage } from '../storage/api.ts';
import type { Candidate } from './failover-entry.ts';
import { haLimits } from './limits.ts';
import type { Membership } from './membership.ts';
import type { ProtectionView } from './protection-view.ts';

interface Comparison {
  readonly candidates: readonly Candidate[];
}

export class Monitor {
  readonly #self: HostId;
  readonly #storage: Storage;
  readonly #membership: Membership;
  readonly #view: ProtectionView;
  readonly #known = new Map<VmId, ProtectionState>();
  /** Protected, and nobody reports it. */
  #missing = new Set<VmId>();
  /** Read since the last comparison. */
  #read = new Set<VmId>();
  #comparedAllAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: {
    readonly self: HostId;
    readonly storage: Storage;
    readonly membership: Membership;
    readonly view: ProtectionView;
  }) {
    this.#self = options.self;
    this.#storage = options.storage;
    this.#membership = options.membership;
    this.#view = options.view;
  }

  /** The generic GET, of all or of these VMs, merged into what is known; returns the number of its
   * values. */
  get(vms: readonly VmId[] | null = null): number {
    const states = vms === null ? this.#view.all() : this.#view.of(vms);
    for (const vm of vms ?? states.keys()) {
      const state = states.get(vm);
      if (state === undefined) continue;
      this.#known.set(vm, state);
      this.#read.add(vm);
    }
    return states.size;
  }

  compare(nowMs: number): Comparison {
    this.#findMissing(nowMs);
    const candidates: Candidate[] = [];
    for (const vm of this.#missing) {
      const state = this.#known.get(vm) as ProtectionState;
      const view = this.#storage.vm(vm);
      if (view === null || view.lifecycle !== 'ready') {
        this.#missing.delete(vm);
        this.#known.delete(vm); // removed; should it come back, so does its metadata
        continue;
      }
      const { priority, memoryBytes, cpus } = state;
      const past = this.#past(vm, view.lock.holder, nowMs);
      candidates.push({ vm, name: view.name, priority, memoryBytes, cpus, ...past });
    }
    return { candidates };
  }

  #findMissing(nowMs: number): void {
    const touched = this.#membership.takeTouched();
    const isFull = nowMs - this.#comparedAllAtMs >= haLimits.slowLookMs;
    if (touched === null || isFull) {
      this.#comparedAllAtMs = nowMs;
      this.#missing = new Set();
      for (const vm of this.#known.keys()) this.#look(vm);
    } else {
      for (const vm of touched) this.#look(vm);
      for (const vm of this.#read) this.#look(vm);
    }
    this.#read = new Set();
  }

  #look(vm: VmId): void {
    const isMissing =
      this.#known.get(vm)?.protected === true && this.#membership.runsOn(vm) === null;
    if (isMissing) this.#missing.add(vm);
    else this.#missing.delete(vm);
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
