// The requests of a disk that has two trees, of which one is being filled to take the other's place: reads
// come from the present tree, every change goes to both and is done when both have it.
//
// Each tree orders what overlaps by the ranges of its own stripes. Two overlapping writes could so land in
// one order here and in the other order there. Therefore all requests are ordered by their range of the
// disk first, and so are the copies from one tree to the other.

import type { HoldfastError } from '../../model/errors.ts';
import { limits } from '../../model/limits.ts';
import type { ZeroOptions } from './block-device.ts';
import { InFlight } from './in-flight.ts';
import { zeroPieceBytes } from './mirror.ts';
import { createRangeLocks } from './range-locks.ts';
import type { DiskIo, StripedIo } from './striped-io.ts';
import { zeroRuns } from './zero-runs.ts';

type Done = () => void;

export class DuplexIo implements DiskIo {
  private readonly from: StripedIo;
  private readonly to: StripedIo;
  private readonly locks = createRangeLocks();
  private readonly inFlight = new InFlight();
  /** The tree that was being filled is given up. */
  private isSingle = false;

  constructor(from: StripedIo, to: StripedIo) {
    this.from = from;
    this.to = to;
  }

  /** From now on nothing goes to the tree that was being filled. */
  giveUp(): void {
    this.isSingle = true;
  }

  idle(then: Done): void {
    this.inFlight.idle(then);
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    this.locked(offset, length, false, (release) =>
      this.from.read(offset, length, (error, bytes) => {
        done(error, bytes);
        release();
      }),
    );
  }

  write(offset: number, bytes: Uint8Array, fua: boolean, done: Done): void {
    this.change(offset, bytes.length, (io, landed) => io.write(offset, bytes, fua, landed), done);
  }

  /** Piece by piece, so that a long range does not hold up all that overlaps it. */
  zero(offset: number, length: number, options: ZeroOptions, done: Done): void {
    const most = options.unmap ? zeroPieceBytes.unmapped : zeroPieceBytes.written;
    const end = offset + length;
    const step = (at: number) => {
      if (at >= end) return done();
      const piece = Math.min(most, end - at);
      this.change(
        at,
        piece,
        (io, landed) => io.zero(at, piece, options, landed),
        () => step(at + piece),
      );
    };
    step(offset);
  }

  flush(done: Done): void {
    this.inFlight.began();
    this.both(
      (io, landed) => io.flush(landed),
      () => {
        done();
        this.inFlight.ended();
      },
    );
  }

  /** Copies a range of whole blocks to the tree that is being filled; what can not be read is bad there, too. */
  copy(offset: number, length: number, done: Done): void {
    this.locked(offset, length, true, (release) => {
      const landed = () => {
        release();
        done();
      };
      this.from.read(offset, length, (error, bytes) => {
        if (this.isSingle) landed();
        else if (error === null) this.copyBytes(offset, bytes, landed);
        else this.copyBlocks(offset, offset + length, landed);
      });
    });
  }

  /** Of a range that can not be read as a whole. */
  private copyBlocks(offset: number, end: number, done: Done): void {
    if (offset >= end || this.isSingle) return done();
    const length = Math.min(limits.blockBytes, end - offset);
    const next = () => this.copyBlocks(offset + length, end, done);
    this.from.read(offset, length, (error, bytes) => {
      if (this.isSingle) done();
      else if (error === null) this.copyBytes(offset, bytes, next);
      else this.to.writeBad(offset, length, next);
    });
  }

  private copyBytes(offset: number, bytes: Uint8Array, done: Done): void {
    const runs = zeroRuns(bytes, offset);
    let missing = runs.length;
    const landed = () => {
      missing -= 1;
      if (missing === 0) done();
    };
    for (const { at, length, isZero } of runs) {
      if (isZero) this.to.zero(offset + at, length, { unmap: true, fua: false }, landed);
      else this.to.write(offset + at, bytes.subarray(at, at + length), false, landed);
    }
  }

  private change(
    offset: number,
    length: number,
    submit: (io: StripedIo, landed: Done) => void,
    done: Done,
  ): void {
    this.locked(offset, length, true, (release) =>
      this.both(submit, () => {
        release();
        done();
      }),
    );
  }

  private both(submit: (io: StripedIo, landed: Done) => void, done: Done): void {
    const trees = this.isSingle ? [this.from] : [this.from, this.to];
    let missing = trees.length;
    for (const io of trees) {
      submit(io, () => {
        missing -= 1;
        if (missing === 0) done();
      });
    }
  }

  /** In whole blocks, as the trees do. Counts as in flight from now on until it is released. */
  private locked(
    offset: number,
    length: number,
    exclusive: boolean,
    granted: (release: Done) => void,
  ): void {
    this.inFlight.began();
    const from = offset - (offset % limits.blockBytes);
    const end = Math.ceil((offset + length) / limits.blockBytes) * limits.blockBytes;
    this.locks.acquire(from, end - from, exclusive, (release) =>
      granted(() => {
        release();
        this.inFlight.ended();
      }),
    );
  }
}
