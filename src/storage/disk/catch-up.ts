// Copies that are behind: made equal after a crash of the last writer, brought back when they have been absent,
// and, while nothing is written, relieved of bits that say they might be.

import type { Timer } from '../../ports/clock.ts';
import type { Copy } from './copy.ts';
import type { Attempt, DiskState } from './disk-state.ts';
import type { InSyncSet } from './in-sync-set.ts';
import type { Mirror } from './mirror.ts';
import { Pace } from './pace.ts';
import { ProgressMeter } from './progress.ts';
import type { RecordChanges } from './record-changes.ts';
import { joined } from './record-steps.ts';

export class CatchUp {
  private readonly state: DiskState;
  private readonly changes: RecordChanges;
  private readonly inSync: InSyncSet;
  private timer: Timer | null = null;
  /** When it is next looked after the copies, if there is need; null while the disk is being opened. */
  private nextLookMs: number | null = null;

  constructor(state: DiskState, changes: RecordChanges, inSync: InSyncSet) {
    this.state = state;
    this.changes = changes;
    this.inSync = inSync;
  }

  /** Makes all in-sync copies equal, and what they hold durable, where the last writer may have left them otherwise. */
  reconcile(mirror: Mirror): void {
    const { reconciling } = this.state;
    const counting = mirror.copies.filter((copy) => copy.state === 'inSync');
    const source = counting.find((copy) => copy.isLocal) ?? counting[0];
    const targets = counting.filter((copy) => copy !== source);
    const regions = mirror.dirtyRegions();
    if (regions.length === 0) return;
    // Until then only the source is read, and nothing at all from these regions: should the source
    // fail meanwhile, a target may take its place, because nobody has seen what it alone held.
    for (const target of targets) {
      target.state = 'joining';
      reconciling.add(target);
    }
    mirror.reconcile(regions, targets, () => {
      for (const target of targets) {
        reconciling.delete(target);
        if (target.state === 'joining') target.state = 'inSync';
      }
      mirror.retryReads();
      // Where there was nothing to copy, nobody has looked at them.
      if (targets.length === 0) mirror.settle(regions, null);
    });
  }

  /** The disk is open. */
  begin(): void {
    const { clock, timings } = this.state.options;
    this.nextLookMs = clock.now() + timings.resyncRetryMs;
    this.look();
  }

  end(): void {
    this.timer?.cancel();
  }

  /**
   * As long as there is something to do, once per interval: bits are cleared, absent copies are brought
   * back. To be called when there may be. (A timer for each open disk, whether it is written to or
   * not, is 10,000 events per second with 10,000 VMs.)
   */
  look(): void {
    const { state } = this;
    const { clock, timings, gate } = state.options;
    if (state.isClosed || this.timer !== null || this.nextLookMs === null) return;
    if (!state.mirrors.some((mirror) => mirror.isDirty || mirror.copies.some(isAbsent))) return;
    // Where intervals went by with nothing to do it keeps to their beat.
    const intervalMs = timings.resyncRetryMs;
    const lateMs = clock.now() - this.nextLookMs;
    if (lateMs >= 0) this.nextLookMs += (Math.floor(lateMs / intervalMs) + 1) * intervalMs;
    this.timer = clock.after(Math.max(0, this.nextLookMs - clock.now()), () => {
      this.timer = null;
      if (state.isClosed) return;
      this.nextLookMs = clock.now() + intervalMs;
      for (const mirror of state.mirrors) {
        mirror.clearQuiet(timings.bitmapClearMs);
        for (const copy of mirror.copies) {
          if (isAbsent(copy) && gate.isOpen()) this.bringBack(mirror, copy);
        }
      }
      this.look();
    });
  }

  private bringBack(mirror: Mirror, copy: Copy): void {
    const { syncs, options, load } = this.state;
    const { clock } = options;
    const { id, host } = copy.component;
    if (syncs.has(id) || copy.isReplaced || !options.peer.isConnected(host)) return;
    const attempt: Attempt = { meter: null };
    syncs.set(id, attempt);
    // False from the moment on at which the copy is dropped: what this attempt did is void then.
    const isCurrent = () => !this.state.isClosed && syncs.get(id) === attempt;
    copy.take((error, _mayHaveLost, regions) => {
      if (!isCurrent()) return;
      if (error !== null) {
        syncs.delete(id);
        return;
      }
      // From here on it gets every write; what it missed is in the union of the bits.
      copy.state = 'syncing';
      mirror.markDirty(regions);
      const missed = mirror.dirtyRegions();
      options.onEvent(
        'resync',
        `The copy of ${options.name} on ${host} is being brought up to date (${missed.length} regions)`,
      );
      const meter = new ProgressMeter(clock, mirror.bytesOf(missed));
      attempt.meter = meter;
      const pace = new Pace(clock, load);
      mirror.resync(missed, copy, { isWanted: isCurrent, pace, meter }, () => {
        if (isCurrent()) copy.flush(() => this.join(mirror, copy, isCurrent));
      });
    });
  }

  /** The copy holds all: the record shall count it again. */
  private join(mirror: Mirror, copy: Copy, isCurrent: () => boolean): void {
    if (!isCurrent() || (copy.state !== 'syncing' && copy.state !== 'joining')) return;
    const { syncs, options, fence } = this.state;
    const { id, host } = copy.component;
    const again = () => this.join(mirror, copy, isCurrent);
    if (this.changes.isBusy) {
      options.clock.after(options.timings.heartbeatIntervalMs / 10, again);
      return;
    }
    copy.state = 'joining';
    options.probe.reached({ at: 'resync.joining', object: options.object, component: id });
    this.changes.attempt(
      (current) => joined(current, fence, id),
      (record) => {
        this.inSync.tell(record, [], [copy]);
        if (copy.state === 'joining') {
          copy.state = 'inSync';
          syncs.delete(id);
          mirror.retryReads();
          options.onEvent(
            'copyRestored',
            `The copy of ${options.name} on ${host} is in sync again`,
          );
        }
        this.inSync.removeFailing();
      },
      (error) =>
        // The record may count it already: it stays a target of every write until that is known.
        this.inSync.changeFailed(error, again),
    );
  }
}

function isAbsent(copy: Copy): boolean {
  return copy.state === 'absent';
}
