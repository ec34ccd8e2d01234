// Protection, once acknowledged, stays until the user ends it. Each record that becomes the newest of
// a VM is held against the newest acknowledgement: it must carry that state or a later one, and a state
// ends only as a power-off does: in the change that gives the lock back, when the guest is gone.

import type { Epoch, HostId, VmId } from '../../model/ids.ts';
import { haService, protectionKey, readProtection } from '../../model/protection.ts';
import type { NamespaceRecord } from '../../model/record.ts';
import type { Report } from './violation.ts';

interface Acknowledged {
  readonly epoch: Epoch;
  readonly protected: boolean;
}

export class Protection {
  readonly #report: Report;
  /** The newest committed record of the VM. */
  readonly #record: (vm: VmId) => NamespaceRecord | null;
  /** Where a guest of that epoch has not exited. */
  readonly #aliveAt: (vm: VmId, epoch: Epoch) => HostId | null;
  readonly #acknowledged = new Map<VmId, Acknowledged>();

  constructor(
    report: Report,
    record: (vm: VmId) => NamespaceRecord | null,
    aliveAt: (vm: VmId, epoch: Epoch) => HostId | null,
  ) {
    this.#report = report;
    this.#record = record;
    this.#aliveAt = aliveAt;
  }

  set(vm: VmId, isProtected: boolean, epoch: Epoch): void {
    const before = this.#acknowledged.get(vm);
    // At one epoch the end is the last word: its SET may be told late.
    const isNews =
      before === undefined ||
      epoch > before.epoch ||
      (epoch === before.epoch && before.protected && !isProtected);
    if (isNews) this.#acknowledged.set(vm, { epoch, protected: isProtected });
    const record = this.#record(vm);
    if (record !== null) this.#check(record, null);
    else if (isNews) this.#say(vm, vm, `epoch ${epoch} was acknowledged and nothing is committed`);
  }

  /** The record is the newest now; `before` was. */
  committed(record: NamespaceRecord, before: NamespaceRecord | null): void {
    this.#check(record, before);
  }

  /** HA has taken the lock: what it replaced was protected, and taking changes nothing of that. */
  takenByHa(vm: VmId, epoch: Epoch): void {
    const record = this.#record(vm);
    if (record === null || record.lock.epoch !== epoch || stateOf(record)?.protected === true)
      return;
    this.#report(
      'ha-starts-protected',
      `HA has taken the lock of ${record.name} at epoch ${epoch}, and its record is not protected`,
    );
  }

  removed(vm: VmId): void {
    this.#acknowledged.delete(vm);
  }

  #check(record: NamespaceRecord, before: NamespaceRecord | null): void {
    const { vm, name, lock } = record;
    const state = stateOf(record);
    if (state !== null && state.epoch > lock.epoch) {
      this.#say(vm, name, `its state is of epoch ${state.epoch}, and its lock of ${lock.epoch}`);
    }
    const known = this.#acknowledged.get(vm);
    if (known === undefined) return;
    if (state === null || state.epoch < known.epoch) {
      const what = state === null ? 'no state' : `the state of epoch ${state.epoch}`;
      this.#say(
        vm,
        name,
        `epoch ${known.epoch} was acknowledged; revision ${record.revision} has ${what}`,
      );
      return;
    }
    if (state.epoch > known.epoch || state.protected === known.protected) {
      if (before !== null) this.#checkEnd(record, before);
      return;
    }
    if (state.protected) {
      this.#say(
        vm,
        name,
        `it was switched off at epoch ${state.epoch}, and is protected again at it`,
      );
    } else if (lock.epoch === state.epoch && lock.holder !== null) {
      // Where a later epoch has the lock, the change that ended this one was not told.
      this.#say(
        vm,
        name,
        `its state ended at epoch ${state.epoch} while ${lock.holder} has its lock`,
      );
    } else {
      if (before !== null) this.#checkEnd(record, before);
    }
  }

  /** Its user switched it off, so its guest is gone. */
  #checkEnd(record: NamespaceRecord, before: NamespaceRecord): void {
    const state = stateOf(record);
    if (state === null || state.protected) return;
    if (stateOf(before)?.protected !== true) return;
    const host = this.#aliveAt(record.vm, state.epoch);
    if (host === null) return;
    this.#say(
      record.vm,
      record.name,
      `its state ended at epoch ${state.epoch}, and its guest of that epoch is there on ${host}`,
    );
  }

  #say(vm: VmId, name: string, text: string): void {
    this.#report('protection-kept', `VM ${name === vm ? vm : name}: ${text}`);
  }
}

function stateOf(record: NamespaceRecord): Acknowledged | null {
  return readProtection(record.metadata[haService]?.[protectionKey]);
}
