// One mirror more, one less, another component in the place of one: changes of an open disk's tree that are one
// change of its record each (docs/protocols/policy.md). One at a time: each begins with what the one before
// has left.

import type { ComponentId, HostId } from '../../model/ids.ts';
import type { Component } from '../../model/record.ts';
import type { Copy } from './copy.ts';
import type { DiskState } from './disk-state.ts';
import type { InSyncSet } from './in-sync-set.ts';
import type { TreeMaker } from './make-tree.ts';
import type { RecordChanges } from './record-changes.ts';
import { replaced, withMirror, withoutMirror } from './record-steps.ts';

export class TreeChanges {
  private readonly state: DiskState;
  private readonly changes: RecordChanges;
  private readonly inSync: InSyncSet;
  private readonly make: TreeMaker;
  /** A copy may be brought back. */
  private readonly onAbsent: () => void;
  private isUnderWay = false;

  constructor(
    state: DiskState,
    changes: RecordChanges,
    inSync: InSyncSet,
    make: TreeMaker,
    onAbsent: () => void,
  ) {
    this.state = state;
    this.changes = changes;
    this.inSync = inSync;
    this.make = make;
    this.onAbsent = onAbsent;
  }

  assertNone(): void {
    if (this.state.next !== null) throw this.state.inUse('another tree is being filled');
    if (this.isUnderWay) throw this.state.inUse('another change of its tree is under way');
  }

  async replaceCopy(old: ComponentId, added: Component): Promise<void> {
    const { state } = this;
    const stripe = state.mirrors.findIndex(({ copies }) =>
      copies.some(({ component }) => component.id === old),
    );
    const copy = state.mirrors[stripe]?.copies.find(({ component }) => component.id === old);
    const isFree = copy?.state === 'absent' && !copy.isReplaced && !state.syncs.has(old);
    if (copy === undefined || !isFree) throw state.inUse(`${old} is in use`);
    this.assertNone();
    copy.isReplaced = true;
    try {
      await this.alone(() =>
        this.changes.settled((current) => replaced(current, state.fence, old, added)),
      );
    } catch (error) {
      copy.isReplaced = false;
      throw error;
    }
    if (state.isClosed) return;
    const { probe, object } = state.options;
    probe.reached({ at: 'copy.replaced', object, component: added.id });
    state.mirror(stripe).replace(copy, this.make.copy(added, state.tree, stripe, 'absent'));
    this.onAbsent();
  }

  async addMirror(stripes: readonly Component[]): Promise<void> {
    const { state } = this;
    const { tree } = state;
    await this.alone(() =>
      this.changes.settled((current) => withMirror(current, state.fence, stripes)),
    );
    if (state.isClosed || state.tree !== tree) return;
    const { probe, object, name, onEvent } = state.options;
    probe.reached({ at: 'mirror.added', object, components: stripes.map(({ id }) => id) });
    for (const [stripe, component] of stripes.entries()) {
      state.mirror(stripe).add(this.make.copy(component, tree, stripe, 'absent'));
    }
    onEvent('copyAdded', `${name} gets one more copy, on ${hostsOf(stripes)}`);
    this.onAbsent();
  }

  async removeMirror(gone: ReadonlySet<ComponentId>): Promise<void> {
    const { state } = this;
    const { tree } = state;
    const leaving = state.copies.filter(({ component }) => gone.has(component.id));
    // One that joins may be counted by the record already.
    const counting = leaving.filter(({ state }) => state !== 'absent' && state !== 'syncing');
    const isFree = leaving.every((copy) => !copy.isReplaced && !state.reconciling.has(copy));
    const isSpare = counting.every((copy) => state.others(copy).some(isServing));
    if (!isFree || !isSpare || leaving.length < gone.size) {
      throw state.inUse('another copy is not in sync');
    }
    this.assertNone();
    // Nothing goes to them any more, and writes wait until it is known that they do not count.
    for (const copy of leaving) {
      copy.isReplaced = true;
      if (counting.includes(copy)) {
        copy.state = 'failing';
        copy.isReady = false;
      } else this.inSync.forgetSync(copy);
    }
    try {
      await this.alone(() =>
        this.changes.settled((current) => withoutMirror(current, state.fence, gone)),
      );
    } catch (error) {
      for (const copy of leaving) copy.isReplaced = false;
      this.inSync.removeFailing();
      this.onAbsent();
      throw error;
    }
    if (state.isClosed || state.tree !== tree) return;
    const { probe, object, name, onEvent } = state.options;
    const components = leaving.map(({ component }) => component);
    probe.reached({ at: 'mirror.removed', object, components: components.map(({ id }) => id) });
    for (const copy of leaving) {
      state.syncs.delete(copy.component.id);
      copy.drop();
      for (const mirror of tree.mirrors) if (mirror.copies.includes(copy)) mirror.remove(copy);
    }
    for (const mirror of tree.mirrors) mirror.retryReads();
    onEvent('copyRemoved', `${name} does without its copy on ${hostsOf(components)}`);
  }

  private async alone<T>(change: () => Promise<T>): Promise<T> {
    this.assertNone();
    this.isUnderWay = true;
    try {
      return await change();
    } finally {
      this.isUnderWay = false;
    }
  }
}

function isServing(copy: Copy): boolean {
  return copy.state === 'inSync' && copy.isReady;
}

export function hostsOf(places: readonly { readonly host: HostId }[]): string {
  return [...new Set(places.map(({ host }) => host))].join(', ');
}
