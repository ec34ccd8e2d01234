// One stripe of a disk with all its copies (RAID 1). A write goes to every copy that counts and is
// acknowledged when all have it; a read comes from a copy in sync, the local one if there is one.
// What to do about a copy in trouble is the disk's decision; until it is made, requests wait.

import type { HoldfastError } from '../../model/errors.ts';
import { limits } from '../../model/limits.ts';
import type { Clock } from '../../ports/clock.ts';
import type { ZeroOptions } from './block-device.ts';
import { type Copy, isOfBlock } from './copy.ts';
import type { Pace } from './pace.ts';
import type { ProgressMeter } from './progress.ts';
import { createRangeLocks } from './range-locks.ts';
import { type BadBlock, type Repairing, readBlockwise, type Sources } from './read-blockwise.ts';
import { zeroRuns } from './zero-runs.ts';

/** Lets requests through while the lease is valid. */
export interface Gate {
  isOpen(): boolean;
  /** Calls back when it is open, at once if it is. */
  pass(proceed: () => void): void;
}

/** The most that one message zeroes: what is only unmapped is quick, what is written takes as long as
 * a write does, and a component that does not answer in time counts as silent. */
export const zeroPieceBytes = { unmapped: 64 * 1024 * 1024, written: 4 * 1024 * 1024 } as const;

const usual: Sources = { also: [], first: null };

interface Dirty {
  /** Changes with every write to the region. */
  writes: number;
  inFlight: number;
  lastWriteAtMs: number;
}

export class Mirror {
  readonly copies: Copy[];
  private readonly locks = createRangeLocks();
  /** Regions whose copies may differ, or whose data may not be durable on all of them. */
  private readonly dirty = new Map<number, Dirty>();
  private waitingReads: (() => void)[] = [];
  private readonly clock: Clock;
  private readonly gate: Gate;
  private readonly onDirty: () => void;
  private readonly canUnmap: boolean;
  private readonly mayBeEmpty: boolean;
  private readonly repairing: Repairing;
  private clearing = false;

  constructor(
    copies: Copy[],
    options: {
      readonly clock: Clock;
      readonly gate: Gate;
      /** Space may be given back. */
      readonly canUnmap: boolean;
      /** It is part of a tree that may be given up: then nobody needs what is written to it. */
      readonly mayBeEmpty?: boolean;
      /** There is a region to be cleared later, and there was none. */
      readonly onDirty: () => void;
      readonly onBadBlock: Repairing['tell'];
    },
  ) {
    this.copies = copies;
    this.clock = options.clock;
    this.gate = options.gate;
    this.canUnmap = options.canUnmap;
    this.mayBeEmpty = options.mayBeEmpty ?? false;
    this.onDirty = options.onDirty;
    this.repairing = {
      copies,
      gate: this.gate,
      wait: (retry) => this.waitingReads.push(retry),
      mark: (offset, length) => this.mark(offset, length),
      tell: options.onBadBlock,
    };
  }

  replace(old: Copy, added: Copy): void {
    this.copies[this.copies.indexOf(old)] = added;
  }

  add(copy: Copy): void {
    this.copies.push(copy);
  }

  /** It is no copy of this stripe any more. */
  remove(copy: Copy): void {
    this.copies.splice(this.copies.indexOf(copy), 1);
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    this.lockBlocks(offset, length, false, (release) => {
      this.readLocked(offset, length, usual, (bytes, bad) => {
        release();
        done(bad[0]?.error ?? null, bytes);
      });
    });
  }

  /** Somebody has found this block of the copy not to be what was written: it is looked at, with no
   * write under way, and replaced from another copy where that is so. */
  verify(copy: Copy, offset: number): void {
    const { blockBytes } = limits;
    const { sizeBytes } = copy.component;
    if (copy.state !== 'inSync' || offset < 0 || offset >= sizeBytes || offset % blockBytes !== 0) {
      return;
    }
    this.lockBlocks(offset, blockBytes, false, (release) => {
      const length = Math.min(blockBytes, sizeBytes - offset);
      const range = { offset, length, sizeBytes };
      readBlockwise(this.repairing, range, { also: [], first: copy }, release);
    });
  }

  /**
   * Reads the regions, from this copy if it can be: a crash of its host may have left blocks in them that
   * do not match their checksums. What is right is found out before anything clears the bits.
   */
  settle(regions: readonly number[], copy: Copy | null): void {
    const step = (index: number) => {
      const region = regions[index];
      if (region === undefined) return;
      const { offset, length } = this.rangeOf(region);
      if (length === 0) return;
      this.lockBlocks(offset, length, false, (release) => {
        this.readLocked(offset, length, { also: [], first: copy }, () => {
          release();
          step(index + 1);
        });
      });
    };
    step(0);
  }

  write(offset: number, bytes: Uint8Array, fua: boolean, done: () => void): void {
    this.change(
      offset,
      bytes.length,
      (copy, landed) => copy.write(offset, bytes, fua, landed),
      done,
    );
  }

  /** Zeroes piece by piece, each of them as a write: all copies do the same, to the same bytes. */
  zero(offset: number, length: number, options: ZeroOptions, done: () => void): void {
    const unmap = options.unmap && this.canUnmap;
    const most = unmap ? zeroPieceBytes.unmapped : zeroPieceBytes.written;
    const isOne = length <= most;
    // Of many pieces all are made durable at once.
    const piecewise = { unmap, fua: options.fua && isOne };
    const end = offset + length;
    const step = (at: number) => {
      if (at === end) return options.fua && !isOne ? this.flush(done) : done();
      const piece = Math.min(most, end - at);
      this.change(
        at,
        piece,
        (copy, landed) => copy.zero(at, piece, piecewise, landed),
        () => step(at + piece),
      );
    };
    step(offset);
  }

