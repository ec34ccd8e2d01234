// How often in a row it failed to have a VM run: starts that failed, and guests that ended soon after a
// start. From these counts come the pauses between the attempts. They are kept in the VM's own metadata,
// so that a new master goes on counting where the last one stopped, and are removed from there when nothing has
// been wrong with the VM for a while.

import type { VmId } from '../model/ids.ts';
import { type Attempts, noAttempts } from '../model/restart.ts';
import { haLimits } from './limits.ts';

interface Row {
  attempts: Attempts;
  /** As the VM's record has them, as far as is known. */
  recorded: Attempts;
  /** Since when nothing is wrong with it: it was started, or its record was read; null: it is missing. */
  fineSinceMs: number | null;
  /** A start of it by this master has been acknowledged. */
  started: boolean;
  isSaving: boolean;
  saveAtMs: number;
}

/** To be recorded; null: no count is to stand there. */
export interface AttemptsToSave {
  readonly vm: VmId;
  readonly attempts: Attempts | null;
}

/** What took a VM away from where it ran; `unknown`: where that was nobody knows. */
type Loss = 'guest' | 'host' | 'unknown';

export class AttemptLog {
  readonly #rows = new Map<VmId, Row>();
  /** Those of which the record does not say what is counted. */
  readonly #unsaved = new Set<VmId>();
  #sweepAtMs = Number.POSITIVE_INFINITY;

  /** What its record says; what this master has counted itself is newer. */
  know(vm: VmId, recorded: Attempts, nowMs: number): void {
    if (isSame(recorded, noAttempts) || this.#rows.has(vm)) return;
    const row = this.#row(vm, nowMs);
    row.attempts = recorded;
    row.recorded = recorded;
    row.fineSinceMs = nowMs;
  }

  failed(vm: VmId): number {
    return this.#rows.get(vm)?.attempts.failed ?? 0;
  }

  /** Its guest ended soon after its last start. */
  hasEndedSoon(vm: VmId): boolean {
    return (this.#rows.get(vm)?.attempts.endedSoon ?? 0) > 0;
  }

  startFailed(vm: VmId, nowMs: number): void {
    const row = this.#row(vm, nowMs);
    this.#count(vm, row, { ...row.attempts, failed: row.attempts.failed + 1 });
  }

  started(vm: VmId, nowMs: number): void {
    const row = this.#row(vm, nowMs);
    row.fineSinceMs = nowMs;
    row.started = true;
    this.#count(vm, row, { ...row.attempts, failed: 0 });
  }

  /** Returns how long to wait before it is started again, because its guest keeps ending. `atMs`: when there was the
   * last sign of it. */
  missing(vm: VmId, loss: Loss, atMs: number): number {
    const row = this.#rows.get(vm);
    if (row === undefined) return 0;
    const { started, fineSinceMs, attempts } = row;
    const isSoon = fineSinceMs !== null && atMs - fineSinceMs < haLimits.settledMs;
    row.fineSinceMs = null;
    if (!isSoon) this.#count(vm, row, noAttempts);
    else if (started && loss === 'guest')
      this.#count(vm, row, { ...attempts, endedSoon: attempts.endedSoon + 1 });
    if (started ? loss !== 'guest' : loss === 'host') return 0;
    const over = row.attempts.endedSoon - haLimits.quickFailures;
    if (over < 0) return 0;
    return Math.min(haLimits.quickPauseMaxMs, haLimits.quickPauseMinMs * 2 ** over);
  }

  /** It is missing no more: somebody runs it, or it shall not run. */
  over(vm: VmId, nowMs: number): void {
    const row = this.#rows.get(vm);
    if (row === undefined) return;
    row.fineSinceMs ??= nowMs;
    this.#count(vm, row, { ...row.attempts, failed: 0 });
  }

  /** What is to be recorded now. Nothing of it is urgent: to be asked at every turn. */
  toSave(nowMs: number): AttemptsToSave[] {
    if (nowMs >= this.#sweepAtMs) this.#sweep(nowMs);
    return [...this.#unsaved].flatMap((vm) => {
      const row = this.#rows.get(vm) as Row;
      if (row.isSaving || nowMs < row.saveAtMs) return [];
      row.isSaving = true;
      return [{ vm, attempts: isSame(row.attempts, noAttempts) ? null : row.attempts }];
    });
  }

  saved({ vm, attempts }: AttemptsToSave, isDone: boolean, nowMs: number): void {
    const row = this.#rows.get(vm) as Row; // what is not saved is kept
    row.isSaving = false;
    if (isDone) row.recorded = attempts ?? noAttempts;
    else row.saveAtMs = nowMs + haLimits.saveAgainMs;
    this.#count(vm, row, row.attempts);
  }

  #count(vm: VmId, row: Row, attempts: Attempts): void {
    row.attempts = attempts;
    if (isSame(attempts, row.recorded) && !row.isSaving) this.#unsaved.delete(vm);
    else this.#unsaved.add(vm);
  }

  #sweep(nowMs: number): void {
    for (const [vm, row] of this.#rows) {
      if (row.fineSinceMs === null || nowMs - row.fineSinceMs < haLimits.forgetMs) continue;
      this.#count(vm, row, noAttempts);
      if (!this.#unsaved.has(vm)) this.#rows.delete(vm);
    }
    this.#sweepAtMs = this.#rows.size === 0 ? Number.POSITIVE_INFINITY : nowMs + haLimits.sweepMs;
  }

  #row(vm: VmId, nowMs: number): Row {
    const known = this.#rows.get(vm);
    if (known !== undefined) return known;
    const row: Row = {
      attempts: noAttempts,
      recorded: noAttempts,
      fineSinceMs: null,
      started: false,
      isSaving: false,
      saveAtMs: nowMs,
    };
    this.#rows.set(vm, row);
    this.#sweepAtMs = Math.min(this.#sweepAtMs, nowMs + haLimits.sweepMs);
    return row;
  }
}

function isSame(a: Attempts, b: Attempts): boolean {
  return a.failed === b.failed && a.endedSoon === b.endedSoon;
}
