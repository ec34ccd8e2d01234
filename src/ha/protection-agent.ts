// The agent's part of protection: every VM that runs here and shall be protected is reported to the
// master, to each new master again, until the directory shows its protection committed for the epoch
// at which it runs. It starts from what runs, not from the power-on alone, so that neither a restarted
// daemon nor a lost message leaves a VM unprotected.

import type { Epoch, HostId, VmId } from '../model/ids.ts';
import { rulesOf } from '../model/vm.ts';
import type { VmView } from '../storage/api.ts';
import type { RunningVm } from './api.ts';
import { haLimits } from './limits.ts';
import type { ProtectReport, UnprotectReport } from './messages.ts';
import type { ProtectionView } from './protection-view.ts';

interface Wanted {
  readonly epoch: Epoch;
  /** It has been in the list of what runs here; when it leaves that, it is of no concern. */
  seenRunning: boolean;
  committed: boolean;
  reportedTo: string | null;
  reportAgainMs: number;
}

interface ProtectionAgentPorts {
  running(): readonly RunningVm[];
  vm(vm: VmId): VmView | null;
  /** The master to report to, with its term; null while there is none. */
  master(): { readonly host: HostId; readonly name: string } | null;
  report(master: HostId, report: ProtectReport): void;
  forget(master: HostId, report: UnprotectReport): void;
  /** The directory shows it protected at the epoch at which it runs here. */
  onProtected(vm: VmId, name: string): void;
}

export class ProtectionAgent {
  readonly #ports: ProtectionAgentPorts;
  readonly #view: ProtectionView;
  readonly #wanted = new Map<VmId, Wanted>();
  /** VMs that were switched off here, up to which epoch, while they may still be in the list. */
  readonly #ended = new Map<VmId, Epoch>();

  constructor(ports: ProtectionAgentPorts, view: ProtectionView) {
    this.#ports = ports;
    this.#view = view;
  }

  poweredOn(vm: VmId, epoch: Epoch): void {
    if (epoch <= (this.#ended.get(vm) ?? -1)) return;
    const known = this.#wanted.get(vm);
    if (known !== undefined && known.epoch >= epoch) return;
    this.#wanted.set(vm, {
      epoch,
      seenRunning: false,
      committed: false,
      reportedTo: null,
      reportAgainMs: 0,
    });
  }

  poweredOff(vm: VmId, epoch: Epoch): void {
    this.#ended.set(vm, epoch);
    const known = this.#wanted.get(vm);
    if (known === undefined || known.epoch > epoch) return;
    this.#wanted.delete(vm);
    const master = this.#ports.master();
    if (master !== null && !known.committed) this.#ports.forget(master.host, { vm, epoch });
  }

  /** Whether a change of the VM is of any concern here. */
  isConcerned(vm: VmId): boolean {
    return this.#wanted.has(vm);
  }

  /** How far the protection is of a VM that runs here; null: it does not. */
  stateOf(vm: VmId): 'committed' | 'pending' | null {
    const wanted = this.#wanted.get(vm);
    return wanted === undefined ? null : wanted.committed ? 'committed' : 'pending';
  }

  /** Brings what is wanted in line with what runs, and reports what is not committed. `news`: of which
   * VMs something was heard since the last time; null: it is not known of which. */
  review(nowMs: number, news: ReadonlySet<VmId> | null = null): void {
    this.#followRunning();
    // What was committed and not heard of is committed still: most of a hundred VMs.
    const open = [...this.#wanted].filter(
      ([vm, { committed }]) => !committed || news === null || news.has(vm),
    );
    if (open.length === 0) return;
    const states = this.#view.of(open.map(([vm]) => vm));
    for (const [vm, wanted] of open) {
      const state = states.get(vm);
      if (state !== undefined) {
        const isCommitted = state.protected && state.epoch === wanted.epoch;
        if (isCommitted && !wanted.committed) {
          this.#ports.onProtected(vm, this.#ports.vm(vm)?.name ?? vm);
        }
        wanted.committed = isCommitted;
      }
      if (!wanted.committed) this.#report(vm, wanted, nowMs);
    }
  }

  nextWakeMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const wanted of this.#wanted.values()) {
      if (!wanted.committed && wanted.reportedTo !== null)
        next = Math.min(next, wanted.reportAgainMs);
    }
    return next;
  }

  #followRunning(): void {
    const running = new Map(this.#ports.running().map((vm) => [vm.vm, vm]));
    for (const [vm, { epoch, state }] of running) {
      if (state === 'running' || state === 'paused') this.poweredOn(vm, epoch);
      const wanted = this.#wanted.get(vm);
      if (wanted !== undefined) wanted.seenRunning = true;
    }
    for (const [vm, wanted] of this.#wanted) {
      if (wanted.seenRunning && !running.has(vm)) this.#wanted.delete(vm);
    }
    for (const vm of this.#ended.keys()) if (!running.has(vm)) this.#ended.delete(vm);
  }

  #report(vm: VmId, wanted: Wanted, nowMs: number): void {
    const view = this.#ports.vm(vm);
    if (view === null || !view.spec.protected) return;
    const master = this.#ports.master();
    if (master === null) return; // its successor will hear of it
    if (wanted.reportedTo === master.name && nowMs < wanted.reportAgainMs) return;
    wanted.reportedTo = master.name;
    wanted.reportAgainMs = nowMs + haLimits.reportAgainMs;
    const { memoryBytes, cpus } = view.spec;
    this.#ports.report(master.host, {
      ...{ vm, name: view.name, epoch: wanted.epoch, memoryBytes, cpus },
      ...rulesOf(view.spec),
    });
  }
}