  /** Nobody knows what these blocks should be. */
  writeBad(offset: number, length: number, done: () => void): void {
    this.change(offset, length, (copy, landed) => copy.writeBad(offset, length, landed), done);
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
   * Settles what the last writer may have left open: whether it is durable, and where copies differ. The regions
   * are closed to requests now, and opened one by one when all copies hold durably what the copy in sync holds.
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
    // Should the copy in sync fail, a target takes its place: with what it holds by then.
    this.toAll(
      this.targets(),
      (copy, landed) => copy.flush(landed),
      () => step(0),
    );
  }

  bytesOf(regions: readonly number[]): number {
    return regions.reduce((sum, region) => sum + this.rangeOf(region).length, 0);
  }

  /** Brings a copy up to date, region by region, while requests go on. */
  resync(
    regions: readonly number[],
    target: Copy,
    how: {
      readonly isWanted: () => boolean;
      readonly pace: Pace;
      readonly meter: ProgressMeter;
    },
    done: () => void,
  ): void {
    const { isWanted, pace, meter } = how;
    const step = (index: number) => {
      const region = regions[index];
      if (region === undefined || !isWanted()) return done();
      pace.next((copied) =>
        this.lockRegion(region, (release) => {
          this.copyRegion(region, [target], false, () => {
            release();
            copied();
            meter.add(this.rangeOf(region).length);
            step(index + 1);
          });
        }),
      );
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

  /** Does the same to every copy that counts, or is to count. */
  private change(
    offset: number,
    length: number,
    submit: (copy: Copy, landed: () => void) => void,
    done: () => void,
  ): void {
    this.lockBlocks(offset, length, true, (release) => {
      this.gate.pass(() => {
        const finished = this.mark(offset, length);
        const targets = this.targets();
        if (targets.length === 0 && !this.mayBeEmpty) {
          throw new Error('a mirror without a copy that counts');
        }
        this.toAll(targets, submit, () => {
          finished();
          release();
          done();
        });
      });
    });
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

  /** Whole blocks: a part of one can not be read or written without the rest of it. */
  private lockBlocks(
    offset: number,
    length: number,
    exclusive: boolean,
    locked: (release: () => void) => void,
  ): void {
    const from = offset - (offset % limits.blockBytes);
    const end = Math.ceil((offset + length) / limits.blockBytes) * limits.blockBytes;
    this.locks.acquire(from, end - from, exclusive, locked);
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
    // Nobody has read anything of a region that is being reconciled: what a target has is as good.
    this.readLocked(offset, length, { also: durable ? targets : [], first: null }, (bytes, bad) => {
      const flush = () => {
        if (durable) this.toAll(behind(), (copy, landed) => copy.flush(landed), done);
        else done();
      };
      this.toAll(
        behind(),
        (copy, landed) => this.copyAround(copy, offset, bytes, bad, landed),
        flush,
      );
    });
  }

  /** A block that is bad in the source is bad in the target, too: what that has may be old. */
  private copyAround(
    copy: Copy,
    offset: number,
    bytes: Uint8Array,
    bad: readonly BadBlock[],
    done: () => void,
  ): void {
    if (bad.length === 0) return this.copyBytes(copy, offset, bytes, done);
    let missing = 1;
    const landed = () => {
      missing -= 1;
      if (missing === 0) done();
    };
    const copyUpTo = (from: number, to: number) => {
      if (from === to) return;
      missing += 1;
      this.copyBytes(copy, from, bytes.subarray(from - offset, to - offset), landed);
    };
    let from = offset;
    for (const block of bad) {
      copyUpTo(from, block.offset);
      missing += 1;
      copy.writeBad(block.offset, block.length, landed);
      from = block.offset + block.length;
    }
    copyUpTo(from, offset + bytes.length);
    landed();
  }

  /** Zeros are not copied: where the source holds nothing, the target need not either. */
  private copyBytes(copy: Copy, offset: number, bytes: Uint8Array, done: () => void): void {
    const runs = zeroRuns(bytes, offset);
    let missing = runs.length;
    const landed = () => {
      missing -= 1;
      if (missing === 0) done();
    };
    for (const { at, length, isZero } of runs) {
      const options = { unmap: this.canUnmap, fua: false };
      if (isZero) copy.zero(offset + at, length, options, landed);
      else copy.write(offset + at, bytes.subarray(at, at + length), false, landed);
    }
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

  private readLocked(
    offset: number,
    length: number,
    sources: Sources,
    done: (bytes: Uint8Array, bad: readonly BadBlock[]) => void,
  ): void {
    this.gate.pass(() => {
      const ready = this.copies.filter((copy) => copy.state === 'inSync' && copy.isReady);
      const wanted = ready.find((copy) => copy === sources.first);
      const source = wanted ?? ready.find((copy) => copy.isLocal) ?? ready[0];
      const again = () => this.readLocked(offset, length, sources, done);
      if (source === undefined) {
        this.waitingReads.push(again);
        return;
      }
      source.read(offset, length, false, (error: HoldfastError | null, bytes) => {
        if (error !== null && isOfBlock(error)) {
          const range = { offset, length, sizeBytes: source.component.sizeBytes };
          readBlockwise(this.repairing, range, sources, done);
        } else if (error !== null || source.state !== 'inSync') again();
        // What was read counts only if the lease still holds: otherwise somebody else may have
        // written since, without this copy.
        else if (this.gate.isOpen()) done(bytes, []);
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
