// The tree that is being filled to take the place of a disk's present one (docs/protocols/policy.md, "Another
// striping"): its copies get every change from the moment on at which they are taken, and what was there
// before is copied to them region by region. Nobody reads it. It never counts for anything before the
// record says so, so whatever goes wrong with it, it is given up, and nothing is lost but time.

import { HoldfastError } from '../../model/errors.ts';
import type { ComponentId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import type { Blueprint } from '../../model/record.ts';
import type { Copy } from './copy.ts';
import { DuplexIo } from './duplex-io.ts';
import type { Mirror } from './mirror.ts';
import type { Pace } from './pace.ts';
import type { ProgressMeter } from './progress.ts';
import { StripedIo } from './striped-io.ts';

/** The mirrors and stripes of a disk, as its writer uses them: a `Mirror` for each stripe. */
export interface Tree {
  readonly blueprint: Blueprint;
  readonly mirrors: readonly Mirror[];
  readonly io: StripedIo;
}

export function treeOf(blueprint: Blueprint, mirrors: readonly Mirror[]): Tree {
  return { blueprint, mirrors, io: new StripedIo(mirrors, blueprint.stripeBytes) };
}

export class NextTree {
  readonly tree: Tree;
  readonly io: DuplexIo;
  /** Regions that are still to be copied. */
  left: number;
  isGivenUp = false;
  /** The record may count it already: it can not be given up. */
  isJoining = false;
  private onGivenUp: () => void = () => {};
  private readonly sizeBytes: number;
  /** From the moment on at which it is being filled. */
  meter: ProgressMeter | null = null;
  private readonly pace: Pace;
  private readonly onUseless: (reason: string) => void;

  /** Its copies are `syncing`. `onUseless`: a stripe of it is nowhere any more. */
  constructor(
    from: Tree,
    to: Tree,
    sizeBytes: number,
    pace: Pace,
    onUseless: (reason: string) => void,
  ) {
    this.tree = to;
    this.io = new DuplexIo(from.io, to.io);
    this.sizeBytes = sizeBytes;
    this.pace = pace;
    this.onUseless = onUseless;
    this.left = Math.ceil(sizeBytes / limits.regionBytes);
  }

  get copies(): Copy[] {
    return this.tree.mirrors.flatMap(({ copies }) => copies);
  }

  has(copy: Copy): boolean {
    return this.tree.mirrors.some(({ copies }) => copies.includes(copy));
  }

  /** All of its components for this writer; rejects if one of them can not be had. */
  async take(): Promise<void> {
    this.assertWanted(); // its disk may have been closed while its components were made
    const taken = this.tree.mirrors.flatMap((mirror) =>
      mirror.copies.map(
        (copy) =>
          new Promise<void>((resolve, reject) => {
            copy.take((error, _mayHaveLost, regions) => {
              if (error !== null) return reject(error);
              mirror.markDirty(regions);
              resolve();
            });
          }),
      ),
    );
    const over = new Promise<void>((resolve) => {
      this.onGivenUp = resolve;
    });
    await Promise.race([Promise.all(taken), over]);
    this.assertWanted();
  }

  /** Copies everything, while requests go on; not called back once it is given up. */
  fill(meter: ProgressMeter, done: () => void): void {
    this.meter = meter;
    const regions = this.left;
    const step = (region: number) => {
      if (this.isGivenUp) return;
      this.left = regions - region;
      if (region === regions) return done();
      const offset = region * limits.regionBytes;
      const length = Math.min(limits.regionBytes, this.sizeBytes - offset);
      this.pace.next((copied) =>
        this.io.copy(offset, length, () => {
          copied();
          meter.add(length);
          step(region + 1);
        }),
      );
    };
    step(0);
  }

  /** All that it has is durable; for when nothing is in flight. Rejects if it is given up. */
  async flush(): Promise<void> {
    await new Promise<void>((resolve) => this.tree.io.flush(resolve));
    this.assertWanted();
  }

  /** The components that have everything. From now on the record may count them. */
  joining(): ComponentId[] {
    const complete = this.copies.filter((copy) => copy.state !== 'absent');
    this.isJoining = true;
    for (const copy of complete) copy.state = 'joining';
    return complete.map(({ component }) => component.id);
  }

  /** It goes on without this copy, if it can. */
  lose(copy: Copy): void {
    copy.drop();
    const isThere = ({ copies }: Mirror) => copies.some((one) => one.state !== 'absent');
    if (this.tree.mirrors.every(isThere)) return;
    const { host } = copy.component;
    this.onUseless(`no copy of a stripe of the new components answers (${host})`);
  }

  giveUp(): void {
    if (this.isGivenUp) return;
    this.isGivenUp = true;
    this.onGivenUp();
    this.io.giveUp();
    for (const copy of this.copies) {
      copy.drop();
      copy.end();
    }
  }

  private assertWanted(): void {
    if (this.isGivenUp)
      throw new HoldfastError('conflict', 'The tree that was being filled is given up');
  }
}
