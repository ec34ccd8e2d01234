// Makes the tree of copies that a blueprint describes, as the writer of its disk uses them, and says who is told
// what happens to them.

import type { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, HostId } from '../../model/ids.ts';
import type { Blueprint, Component } from '../../model/record.ts';
import { Copy, type CopyState } from './copy.ts';
import type { DiskState } from './disk-state.ts';
import type { InSyncSet } from './in-sync-set.ts';
import { Mirror } from './mirror.ts';
import { type Tree, treeOf } from './next-tree.ts';

export class TreeMaker {
  private readonly state: DiskState;
  private readonly inSync: InSyncSet;
  /** There is something to be cleared. */
  private readonly onDirty: () => void;
  /** Bad blocks of which was told. */
  private readonly unreadable = new Set<string>();

  constructor(state: DiskState, inSync: InSyncSet, onDirty: () => void) {
    this.state = state;
    this.inSync = inSync;
    this.onDirty = onDirty;
  }

  /** `mayBeEmpty`: it may be given up, and then nobody needs what is written to it. */
  tree(
    blueprint: Blueprint,
    stateOf: (component: ComponentId) => CopyState,
    mayBeEmpty = false,
  ): Tree {
    const { clock, gate } = this.state.options;
    const mirrors: Mirror[] = [];
    const tree = treeOf(blueprint, mirrors);
    for (let stripe = 0; stripe < (blueprint.mirrors[0]?.stripes.length ?? 0); stripe += 1) {
      const copies = blueprint.mirrors.flatMap(({ stripes }) => {
        const component = stripes[stripe];
        if (component === undefined) return [];
        return this.copy(component, tree, stripe, stateOf(component.id));
      });
      mirrors.push(
        new Mirror(copies, {
          clock,
          gate,
          canUnmap: blueprint.thick !== true,
          mayBeEmpty,
          onDirty: this.onDirty,
          onBadBlock: (offset, hosts, error) => this.onBadBlock(stripe, offset, hosts, error),
        }),
      );
    }
    return tree;
  }

  copy(component: Component, tree: Tree, stripe: number, copyState: CopyState): Copy {
    const { fence, options } = this.state;
    const { peer, clock, timings } = options;
    return new Copy(component, copyState, {
      peer,
      clock,
      timings,
      fence,
      onTrouble: (copy, trouble, error) => this.inSync.onTrouble(copy, trouble, error),
      onLoss: (copy) => this.inSync.onLoss(copy),
      onReady: (one, unsettled) => {
        const mirror = tree.mirrors[stripe] as Mirror;
        mirror.retryReads();
        if (unsettled.length > 0) settle(mirror, one, unsettled);
      },
    });
  }

  /** `error`: no copy has it right. */
  private onBadBlock(
    stripe: number,
    offset: number,
    hosts: readonly HostId[],
    error: HoldfastError | null,
  ): void {
    const { mirrors, options } = this.state;
    const where = `${options.name}: the block at offset ${offset}${mirrors.length > 1 ? ` of stripe ${stripe}` : ''} on ${hosts.join(', ')}`;
    if (error === null) {
      options.onEvent(
        'repaired',
        `${where} was not what had been written; it has been replaced from another copy`,
      );
      return;
    }
    const key = `${stripe}/${offset}`;
    if (this.unreadable.has(key)) return; // whoever read it tries again
    this.unreadable.add(key);
    options.onEvent(
      'unreadable',
      `${where} is not what had been written, and no other copy has it: it reads as an error until it is overwritten`,
    );
  }
}

/** The daemon of a copy has been restarted: it does not know for certain what it holds there. */
function settle(mirror: Mirror, copy: Copy, regions: readonly number[]): void {
  if (copy.state !== 'inSync') return; // all that it may lack is copied to it
  mirror.markDirty(regions);
  mirror.settle(regions, copy);
}
