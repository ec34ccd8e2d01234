// One stripe of a disk with all its copies (RAID 1). A write goes to every copy that counts and is
// acknowledged when all have it; a read comes from a copy in sync, the local one if there is one.
// What to do about a copy in trouble is the disk's decision; until it is made, requests wait.

import type { HoldfastError } from '../../model/errors.ts';
import { limits } from '../../model/limits.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Copy } from './copy.ts';
import { createRangeLocks } from './range-locks.ts';

/** Lets requests through while the lease is valid. */
export interface Gate {
  isOpen(): boolean;
  /** Calls back when it is open, at once if it is. */
  pass(proceed: () => void): void;
}

interface Dirty {
  /** Changes with every write to the region. */
  writes: number;
  inFlight: number;
  lastWriteAtMs: number;
}

export class Mirror {
  readonly copies: readonly Copy[];
  private readonly locks = createRangeLocks();
  /** Regions whose copies may differ, or whose data may not be durable on all of them. */
  private readonly dirty = new Map<number, Dirty>();
  private waitingReads: (() => void)[] = [];
  private readonly clock: Clock;
  private readonly gate: Gate;
  private readonly onDirty: () => void;
  private clearing = false;

  /** `onDirty`: there is a region to be cleared later, and there was none. */
  constructor(copies: readonly Copy[], clock: Clock, gate: Gate, onDirty: () => void) {
    this.copies = copies;
    this.clock = clock;
    this.gate = gate;
    this.onDirty = onDirty;
  }

  read(offset: number, length: number, done: (bytes: Uint8Array) => void): void {
    this.locks.acquire(offset, length, false, (release) => {
      this.readLocked(offset, length, (bytes) => {
        release();
        done(bytes);
      });
    });
  }

  write(offset: number, bytes: Uint8Array, fua: boolean, done: () => void): void {
    this.locks.acquire(offset, bytes.length, true, (release) => {
      this.gate.pass(() => {
        const finished = this.mark(offset, bytes.length);
        const targets = this.targets();
        if (targets.length === 0) throw new Error('a mirror without a copy that counts');
        this.toAll(
          targets,
          (copy, landed) => copy.write(offset, bytes, fua, landed),
          () => {
            finished();
            release();
            done();
          },
        );
      });
    });
  }

  flush(done: () => void): void {
    this.gate.pass(() => {
      this.toAll(this.targets(), (copy, landed) => copy.flush(landed), done);
    });
  }

  /** Adds regions in which the copies may differ, as their bitmaps say. */
  markDirty(regions: readonly number[]): void {
    for (const region of regions) {
      if (!this.dirty.has(region)) {
        this.dirty.set(region, { writes: 0, inFlight: 0, lastWriteAtMs: this.clock.now() });
        if (this.dirty.size === 1) this.onDirty();
      }
    }
  }

  get isDirty(): boolean {
    return this.dirty.size > 0;
  }

  dirtyRegions(): number[] {
    return [...this.dirty.keys()];
  }

  /**
   * Makes copies equal that the last writer may have left different: the regions are closed to
   * requests now, and opened one by one when the targets hold durably what the copy in sync holds.
   */
  reconcile(regions: readonly number[], targets: readonly Copy[], done: () => void): void {
    const closed = regions.map((region) => {
      const entry = { region, release: () => {} };
      this.lockRegion(region, (release) => {
        entry.release = release;
      });
      return entry;
    });
    const step = (index: number) => {
      const entry = closed[index];
      if (entry === undefined) return done();
      this.copyRegion(entry.region, targets, true, () => {
        entry.release();
        step(index + 1);
      });
    };
    step(0);
  }

  /** Brings a copy up to date, region by region, while requests go on. */
  resync(
    regions: readonly number[],
    target: Copy,
    isWanted: () => boolean,
    progress: (left: number) => void,
    done: () => void,
  ): void {
    const step = (index: number) => {
      const region = regions[index];
      if (region === undefined || !isWanted()) return done();
      progress(regions.length - index);
      this.lockRegion(region, (release) => {
        this.copyRegion(region, [target], false, () => {
          release();
          step(index + 1);
        });
      });
    };
    step(0);
  }

  /** A copy is ready again: reads that found none try once more. */
  retryReads(): void {
    const waiting = this.waitingReads;
    this.waitingReads = [];
    for (const retry of waiting) retry();
  }

