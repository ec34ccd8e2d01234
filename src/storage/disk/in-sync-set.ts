// Keeps the in-sync set true to what the components hold: a copy in trouble, or one that lost writes, leaves the
// record before a write is acknowledged without it. The last copy of a stripe never does: its content is the
// disk, and everybody waits for it.

import { type HoldfastError, isError } from '../../model/errors.ts';
import type { ComponentId } from '../../model/ids.ts';
import type { DiskRecord } from '../../model/record.ts';
import type { Timer } from '../../ports/clock.ts';
import type { Copy, LossDecision, Trouble } from './copy.ts';
import { type DiskState, idsOf } from './disk-state.ts';
import type { RecordChanges } from './record-changes.ts';
import { without } from './record-steps.ts';

/** That a copy's device is full is told again after so long. */
const fullAgainMs = 60_000;

export class InSyncSet {
  private readonly state: DiskState;
  private readonly changes: RecordChanges;
  /** The disk is not this writer's any more. */
  private readonly abandon: () => void;
  /** A copy may be brought back. */
  private readonly onAbsent: () => void;
  /** For what has failed, all at once. */
  private retry: Timer | null = null;
  private again: (() => void)[] = [];
  private readonly toldFullAtMs = new Map<ComponentId, number>();

  constructor(
    state: DiskState,
    changes: RecordChanges,
    on: { readonly fenced: () => void; readonly absent: () => void },
  ) {
    this.state = state;
    this.changes = changes;
    this.abandon = on.fenced;
    this.onAbsent = on.absent;
  }

  /** At open: copies that did not answer, or lost writes, leave the record before the first I/O. */
  async dropFromRecord(unusable: readonly Copy[]): Promise<void> {
    if (unusable.length === 0) return;
    const { options, fence } = this.state;
    for (const copy of unusable) copy.state = 'failing';
    const record = await options.change(options.object, (current) =>
      without(current, fence, idsOf(unusable)),
    );
    this.tell(record, unusable, []);
    for (const copy of unusable) this.dropped(copy);
  }

  onTrouble(copy: Copy, trouble: Trouble, error: HoldfastError | null): void {
    const { options, next, isClosed } = this.state;
    if (isClosed) return;
    if (trouble === 'fenced') {
      options.log.warn(`disk ${options.name} was opened by somebody else`);
      this.fenced();
      return;
    }
    if (error?.code === 'disk-full') this.tellFull(copy, error);
    if (next?.has(copy) === true && copy.state === 'syncing') next.lose(copy);
    else if (copy.state === 'syncing') this.forgetSync(copy);
    else if (this.replacement(copy)) this.fail(copy, error?.message ?? trouble);
    else copy.persist();
  }

  /** The copy may have lost writes that were acknowledged and not flushed. */
  onLoss(copy: Copy): LossDecision {
    const { next, isClosed } = this.state;
    if (isClosed) return 'wait';
    if (next?.has(copy) === true && copy.state === 'syncing') {
      next.lose(copy);
      return 'out';
    }
    if (copy.state === 'syncing') {
      this.forgetSync(copy);
      return 'out';
    }
    if (this.replacement(copy)) {
      this.fail(copy, 'it may have lost writes');
      return 'out';
    }
    const others = this.state
      .others(copy)
      .filter((one) => one.state === 'inSync' || one.state === 'joining');
    if (others.some((one) => !one.isLost && !one.isSilent)) return 'wait';
    // Nobody who could be waited for has kept them: what was flushed is here.
    for (const other of others) this.fail(other, 'another copy was chosen after a loss of writes');
    this.writesLost();
    return 'keep';
  }

  /** Whoever has been told of them must not learn what is there now, nor that anything is durable. */
  writesLost(): void {
    if (this.state.isMute) return;
    this.state.isMute = true;
    this.state.options.onWritesLost();
  }

  /** It is not counted, and is not brought back any more for now. */
  forgetSync(copy: Copy): void {
    this.state.syncs.delete(copy.component.id);
    copy.drop();
    this.onAbsent();
  }

  /** Has those that are to go leave the record, if nothing else changes it just now. */
  removeFailing(): void {
    const { state, changes } = this;
    state.options.gate.pass(() => {
      const failing = state.copies.filter((copy) => copy.state === 'failing' && !copy.isReplaced);
      if (state.isClosed || changes.isBusy || failing.length === 0) return;
      changes.attempt(
        (current) => without(current, state.fence, idsOf(failing)),
        (record) => {
          this.tell(record, failing, []);
          for (const copy of failing) this.dropped(copy);
          for (const mirror of state.mirrors) mirror.retryReads();
          this.removeFailing();
        },
        (error) => this.changeFailed(error),
      );
    });
  }

  /** Calls back when a change that has failed is to be tried again, if it is. */
  changeFailed(error: unknown, again: (() => void) | null = null): void {
    const { isClosed, options } = this.state;
    if (isClosed) return;
    if (isError(error, 'fenced')) {
      this.fenced();
      return;
    }
    options.log.warn(`in-sync set of ${options.name} could not be changed: ${String(error)}`);
    if (again !== null) this.again.push(again);
    this.retry ??= options.clock.after(options.timings.heartbeatIntervalMs / 2, () => {
      this.retry = null;
      const all = this.again;
      this.again = [];
      for (const one of all) one();
      this.removeFailing();
    });
  }

  /** To the probe only: the record is committed, and nothing has been made of it. */
  tell(record: DiskRecord, removed: readonly Copy[], added: readonly Copy[]): void {
    const { probe, object } = this.state.options;
    probe.reached({
      at: 'disk.inSyncChanged',
      object,
      inSync: record.inSync,
      removed: [...idsOf(removed)],
      added: [...idsOf(added)],
    });
  }

  /** It is tried again twice a second. */
  private tellFull(copy: Copy, error: HoldfastError): void {
    const { clock, name, onEvent } = this.state.options;
    const now = clock.now();
    const told = this.toldFullAtMs.get(copy.component.id);
    if (told !== undefined && now - told < fullAgainMs) return;
    this.toldFullAtMs.set(copy.component.id, now);
    onEvent('full', `${name}: ${error.message}`);
  }

  private fenced(): void {
    this.abandon();
    this.state.options.onFenced();
  }

  /** Whether another copy can serve alone. */
  private replacement(copy: Copy): boolean {
    const { reconciling, mirrors } = this.state;
    const others = this.state.others(copy).filter((one) => one.isReady);
    if (others.some((one) => one.state === 'inSync')) return true;
    const next = others.find((one) => reconciling.has(one) && one.state === 'joining');
    if (next === undefined) return false;
    next.state = 'inSync';
    for (const mirror of mirrors) mirror.retryReads();
    return true;
  }

  private fail(copy: Copy, reason: string): void {
    const { log, name, object } = this.state.options;
    copy.state = 'failing';
    copy.isReady = false;
    log.warn(`the copy of ${name} on ${copy.component.host} is to go: ${reason}`, { object });
    this.removeFailing();
  }

  private dropped(copy: Copy): void {
    const { onEvent, name } = this.state.options;
    this.forgetSync(copy);
    onEvent('copyLost', `The copy of ${name} on ${copy.component.host} does not count any more`);
  }
}
