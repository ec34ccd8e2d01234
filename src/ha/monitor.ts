// What should run and does not. The master remembers every protection state that it has seen in the
// directory, also when the object later becomes inaccessible (the GET answers only for what is
// accessible now), and compares it with what the agents of its partition report. Of 10,000 VMs only
// those are compared again of which something was heard; all of them every few seconds, so that no
// change can be missed for good.

import type { HostId, VmId } from '../model/ids.ts';
import type { Attempts } from '../model/restart.ts';
import { rulesOf } from '../model/vm.ts';
import type { Candidate } from './failover-entry.ts';
import { haLimits } from './limits.ts';
import type { Membership } from './membership.ts';
import type { HaState } from './protection-view.ts';
import { Relations } from './relations.ts';
import type { Sight } from './sight.ts';

interface Comparison {
  readonly candidates: readonly Candidate[];
}

export class Monitor {
  readonly relations: Relations;
  readonly #self: HostId;
  readonly #sight: Sight;
  readonly #membership: Membership;
  readonly #known = new Map<VmId, HaState>();
  /** What the record of a VM says. */
  readonly #onAttempts: (vm: VmId, attempts: Attempts) => void;
  /** Protected, and nobody reports it. */
  #missing = new Set<VmId>();
  /** Read since the last comparison. */
  #read = new Set<VmId>();
  /** Paused VMs whose objects others reach, and since when. */
  #reached = new Map<VmId, number>();
  #comparedAllAtMs = Number.NEGATIVE_INFINITY;
  #watchedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: {
    readonly self: HostId;
    readonly sight: Sight;
    readonly membership: Membership;
    readonly onAttempts: (vm: VmId, attempts: Attempts) => void;
  }) {
    this.#self = options.self;
    this.#sight = options.sight;
    this.#membership = options.membership;
    this.#onAttempts = options.onAttempts;
    this.relations = new Relations(
      (vm) => options.membership.report(vm),
      (vm) => this.#runsElsewhere(vm),
    );
  }

  /** The generic GET, of all or of these VMs, merged into what is known; returns the number of its
   * values. */
  get(vms: readonly VmId[] | null = null): number {
    const states = this.#sight.states(vms);
    for (const vm of vms ?? states.keys()) {
      const state = states.get(vm);
      if (state === undefined) continue;
      this.#known.set(vm, state);
      this.relations.know(vm, state);
      if (state.attempts !== undefined) this.#onAttempts(vm, state.attempts);
      this.#read.add(vm);
    }
    return states.size;
  }

  /** What was last read of it; null: nothing. */
  state(vm: VmId): HaState | null {
    return this.#known.get(vm) ?? null;
  }

  compare(nowMs: number): Comparison {
    this.#findMissing(nowMs);
    const candidates: Candidate[] = [];
    // What is news of them may not have been told yet: a list without a VM that was switched off comes first.
    if (this.#missing.size > 0) this.get([...this.#missing]);
    for (const vm of this.#missing) {
      const state = this.#known.get(vm) as HaState;
      if (!state.protected) {
        this.#missing.delete(vm);
        continue;
      }
      const view = this.#sight.vm(vm);
      if (view === null) {
        this.#missing.delete(vm);
        this.#known.delete(vm); // removed; should it come back, so does its metadata
        this.relations.know(vm, null);
        continue;
      }
      const { memoryBytes, cpus } = state;
      const past = this.#past(vm, view.lock.holder, nowMs);
      candidates.push({ vm, name: view.name, memoryBytes, cpus, ...rulesOf(state), ...past });
    }
    return { candidates };
  }

  /** Nobody here hears its holder, and the storage network reaches it. */
  #runsElsewhere(vm: VmId): boolean {
    const holder = this.#sight.vm(vm)?.lock.holder ?? null;
    if (holder === null || this.#membership.member(holder)?.condition !== 'failed') return false;
    return this.#sight.reaches(holder);
  }

  #findMissing(nowMs: number): void {
    this.#watchPaused(nowMs);
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

  /** Finds those whose hosts do not reach their objects, or can not open them, and, as it seems, will not soon:
   * others have reached them for a while, and they still stand. */
  #watchPaused(nowMs: number): void {
    if (nowMs - this.#watchedAtMs < haLimits.outlookMs) return;
    this.#watchedAtMs = nowMs;
    const before = this.#reached;
    const paused = [...this.#membership.paused()];
    if (paused.length === 0 && before.size === 0) return;
    const access = this.#sight.accessibility(paused);
    const reached = paused.filter((vm) => access.get(vm)?.accessible === true);
    this.#reached = new Map(reached.map((vm) => [vm, before.get(vm) ?? nowMs]));
    for (const vm of [...before.keys(), ...reached]) this.#read.add(vm);
  }

  /** Since when it stands on a host that is cut off from it; null: it is not. */
  #cutOffSince(vm: VmId): number | null {
    const reachedMs = this.#watchedAtMs - (this.#reached.get(vm) ?? this.#watchedAtMs);
    return reachedMs < haLimits.cutOffGraceMs ? null : this.#membership.pausedSince(vm);
  }

  #look(vm: VmId): void {
    const isGone = this.#membership.runsOn(vm) === null || this.#cutOffSince(vm) !== null;
    const isMissing = this.#known.get(vm)?.protected === true && isGone;
    if (isMissing) this.#missing.add(vm);
    else this.#missing.delete(vm);
  }

  /** Where it was, and when there was the last sign of it. */
  #past(
    vm: VmId,
    holder: HostId | null,
    nowMs: number,
  ): Pick<Candidate, 'from' | 'failedAtMs' | 'prefer' | 'isCutOff' | 'hasHung'> {
    const cutOffMs = this.#cutOffSince(vm);
    if (cutOffMs !== null) {
      const from = this.#membership.runsOn(vm);
      return { from, failedAtMs: cutOffMs, prefer: null, isCutOff: true, hasHung: false };
    }
    return { ...this.#lastSign(vm, holder, nowMs), isCutOff: false };
  }

  #lastSign(
    vm: VmId,
    holder: HostId | null,
    nowMs: number,
  ): Pick<Candidate, 'from' | 'failedAtMs' | 'prefer' | 'hasHung'> {
    const seen = this.#membership.lastSeen(vm);
    const isLater = holder !== null && holder !== seen?.host; // it moved on, unseen
    const from = isLater ? holder : (seen?.host ?? null);
    if (from === null) return { from, failedAtMs: nowMs, prefer: null, hasHung: false };
    const member = this.#membership.member(from);
    const isAlive = from === this.#self || member?.condition === 'linked';
    const goneAtMs = isLater ? null : (seen?.goneAtMs ?? null);
    if (goneAtMs !== null) {
      const prefer = isAlive ? from : null;
      return { from, failedAtMs: goneAtMs, prefer, hasHung: seen?.hasHung === true };
    }
    const failedAtMs = isAlive ? nowMs : (member?.heardAtMs ?? nowMs);
    return { from, failedAtMs, prefer: null, hasHung: false };
  }
}