  /** Clears the intent of regions that have been quiet and are durable on every copy. */
  clearQuiet(quietMs: number): void {
    if (this.clearing || !this.gate.isOpen() || !this.isWhole()) return;
    const before = this.clock.now() - quietMs;
    const quiet = [...this.dirty]
      .filter(([, dirty]) => dirty.inFlight === 0 && dirty.lastWriteAtMs <= before)
      .map(([region, dirty]) => ({ region, writes: dirty.writes }));
    if (quiet.length === 0) return;
    this.clearing = true;
    this.toAll(
      [...this.copies],
      (copy, landed) => copy.flush(landed),
      () => {
        this.clearing = false;
        if (!this.isWhole()) return;
        const regions = quiet
          .filter(({ region, writes }) => {
            const dirty = this.dirty.get(region);
            return dirty?.inFlight === 0 && dirty.writes === writes;
          })
          .map(({ region }) => region);
        for (const region of regions) this.dirty.delete(region);
        if (regions.length > 0) for (const copy of this.copies) copy.clearIntent(regions);
      },
    );
  }

  /** Every copy of the blueprint is in sync and answers. */
  isWhole(): boolean {
    return this.copies.every((copy) => copy.state === 'inSync' && copy.isReady);
  }

  private targets(): Copy[] {
    return this.copies.filter((copy) => copy.state !== 'absent');
  }

  private rangeOf(region: number): { offset: number; length: number } {
    const offset = region * limits.regionBytes;
    const size = this.copies[0]?.component.sizeBytes ?? 0;
    return { offset, length: Math.max(0, Math.min(limits.regionBytes, size - offset)) };
  }

  private lockRegion(region: number, locked: (release: () => void) => void): void {
    const { offset, length } = this.rangeOf(region);
    this.locks.acquire(offset, length, true, locked);
  }

  /** From a copy in sync to those targets that are not; the region is locked. */
  private copyRegion(
    region: number,
    targets: readonly Copy[],
    durable: boolean,
    done: () => void,
  ): void {
    const { offset, length } = this.rangeOf(region);
    const behind = () =>
      targets.filter((copy) => copy.state !== 'absent' && copy.state !== 'inSync');
    if (length === 0 || behind().length === 0) return done();
    this.readLocked(offset, length, (bytes) => {
      const flush = () => {
        if (durable) this.toAll(behind(), (copy, landed) => copy.flush(landed), done);
        else done();
      };
      this.toAll(behind(), (copy, landed) => copy.write(offset, bytes, false, landed), flush);
    });
  }

  private toAll(
    copies: readonly Copy[],
    submit: (copy: Copy, landed: () => void) => void,
    done: () => void,
  ): void {
    let missing = copies.length;
    if (missing === 0) return done();
    const landed = () => {
      missing -= 1;
      if (missing === 0) done();
    };
    for (const copy of copies) submit(copy, landed);
  }

  private readLocked(offset: number, length: number, done: (bytes: Uint8Array) => void): void {
    this.gate.pass(() => {
      const ready = this.copies.filter((copy) => copy.state === 'inSync' && copy.isReady);
      const source = ready.find((copy) => copy.isLocal) ?? ready[0];
      const again = () => this.readLocked(offset, length, done);
      if (source === undefined) {
        this.waitingReads.push(again);
        return;
      }
      source.read(offset, length, (error: HoldfastError | null, bytes) => {
        if (error !== null || source.state !== 'inSync') again();
        // What was read counts only if the lease still holds: otherwise somebody else may have
        // written since, without this copy.
        else if (this.gate.isOpen()) done(bytes);
        else again();
      });
    });
  }

  private mark(offset: number, length: number): () => void {
    const touched: Dirty[] = [];
    const first = Math.floor(offset / limits.regionBytes);
    const last = Math.floor((offset + Math.max(1, length) - 1) / limits.regionBytes);
    for (let region = first; region <= last; region += 1) {
      let dirty = this.dirty.get(region);
      if (dirty === undefined) {
        dirty = { writes: 0, inFlight: 0, lastWriteAtMs: 0 };
        this.dirty.set(region, dirty);
        if (this.dirty.size === 1) this.onDirty();
      }
      dirty.writes += 1;
      dirty.inFlight += 1;
      touched.push(dirty);
    }
    return () => {
      for (const dirty of touched) {
        dirty.inFlight -= 1;
        dirty.lastWriteAtMs = this.clock.now();
      }
    };
  }
}
