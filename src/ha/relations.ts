// What the restart of one VM has to do with others: which of them must run before it, and which of them should be
// elsewhere. Kept from the protection states that a master has read; what runs where is asked when it matters.

import type { HostId, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { HaRules } from '../model/vm.ts';
import type { RunningVm } from './api.ts';

/** Who reports the VM, and what. */
export type Report = { readonly host: HostId; readonly row: RunningVm };

export class Relations {
  readonly #states = new Map<VmId, ProtectionState>();
  readonly #byName = new Map<string, VmId>();
  readonly #byLabel = new Map<string, Set<VmId>>();
  readonly #report: (vm: VmId) => Report | null;
  readonly #runsElsewhere: (vm: VmId) => boolean;

  /** `runsElsewhere`: a host of another partition of the HA network holds its lock. */
  constructor(report: (vm: VmId) => Report | null, runsElsewhere: (vm: VmId) => boolean) {
    this.#report = report;
    this.#runsElsewhere = runsElsewhere;
  }

  /** Of a VM that is there; null: there is none any more. */
  know(vm: VmId, state: ProtectionState | null): void {
    const before = this.#states.get(vm);
    if (before === state) return; // as mostly
    if (before !== undefined) {
      if (this.#byName.get(before.name) === vm) this.#byName.delete(before.name);
      this.#byLabel.get(before.separate ?? '')?.delete(vm);
      this.#states.delete(vm);
    }
    if (state === null) return;
    this.#states.set(vm, state);
    this.#byName.set(state.name, vm);
    if (state.separate === undefined) return;
    const others = this.#byLabel.get(state.separate) ?? new Set();
    this.#byLabel.set(state.separate, others.add(vm));
  }

  /** Which of the VMs before it does not run yet, in words; null: it need not wait. A VM that nobody will start,
   * because it is switched off or not protected, is not waited for, nor is one that waits for this one. */
  unmet({ name, after = [] }: HaRules & { readonly name: string }): string | null {
    for (const other of after) {
      const vm = this.#byName.get(other);
      const state = vm === undefined ? undefined : this.#states.get(vm);
      if (vm === undefined || state?.protected !== true || this.#waitsFor(state, name)) continue;
      const row = this.#report(vm)?.row;
      if (row === undefined && this.#runsElsewhere(vm)) continue;
      if (row?.state !== 'running') return `${other}, which it starts after, does not run yet`;
      if (state.readyWhen === 'heard' && !row.ready) {
        return `the guest of ${other}, which it starts after, has not been heard yet`;
      }
    }
    return null;
  }

  /** How many VMs of the label each host runs, this one left out. */
  crowd(label: string | undefined, except: VmId): Map<HostId, number> {
    const crowd = new Map<HostId, number>();
    for (const vm of (label === undefined ? undefined : this.#byLabel.get(label)) ?? []) {
      const host = vm === except ? undefined : this.#report(vm)?.host;
      if (host !== undefined) crowd.set(host, (crowd.get(host) ?? 0) + 1);
    }
    return crowd;
  }

  /** In a circle of VMs nobody would ever start. */
  #waitsFor(from: ProtectionState, name: string): boolean {
    const seen = new Set<string>();
    const open = [...(from.after ?? [])];
    for (let other = open.pop(); other !== undefined; other = open.pop()) {
      if (other === name) return true;
      if (seen.has(other)) continue;
      seen.add(other);
      const vm = this.#byName.get(other);
      open.push(...((vm === undefined ? undefined : this.#states.get(vm)?.after) ?? []));
    }
    return false;
  }
}
