// Another tree for an open disk: filled beside the present one, and swapped in by one change of the record
// (docs/protocols/policy.md, "Another striping"). Until that change it can be given up at any time.

import { asHoldfastError } from '../../model/errors.ts';
import { type Blueprint, components } from '../../model/record.ts';
import type { CatchUp } from './catch-up.ts';
import { type DiskState, stopped } from './disk-state.ts';
import type { Hold } from './hold.ts';
import type { TreeMaker } from './make-tree.ts';
import { NextTree } from './next-tree.ts';
import { Pace } from './pace.ts';
import { ProgressMeter } from './progress.ts';
import type { RecordChanges } from './record-changes.ts';
import { swapped, withNext, withNextGivenUp } from './record-steps.ts';
import { hostsOf } from './tree-changes.ts';

export class Restriping {
  private readonly state: DiskState;
  private readonly changes: RecordChanges;
  private readonly make: TreeMaker;
  private readonly hold: Hold;
  private readonly catchUp: CatchUp;

  constructor(
    state: DiskState,
    changes: RecordChanges,
    make: TreeMaker,
    hold: Hold,
    catchUp: CatchUp,
  ) {
    this.state = state;
    this.changes = changes;
    this.make = make;
    this.hold = hold;
    this.catchUp = catchUp;
  }

  async begin(blueprint: Blueprint, makeComponents: () => Promise<void>): Promise<void> {
    const { state } = this;
    const { object, probe, clock, name, onEvent } = state.options;
    const { sizeBytes } = state;
    const to = this.make.tree(blueprint, () => 'syncing', true);
    const next = new NextTree(state.tree, to, sizeBytes, new Pace(clock, state.load), (reason) =>
      this.giveUp(next, reason),
    );
    state.next = next;
    try {
      await this.changes.settled((current) => withNext(current, state.fence, blueprint));
      probe.reached({ at: 'next.begun', object });
      await makeComponents();
      await next.take();
      await this.whileIdle(next, async () => {
        state.io = next.io;
      });
      probe.reached({ at: 'next.filling', object });
    } catch (error) {
      this.giveUp(next, asHoldfastError(error).message);
      throw error;
    }
    onEvent(
      'restriping',
      `${name} is being copied to ${blueprint.mirrors.length} x ${to.mirrors.length} new components, on ${hostsOf(components(blueprint))}`,
    );
    next.fill(new ProgressMeter(clock, sizeBytes), () => {
      this.swap(next).catch((error: unknown) => this.giveUp(next, asHoldfastError(error).message));
    });
  }

  giveUp(next: NextTree, reason: string): void {
    const { state } = this;
    if (next.isGivenUp || next.isJoining || state.next !== next) return;
    next.giveUp();
    if (state.isClosed) return;
    const { log, name } = state.options;
    log.warn(`${name} keeps its stripes for now: ${reason}`);
    next.io.idle(() => {
      if (state.io === next.io) state.io = state.tree.io;
    });
    this.forget(next.tree.blueprint)
      .catch((error: unknown) =>
        // Repair does it, or the next opening.
        log.debug(`${name}: ${String(error)}`),
      )
      .finally(() => {
        state.next = null;
      });
  }

  /** Nobody fills it: the record shall not name it any more. */
  async forget(next: Blueprint): Promise<void> {
    const { fence } = this.state;
    await this.changes.settled((current) => withNextGivenUp(current, fence, next));
  }

  /** The tree that was filled has everything: the record shall count it instead of the present one. */
  private async swap(next: NextTree): Promise<void> {
    const { state } = this;
    const { object, probe, name, onEvent } = state.options;
    await this.whileIdle(next, async () => {
      await next.flush();
      probe.reached({ at: 'next.swapping', object });
      const inSync = next.joining();
      const record = await this.changes
        .settled((current) => swapped(current, state.fence, next.tree.blueprint, inSync))
        .catch((error: unknown) => {
          next.isJoining = false; // it never happens
          throw error;
        });
      if (state.isClosed) return;
      probe.reached({ at: 'next.swapped', object });
      for (const copy of state.copies) copy.end();
      state.tree = next.tree;
      state.io = next.tree.io;
      state.next = null;
      state.syncs.clear();
      state.reconciling.clear();
      for (const copy of state.copies) {
        if (record.inSync.includes(copy.component.id)) copy.state = 'inSync';
      }
    });
    const stripes = next.tree.mirrors.length;
    onEvent(
      'restriped',
      `${name} has ${stripes} ${stripes === 1 ? 'stripe' : 'stripes'} now, on ${hostsOf(components(next.tree.blueprint))}`,
    );
    this.catchUp.look();
  }

  /** Tried until it can be. */
  private async whileIdle(next: NextTree, action: () => Promise<void>): Promise<void> {
    const { clock, timings } = this.state.options;
    for (;;) {
      if (this.state.isClosed) throw stopped();
      if (next.isGivenUp) throw this.state.inUse('it was given up');
      if (await this.hold.whileIdle(action)) return;
      await new Promise<void>((resolve) => clock.after(timings.resyncRetryMs, resolve));
    }
  }
}
