// What an open disk is at present: its fence, the trees of copies that it is made of, and whether it is still
// open. Those who serve it, watch over its copies and change its tree share this, and nothing else.

import { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, Epoch } from '../../model/ids.ts';
import type { Fence } from '../../model/record.ts';
import type { Copy } from './copy.ts';
import type { Mirror } from './mirror.ts';
import { type NextTree, type Tree, treeOf } from './next-tree.ts';
import type { DiskOptions } from './open-disk.ts';
import { GuestLoad } from './pace.ts';
import type { ProgressMeter } from './progress.ts';
import type { DiskIo } from './striped-io.ts';

/** The meter is there once it is known what the copy has missed. */
export interface Attempt {
  meter: ProgressMeter | null;
}

export class DiskState {
  readonly options: DiskOptions;
  sizeBytes = 0;
  fence: Fence = { epoch: 0 as Epoch, open: 0 };
  tree: Tree = treeOf({ stripeBytes: 1, mirrors: [] }, []);
  /** Where requests go: to the tree, or to it and the next one. */
  io: DiskIo = this.tree.io;
  /** The tree that is being filled to take the place of the present one. */
  next: NextTree | null = null;
  isClosed = false;
  /** Acknowledged writes are lost: nobody is answered any more. */
  isMute = false;
  /** Copies that the record counts and that are not yet equal to the one that is read. */
  readonly reconciling = new Set<Copy>();
  /** Attempts to bring copies back. */
  readonly syncs = new Map<ComponentId, Attempt>();
  readonly load: GuestLoad;

  constructor(options: DiskOptions) {
    this.options = options;
    this.load = new GuestLoad(options.clock);
  }

  /** One for each stripe. */
  get mirrors(): readonly Mirror[] {
    return this.tree.mirrors;
  }

  get copies(): Copy[] {
    return this.mirrors.flatMap((mirror) => mirror.copies);
  }

  mirror(stripe: number): Mirror {
    const mirror = this.mirrors[stripe];
    if (mirror === undefined) {
      throw new Error(`disk ${this.options.object} has no stripe ${stripe}`);
    }
    return mirror;
  }

  /** The other copies of its stripe. */
  others(copy: Copy): Copy[] {
    const mirror = this.mirrors.find((one) => one.copies.includes(copy));
    return mirror?.copies.filter((one) => one !== copy) ?? [];
  }

  inUse(why: string): HoldfastError {
    return new HoldfastError('conflict', `${this.options.name}: ${why}`);
  }
}

export function idsOf(copies: readonly Copy[]): ReadonlySet<ComponentId> {
  return new Set(copies.map((copy) => copy.component.id));
}

export function stopped(): HoldfastError {
  return new HoldfastError('stopped', 'The disk is closed');
}
