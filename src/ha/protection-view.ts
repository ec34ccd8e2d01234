// The protection states in the directory, with the attempts so far: the generic GET, read and kept for one turn
// of the event loop, because many questions of one turn (a list of all VMs) want the same answer.

import type { VmId } from '../model/ids.ts';
import {
  haService,
  type ProtectionState,
  type ProtectionStatus,
  protectionKey,
  readProtection,
} from '../model/protection.ts';
import { type Attempts, attemptsKey, readAttempts } from '../model/restart.ts';
import type { Clock } from '../ports/clock.ts';
import type { Storage } from '../storage/api.ts';

/** What there is of HA's about a VM, that a master goes by. */
export interface HaState extends ProtectionState {
  /** Absent: there were none that failed. */
  readonly attempts?: Attempts;
}

export class ProtectionView {
  readonly #storage: Storage;
  readonly #clock: Clock;
  #states: ReadonlyMap<VmId, HaState> | null = null;

  constructor(storage: Storage, clock: Clock) {
    this.#storage = storage;
    this.#clock = clock;
    // The store keeps up to date what was asked for of all VMs: whoever becomes master later must not wait for that.
    this.#read();
  }

  /** Of all VMs that are accessible now and have one. */
  all(): ReadonlyMap<VmId, HaState> {
    if (this.#states !== null) return this.#states;
    this.#states = this.#read();
    this.#clock.defer(() => this.changed());
    return this.#states;
  }

  /** Of those of these VMs that are accessible now and have one. */
  of(vms: readonly VmId[]): ReadonlyMap<VmId, HaState> {
    return this.#states ?? this.#read(vms);
  }

  #read(vms?: readonly VmId[]): Map<VmId, HaState> {
    const states = new Map<VmId, HaState>();
    for (const { vm, value } of this.#storage.getMetadata(haService, protectionKey, vms).values) {
      const state = readProtection(value);
      if (state !== null) states.set(vm, state);
    }
    for (const { vm, value } of this.#storage.getMetadata(haService, attemptsKey, vms).values) {
      const state = states.get(vm);
      if (state !== undefined) states.set(vm, { ...state, attempts: readAttempts(value) });
    }
    return states;
  }

  changed(): void {
    this.#states = null;
  }

  /** What is told of a VM; `protected` only where a committed record was seen. `here`: what is known of it because
   * it runs here; null: it does not. */
  status(vm: VmId, here: 'committed' | 'pending' | null): ProtectionStatus {
    const view = this.#storage.vm(vm);
    if (view === null) return unprotected('this host does not know the VM');
    if (!view.spec.protected) return unprotected('its specification says so');
    if (this.of([vm]).get(vm)?.protected === true) return { status: 'protected' };
    if (!view.accessible.accessible) {
      if (here === 'committed') return { status: 'protected' };
      const { text: reason } = view.accessible;
      return here === 'pending' ? { status: 'pending', reason } : unprotected(reason);
    }
    if (view.lock.holder === null) return unprotected('it is powered off');
    return { status: 'pending', reason: 'no master has recorded it yet' };
  }
}

function unprotected(reason: string): ProtectionStatus {
  return { status: 'unprotected', reason };
}
