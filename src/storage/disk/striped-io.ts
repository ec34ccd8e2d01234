// The reads and writes of a disk, spread over its stripes: a request is done when it is done on each stripe
// that it touches. It counts what is in flight, so that a disk can be closed when nothing is.

import type { HoldfastError } from '../../model/errors.ts';
import type { ZeroOptions } from './block-device.ts';
import { InFlight } from './in-flight.ts';
import { segments, stripeRanges } from './layout.ts';
import type { Mirror } from './mirror.ts';

type Done = () => void;

export interface DiskIo {
  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void;
  write(offset: number, bytes: Uint8Array, fua: boolean, done: Done): void;
  zero(offset: number, length: number, options: ZeroOptions, done: Done): void;
  flush(done: Done): void;
  /** Calls back when nothing is in flight, at once if nothing is. */
  idle(then: Done): void;
}

export class StripedIo implements DiskIo {
  private readonly mirrors: readonly Mirror[];
  private readonly stripeBytes: number;
  private readonly inFlight = new InFlight();

  /** A mirror for each stripe. */
  constructor(mirrors: readonly Mirror[], stripeBytes: number) {
    this.mirrors = mirrors;
    this.stripeBytes = stripeBytes;
  }

  idle(then: Done): void {
    this.inFlight.idle(then);
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    const pieces = segments(this.mirrors.length, this.stripeBytes, offset, length);
    const first = pieces[0];
    if (pieces.length === 1 && first !== undefined) {
      this.inFlight.began();
      this.mirror(first.stripe).read(first.offset, length, (error, bytes) => {
        this.inFlight.ended();
        done(error, bytes);
      });
      return;
    }
    const whole = new Uint8Array(length);
    let failure: HoldfastError | null = null;
    this.each(
      pieces,
      (piece, landed) =>
        this.mirror(piece.stripe).read(piece.offset, piece.length, (error, bytes) => {
          failure ??= error;
          whole.set(bytes, piece.at);
          landed();
        }),
      () => done(failure, whole),
    );
  }

  write(offset: number, bytes: Uint8Array, fua: boolean, done: Done): void {
    this.each(
      segments(this.mirrors.length, this.stripeBytes, offset, bytes.length),
      ({ stripe, offset: at, length, at: from }, landed) =>
        this.mirror(stripe).write(at, bytes.subarray(from, from + length), fua, landed),
      done,
    );
  }

  zero(offset: number, length: number, options: ZeroOptions, done: Done): void {
    this.each(
      stripeRanges(this.mirrors.length, this.stripeBytes, offset, length),
      (range, landed) =>
        this.mirror(range.stripe).zero(range.offset, range.length, options, landed),
      done,
    );
  }

  /** Nobody knows what these blocks should be. */
  writeBad(offset: number, length: number, done: Done): void {
    this.each(
      segments(this.mirrors.length, this.stripeBytes, offset, length),
      ({ stripe, offset: at, length: bytes }, landed) =>
        this.mirror(stripe).writeBad(at, bytes, landed),
      done,
    );
  }

  flush(done: Done): void {
    this.each(this.mirrors, (mirror, landed) => mirror.flush(landed), done);
  }

  private mirror(stripe: number): Mirror {
    return this.mirrors[stripe] as Mirror;
  }

  private each<T>(items: readonly T[], start: (item: T, landed: Done) => void, done: Done): void {
    let missing = items.length;
    if (missing === 0) return done();
    this.inFlight.began();
    for (const item of items) {
      start(item, () => {
        missing -= 1;
        if (missing > 0) return;
        this.inFlight.ended();
        done();
      });
    }
  }
}
