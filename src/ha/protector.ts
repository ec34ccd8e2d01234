// The master's part of protection: what agents report is remembered in memory and SET into the VM's
// namespace object, on condition that the lock is held at the reported epoch. A SET that fails is
// repeated with back-off and when the object becomes accessible; one whose condition does not hold is
// forgotten: the VM was switched off or has another holder, and that one reports for itself.

import { asHoldfastError } from '../model/errors.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Random } from '../ports/random.ts';
import { haLimits } from './limits.ts';
import type { ProtectReport, UnprotectReport } from './messages.ts';
import type { Sight } from './sight.ts';

interface Pending {
  readonly report: ProtectReport;
  attempts: number;
  inFlight: boolean;
  dueMs: number;
  /** The trouble that was told last. */
  said: string;
}

export class Protector {
  readonly #sight: Pick<Sight, 'protect'>;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #probe: Probe;
  /** Called after each SET has ended, for what to do next. */
  readonly #onSettled: () => void;
  readonly #pending = new Map<VmId, Pending>();
  #closed = false;

  constructor(options: {
    readonly sight: Pick<Sight, 'protect'>;
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Log;
    readonly probe: Probe;
    readonly onSettled: () => void;
  }) {
    this.#sight = options.sight;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#log = options.log;
    this.#probe = options.probe;
    this.#onSettled = options.onSettled;
  }

  report(from: HostId, report: ProtectReport): void {
    const known = this.#pending.get(report.vm);
    if (known !== undefined && known.report.epoch >= report.epoch) return;
    this.#log.debug(`${report.name}: to be protected at epoch ${report.epoch}, says ${from}`, {
      vm: report.vm,
    });
    this.#pending.set(report.vm, { report, attempts: 0, inFlight: false, dueMs: 0, said: '' });
  }

  forget(report: UnprotectReport): void {
    const known = this.#pending.get(report.vm);
    if (known !== undefined && known.report.epoch <= report.epoch) this.#pending.delete(report.vm);
  }

  storageChanged(vms: readonly VmId[]): void {
    for (const vm of vms) {
      const pending = this.#pending.get(vm);
      if (pending !== undefined) pending.dueMs = 0;
    }
  }

  advance(nowMs: number): void {
    for (const pending of this.#pending.values()) {
      if (!pending.inFlight && pending.dueMs <= nowMs) void this.#set(pending);
    }
  }

  nextWakeMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const pending of this.#pending.values()) {
      if (!pending.inFlight) next = Math.min(next, pending.dueMs);
    }
    return next;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /** The master abdicated: what is in flight may still commit, nothing is repeated. */
  close(): void {
    this.#closed = true;
    this.#pending.clear();
  }

  async #set(pending: Pending): Promise<void> {
    const { vm, name, epoch, priority, memoryBytes, cpus } = pending.report;
    const value: ProtectionState = { protected: true, epoch, priority, memoryBytes, cpus };
    pending.inFlight = true;
    let problem = null;
    try {
      await this.#sight.protect(vm, value);
      this.#probe.reached({ at: 'protection.set', vm, protected: true, epoch });
    } catch (error) {
      problem = asHoldfastError(error);
    }
    if (this.#closed) return;
    pending.inFlight = false;
    const isCurrent = this.#pending.get(vm) === pending; // else a newer epoch was reported, or none
    if (problem === null || problem.code === 'conflict' || problem.code === 'unknown-vm') {
      if (isCurrent) this.#pending.delete(vm);
      const outcome =
        problem === null ? `protected (epoch ${epoch})` : `not protected: ${problem.message}`;
      this.#log.info(`${name}: ${outcome}`, { vm, epoch });
    } else {
      pending.attempts += 1;
      pending.dueMs = this.#clock.now() + this.#backOff(pending.attempts);
      const isNews = pending.said !== problem.message;
      pending.said = problem.message;
      const text = `${name}: could not be protected yet: ${problem.message}`;
      this.#log[isNews ? 'warn' : 'debug'](text, { vm, epoch });
    }
    this.#onSettled();
  }

  #backOff(attempt: number): number {
    const wholeMs = haLimits.protectRetryMinMs * 2 ** Math.min(attempt - 1, 10);
    return Math.min(haLimits.protectRetryMaxMs, wholeMs) * (0.5 + this.#random.next() / 2);
  }
}
