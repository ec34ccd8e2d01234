// The protection states in the directory: the generic GET, read and kept for one turn of the event
// loop, because many questions of one turn (a list of all VMs) want the same answer.

import type { VmId } from '../model/ids.ts';
import {
  haService,
  type ProtectionState,
  type ProtectionStatus,
  protectionKey,
  readProtection,
} from '../model/protection.ts';
import type { Clock } from '../ports/clock.ts';
import type { Storage } from '../storage/api.ts';

export class ProtectionView {
  readonly #storage: Storage;
  readonly #clock: Clock;
  #states: ReadonlyMap<VmId, ProtectionState> | null = null;

  constructor(storage: Storage, clock: Clock) {
    this.#storage = storage;
    this.#clock = clock;
  }

  /** Of all VMs that are accessible now and have one. */
  all(): ReadonlyMap<VmId, ProtectionState> {
    if (this.#states !== null) return this.#states;
    const states = new Map<VmId, ProtectionState>();
    for (const { vm, value } of this.#storage.getMetadata(haService, protectionKey).values) {
      const state = readProtection(value);
      if (state !== null) states.set(vm, state);
    }
    this.#states = states;
    this.#clock.defer(() => this.changed());
    return states;
  }

  /** Of those of these VMs that are accessible now and have one. */
  of(vms: readonly VmId[]): ReadonlyMap<VmId, ProtectionState> {
    if (this.#states !== null) return this.#states;
    const states = new Map<VmId, ProtectionState>();
    const { values } = this.#storage.getMetadata(haService, protectionKey, vms);
    const found = new Map(values.map(({ vm, value }) => [vm, value]));
    for (const vm of vms) {
      const state = readProtection(found.get(vm));
      if (state !== null) states.set(vm, state);
    }
    return states;
  }

  changed(): void {
    this.#states = null;
  }

  /** What is told of a VM; `protected` only where the directory shows the committed record. */
  status(vm: VmId): ProtectionStatus {
    const view = this.#storage.vm(vm);
    if (view === null) return unprotected('this host does not know the VM');
    if (!view.spec.protected) return unprotected('its specification says so');
    if (this.of([vm]).get(vm)?.protected === true) return { status: 'protected' };
    if (!view.accessible.accessible) return unprotected(view.accessible.text);
    if (view.lock.holder === null) return unprotected('it is powered off');
    return { status: 'protecting' };
  }
}

function unprotected(reason: string): ProtectionStatus {
  return { status: 'unprotected', reason };
}
