// A disk opened by the holder of its VM's lock: the only writer. It opens by putting its fence into
// the record and into every component, keeps the in-sync set true to what the components hold, and
// brings absent copies back. The set changes only through the object's register, under the fence:
// before a write is acknowledged without a copy, the record says that the copy does not count.

import { asHoldfastError, HoldfastError, isError } from '../../model/errors.ts';
import type { ComponentId, Epoch, HostId, ObjectId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import {
  type Blueprint,
  type Component,
  components,
  type DiskRecord,
  type Fence,
} from '../../model/record.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { BlockDevice, ZeroOptions } from './block-device.ts';
import { Copy, type CopyState, type LossDecision, type Trouble } from './copy.ts';
import { nameSuffix } from './leftovers.ts';
import { type Gate, Mirror } from './mirror.ts';
import { NextTree, type Tree, treeOf } from './next-tree.ts';
import { GuestLoad, Pace } from './pace.ts';
import { type Progress, ProgressMeter, together } from './progress.ts';
import {
  joined,
  opened,
  replaced,
  swapped,
  withMirror,
  withNext,
  withNextGivenUp,
  without,
  withoutMirror,
} from './record-steps.ts';
import type { DiskIo } from './striped-io.ts';
import { takeCopies } from './take-copies.ts';

/** Changes the disk's record; rejects if the change is refused or its outcome is not known. */
export type ChangeDisk = (
  object: ObjectId,
  change: (record: DiskRecord) => DiskRecord,
) => Promise<DiskRecord>;

export type DiskEvent =
  | 'copyLost'
  | 'copyRestored'
  | 'resync'
  | 'full'
  | 'repaired'
  | 'unreadable'
  | 'copyAdded'
  | 'copyRemoved'
  | 'restriping'
  | 'restriped';

export interface DiskOptions {
  readonly object: ObjectId;
  /** For people: `web-1/disk0`. */
  readonly name: string;
  readonly epoch: Epoch;
  readonly guestRuns: boolean;
  /** Writes that were acknowledged, and not flushed, are gone. No request is answered any more: who has made
   * them is to be ended, and the disk closed. */
  readonly onWritesLost: () => void;
  /** Somebody else has opened the disk. */
  readonly onFenced: () => void;
  readonly onEvent: (type: DiskEvent, text: string) => void;
  readonly gate: Gate;
  readonly change: ChangeDisk;
  /** Heard of lately: worth to be waited for. */
  readonly isReachable: (host: HostId) => boolean;
  readonly peer: Peer;
  readonly clock: Clock;
  readonly timings: Timings;
  readonly log: Log;
  readonly probe: Probe;
}

export interface OpenDisk extends BlockDevice {
  readonly object: ObjectId;
  /** A block of this component was found to be bad. */
  verify(component: ComponentId, offset: number): void;
  /** What is being brought up to date, or filled, now; null: nothing is. */
  resync(): DiskResync | null;
  /** Puts a component that exists and holds nothing yet in the place of one that does not count. Rejects
   * with `conflict` if it counts or is being brought back, and as a change of the record does. */
  replaceCopy(old: ComponentId, added: Component): Promise<void>;
  /** Ends a name of a component that has no name yet: none is given twice, whoever opens the disk. */
  newSuffix(): string;
  /** One more mirror, of components that exist and hold nothing yet. Rejects as `replaceCopy` does. */
  addMirror(stripes: readonly Component[]): Promise<void>;
  /** Does without a mirror. Rejects with `conflict` if another one is not as good. */
  removeMirror(gone: ReadonlySet<ComponentId>): Promise<void>;
  /** Fills another tree, whose components `make` makes once the record names them, and has it take the
   * place of the present one. Resolves when it is being filled; rejects where that can not be. */
  restripe(next: Blueprint, make: () => Promise<void>): Promise<void>;
  /** Gives up the tree that is being filled, if one is and the record can not count it yet. */
  giveUpNext(reason: string): void;
  /** Some regions may differ, or are not durable on all copies; or they are, and it was not noted yet. */
  readonly isDirty: boolean;
  /** What is being filled; null: nothing is. */
  filling(): Filling | null;
  /** Waits for what is in flight, if the lease lets it, and stops. */
  close(): Promise<void>;
}

export interface DiskResync extends Progress {
  readonly components: readonly ComponentId[];
}

export interface Filling {
  readonly next: Blueprint;
  readonly regionsLeft: number;
}

/** Rejects with `fenced`, `inaccessible`, or what the change of the record rejects with. */
export async function openDisk(options: DiskOptions): Promise<OpenDisk> {
  const disk = new Disk(options);
  try {
    await disk.open();
  } catch (error) {
    disk.abandon();
    throw error;
  }
  return disk;
}

/** So long may requests be held up for a change of the tree, while others are in flight. */
const longestHoldMs = 1000;

class Disk implements OpenDisk {
  sizeBytes = 0;
  readonly object: ObjectId;
  private readonly options: DiskOptions;
  private fence: Fence = { epoch: 0 as Epoch, open: 0 };
  private tree = treeOf({ stripeBytes: 1, mirrors: [] }, []);
  private io: DiskIo = this.tree.io;
  /** The tree that is being filled to take the place of the present one. */
  private next: NextTree | null = null;
  /** Requests that wait until none is in flight and something is done. */
  private held: (() => void)[] | null = null;
  private changing = false;
  private namesGiven = 0;
  private isTreeChanging = false;
  private closed = false;
  private timer: Timer | null = null;
  /** When it is next looked after its copies, if there is need; null while it is being opened. */
  private nextKeepMs: number | null = null;
  /** Copies that the record counts and that are not yet equal to the one that is read. */
  private readonly reconciling = new Set<Copy>();
  /** Bad blocks of which was told. */
  private readonly unreadable = new Set<string>();
  /** Attempts to bring copies back; the meter is there once it is known what they missed. */
  private readonly syncs = new Map<ComponentId, { meter: ProgressMeter | null }>();
  private readonly load: GuestLoad;
  /** Acknowledged writes are lost: nobody is answered any more. */
  private isMute = false;

  constructor(options: DiskOptions) {
    this.options = options;
    this.object = options.object;
    this.load = new GuestLoad(options.clock);
  }

  async open(): Promise<void> {
    const { epoch, object, probe } = this.options;
    const record = await this.options.change(object, (current) => opened(current, epoch));
    this.fence = record.fence;
    probe.reached({ at: 'disk.fenced', object, epoch, open: record.fence.open });
    this.sizeBytes = record.sizeBytes;
    const stateOf = (id: ComponentId) => (record.inSync.includes(id) ? 'inSync' : 'absent');
    this.tree = this.treeOf(record.blueprint, stateOf);
    this.io = this.tree.io;
    const taken = await Promise.all(this.mirrors.map((mirror) => takeCopies(mirror, this.options)));
    await this.dropFromRecord(taken.flatMap(({ unusable }) => unusable));
    if (taken.some(({ writesLost }) => writesLost) && this.options.guestRuns) this.writesLost();
    for (const mirror of this.mirrors) this.reconcile(mirror);
    // What was lost is settled: the components need not tell of it again.
    if (taken.some(({ writesLost }) => writesLost))
      for (const mirror of this.mirrors) mirror.flush(() => {});
    this.nextKeepMs = this.options.clock.now() + this.options.timings.resyncRetryMs;
    this.keep();
    probe.reached({ at: 'disk.opened', object, epoch });
  }

  get canUnmap(): boolean {
    return this.tree.blueprint.thick !== true;
  }

  private get mirrors(): readonly Mirror[] {
    return this.tree.mirrors;
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    if (this.closed) return done(stopped(), new Uint8Array(0));
    if (this.held !== null) return void this.held.push(() => this.read(offset, length, done));
    this.load.began();
    this.io.read(offset, length, (error, bytes) => {
      this.load.ended();
      if (!this.isMute) done(error, bytes);
    });
  }

  write(
    offset: number,
    bytes: Uint8Array,
    fua: boolean,
    done: (error: HoldfastError | null) => void,
  ): void {
    if (this.closed) return done(stopped());
    if (this.held !== null) return void this.held.push(() => this.write(offset, bytes, fua, done));
    this.io.write(offset, bytes, fua, this.guest(done));
  }

  zero(
    offset: number,
    length: number,
    how: ZeroOptions,
    done: (error: HoldfastError | null) => void,
  ): void {
    if (this.closed) return done(stopped());
    if (this.held !== null) return void this.held.push(() => this.zero(offset, length, how, done));
    this.io.zero(offset, length, how, this.guest(done));
  }

  flush(done: (error: HoldfastError | null) => void): void {
    if (this.closed) return done(stopped());
    if (this.held !== null) return void this.held.push(() => this.flush(done));
    this.io.flush(this.guest(done));
  }

  /** A request of the guest, until it is done. */
  private guest(done: (error: HoldfastError | null) => void): () => void {
    this.load.began();
    return () => {
      this.load.ended();
      if (!this.isMute) done(null);
    };
  }

  verify(component: ComponentId, offset: number): void {
    if (this.closed) return;
    for (const mirror of this.mirrors) {
      const copy = mirror.copies.find((one) => one.component.id === component);
      if (copy !== undefined) mirror.verify(copy, offset);
    }
  }

  resync(): DiskResync | null {
    const { next } = this;
    if (this.syncs.size === 0 && next === null) return null;
    const meters = [...this.syncs.values(), next].flatMap((one) => one?.meter ?? []);
    const progress = together(meters.map((meter) => meter.get()));
    if (progress === null) return null;
    const filled = next?.copies.filter((copy) => copy.state !== 'absent') ?? [];
    const components = [...this.syncs.keys(), ...filled.map(({ component }) => component.id)];
    return { ...progress, components };
  }

  get isDirty(): boolean {
    return this.mirrors.some((mirror) => mirror.isDirty);
  }

  filling(): Filling | null {
    const { next } = this;
    return next === null ? null : { next: next.tree.blueprint, regionsLeft: next.left };
  }

  async replaceCopy(old: ComponentId, added: Component): Promise<void> {
    const stripe = this.mirrors.findIndex(({ copies }) =>
      copies.some(({ component }) => component.id === old),
    );
    const copy = this.mirrors[stripe]?.copies.find(({ component }) => component.id === old);
    if (copy === undefined || !isAbsent(copy) || copy.isReplaced || this.syncs.has(old)) {
      throw this.inUse(`${old} is in use`);
    }
    this.assertUnchanging();
    copy.isReplaced = true;
    try {
      await this.changingTree(() =>
        this.settled((current) => replaced(current, this.fence, old, added)),
      );
    } catch (error) {
      copy.isReplaced = false;
      throw error;
    }
    if (this.closed) return;
    this.options.probe.reached({ at: 'copy.replaced', object: this.object, component: added.id });
    copy.end();
    this.mirror(stripe).replace(copy, this.newCopy(added, this.tree, stripe, 'absent'));
    this.keep();
  }

  newSuffix(): string {
    this.namesGiven += 1;
    return nameSuffix(this.fence, this.namesGiven);
  }

  async addMirror(stripes: readonly Component[]): Promise<void> {
    const { tree } = this;
    await this.changingTree(() =>
      this.settled((current) => withMirror(current, this.fence, stripes)),
    );
    if (this.closed || this.tree !== tree) return;
    this.options.probe.reached({
      at: 'mirror.added',
      object: this.object,
      components: stripes.map(({ id }) => id),
    });
    for (const [stripe, component] of stripes.entries()) {
      this.mirror(stripe).add(this.newCopy(component, tree, stripe, 'absent'));
    }
    this.options.onEvent(
      'copyAdded',
      `${this.options.name} gets one more copy, on ${hostsOf(stripes)}`,
    );
    this.keep();
  }

  async removeMirror(gone: ReadonlySet<ComponentId>): Promise<void> {
    const { tree } = this;
    const leaving = this.copies().filter(({ component }) => gone.has(component.id));
    const counting = leaving.filter(({ state }) => state === 'inSync' || state === 'failing');
    const isFree = leaving.every((copy) => !copy.isReplaced && !this.reconciling.has(copy));
    const isSpare = counting.every((copy) => this.others(copy).some(isServing));
    if (!isFree || !isSpare || leaving.length < gone.size) {
      throw this.inUse('another copy is not in sync');
    }
    this.assertUnchanging();
    // Nothing goes to them any more, and writes wait until it is known that they do not count.
    for (const copy of leaving) {
      copy.isReplaced = true;
      if (counting.includes(copy)) {
        copy.state = 'failing';
        copy.isReady = false;
      } else this.forgetSync(copy);
    }
    try {
      await this.changingTree(() =>
        this.settled((current) => withoutMirror(current, this.fence, gone)),
      );
    } catch (error) {
      for (const copy of leaving) copy.isReplaced = false;
      this.removeFailing();
      this.keep();
      throw error;
    }
    if (this.closed || this.tree !== tree) return;
    const components = leaving.map(({ component }) => component);
    this.options.probe.reached({
      at: 'mirror.removed',
      object: this.object,
      components: components.map(({ id }) => id),
    });
    for (const copy of leaving) {
      this.syncs.delete(copy.component.id);
      copy.drop();
      copy.end();
      for (const mirror of tree.mirrors) if (mirror.copies.includes(copy)) mirror.remove(copy);
    }
    for (const mirror of tree.mirrors) mirror.retryReads();
    this.options.onEvent(
      'copyRemoved',
      `${this.options.name} does without its copy on ${hostsOf(components)}`,
    );
  }

  async restripe(blueprint: Blueprint, make: () => Promise<void>): Promise<void> {
    const { object, probe, clock } = this.options;
    this.assertUnchanging();
    const to = this.treeOf(blueprint, () => 'syncing', true);
    const next = new NextTree(this.tree, to, this.sizeBytes, new Pace(clock, this.load));
    this.next = next;
    try {
      await this.settled((current) => withNext(current, this.fence, blueprint));
      probe.reached({ at: 'next.begun', object });
      await make();
      await next.take();
      await this.whileIdle(next, async () => {
        this.io = next.io;
      });
      probe.reached({ at: 'next.filling', object });
    } catch (error) {
      this.giveUp(next, asHoldfastError(error).message);
      throw error;
    }
    this.options.onEvent(
      'restriping',
      `${this.options.name} is being copied to ${blueprint.mirrors.length} x ${to.mirrors.length} new components, on ${hostsOf(components(blueprint))}`,
    );
    next.fill(new ProgressMeter(clock, this.sizeBytes), () => {
      this.swap(next).catch((error: unknown) => this.giveUp(next, asHoldfastError(error).message));
    });
  }

  giveUpNext(reason: string): void {
    if (this.next !== null) this.giveUp(this.next, reason);
  }

  /** The tree that was filled has everything: the record shall count it instead of the present one. */
  private async swap(next: NextTree): Promise<void> {
    const { object, probe } = this.options;
    await this.whileIdle(next, async () => {
      await next.flush();
      probe.reached({ at: 'next.swapping', object });
      const inSync = next.joining();
      const record = await this.settled((current) =>
        swapped(current, this.fence, next.tree.blueprint, inSync),
      ).catch((error: unknown) => {
        next.isJoining = false; // it never happens
        throw error;
      });
      if (this.closed) return;
      probe.reached({ at: 'next.swapped', object });
      for (const copy of this.copies()) copy.end();
      this.tree = next.tree;
      this.io = next.tree.io;
      this.next = null;
      this.syncs.clear();
      this.reconciling.clear();
      for (const copy of this.copies()) {
        if (!record.inSync.includes(copy.component.id)) continue;
        copy.state = 'inSync';
        copy.reconsider();
      }
    });
    this.options.onEvent(
      'restriped',
      `${this.options.name} has ${next.tree.mirrors.length} ${next.tree.mirrors.length === 1 ? 'stripe' : 'stripes'} now, on ${hostsOf(components(next.tree.blueprint))}`,
    );
    this.keep();
  }

  /** One at a time: each begins with what the one before has left. */
  private async changingTree<T>(change: () => Promise<T>): Promise<T> {
    this.assertUnchanging();
    this.isTreeChanging = true;
    try {
      return await change();
    } finally {
      this.isTreeChanging = false;
    }
  }

  private assertUnchanging(): void {
    if (this.next !== null) throw this.inUse('another tree is being filled');
    if (this.isTreeChanging) throw this.inUse('another change of its tree is under way');
  }

  /** Once nothing is in flight, and before anything is again. Tried until it can be. */
  private async whileIdle(next: NextTree, action: () => Promise<void>): Promise<void> {
    const { clock, timings } = this.options;
    for (;;) {
      if (this.closed) throw stopped();
      if (next.isGivenUp) throw this.inUse('it was given up');
      this.held = [];
      try {
        if (await this.isIdleSoon()) return await action();
      } finally {
        this.letGo();
      }
      await new Promise<void>((resolve) => clock.after(timings.resyncRetryMs, resolve));
    }
  }

  private letGo(): void {
    const held = this.held ?? [];
    this.held = null;
    for (const resume of held) resume();
  }

  /** What waits for a host that is away must not make all others wait. */
  private isIdleSoon(): Promise<boolean> {
    return new Promise((resolve) => {
      const limit = this.options.clock.after(longestHoldMs, () => resolve(false));
      this.io.idle(() => {
        limit.cancel();
        resolve(true);
      });
    });
  }

  private giveUp(next: NextTree, reason: string): void {
    if (next.isGivenUp || next.isJoining || this.next !== next) return;
    next.giveUp();
    if (this.closed) return;
    this.options.log.warn(`${this.options.name} keeps its stripes for now: ${reason}`);
    next.io.idle(() => {
      if (this.io === next.io) this.io = this.tree.io;
    });
    this.settled((current) => withNextGivenUp(current, this.fence))
      .catch((error: unknown) =>
        // The next opening does it.
        this.options.log.debug(`${this.options.name}: ${String(error)}`),
      )
      .finally(() => {
        this.next = null;
      });
  }

  private inUse(why: string): HoldfastError {
    return new HoldfastError('conflict', `${this.options.name}: ${why}`);
  }

  /** A step of the record, tried until it is known whether it was done; rejects if it never will be. */
  private async settled(step: (current: DiskRecord) => DiskRecord | null): Promise<DiskRecord> {
    const { clock, timings } = this.options;
    const pause = () =>
      new Promise<void>((resolve) => clock.after(timings.heartbeatIntervalMs / 2, resolve));
    const refused = this.inUse('its record is not as it was expected to be');
    let mayBeDone = false;
    for (;;) {
      while (this.changing && !this.closed) await pause();
      if (this.closed) throw stopped();
      this.changing = true;
      try {
        return await this.options.change(this.object, (current) => {
          const next = step(current);
          if (next === null) throw refused;
          return next;
        });
      } catch (error) {
        // After one try of unknown outcome only the record itself says that it did not happen.
        mayBeDone ||= isError(error, 'outcome-unknown');
        const isOver = isError(error, 'fenced') || isError(error, 'unknown-vm');
        if (error === refused || isOver || !mayBeDone) throw error;
      } finally {
        this.changing = false;
        this.removeFailing();
      }
      await pause();
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.timer?.cancel();
    if (this.options.gate.isOpen()) {
      await new Promise<void>((resolve) => {
        const limit = this.options.clock.after(this.options.timings.componentTimeoutMs, resolve);
        this.io.idle(() => {
          limit.cancel();
          resolve();
        });
      });
    }
    this.abandon();
  }

  abandon(): void {
    this.closed = true;
    this.timer?.cancel();
    for (const copy of this.copies()) copy.end();
    this.next?.giveUp();
    this.letGo();
  }

  private copies(): Copy[] {
    return this.mirrors.flatMap((mirror) => mirror.copies);
  }

  private mirror(stripe: number): Mirror {
    const mirror = this.mirrors[stripe];
    if (mirror === undefined) throw new Error(`disk ${this.object} has no stripe ${stripe}`);
    return mirror;
  }

  private treeOf(
    blueprint: Blueprint,
    stateOf: (component: ComponentId) => CopyState,
    mayBeEmpty = false,
  ): Tree {
    const { clock, gate } = this.options;
    const mirrors: Mirror[] = [];
    const tree = treeOf(blueprint, mirrors);
    for (let stripe = 0; stripe < (blueprint.mirrors[0]?.stripes.length ?? 0); stripe += 1) {
      const copies = blueprint.mirrors.flatMap(({ stripes }) => {
        const component = stripes[stripe];
        if (component === undefined) return [];
        return this.newCopy(component, tree, stripe, stateOf(component.id));
      });
      mirrors.push(
        new Mirror(copies, {
          clock,
          gate,
          canUnmap: blueprint.thick !== true,
          mayBeEmpty,
          onDirty: () => this.keep(),
          onBadBlock: (offset, hosts, error) => this.onBadBlock(stripe, offset, hosts, error),
        }),
      );
    }
    return tree;
  }

  private newCopy(component: Component, tree: Tree, stripe: number, state: CopyState): Copy {
    const { peer, clock, timings } = this.options;
    return new Copy(component, state, {
      peer,
      clock,
      timings,
      fence: this.fence,
      onTrouble: (copy, trouble, error) => this.onTrouble(copy, trouble, error),
      onLoss: (copy) => this.onLoss(copy),
      onReady: (one, unsettled) => {
        const mirror = tree.mirrors[stripe] as Mirror;
        mirror.retryReads();
        if (unsettled.length > 0) this.settle(mirror, one, unsettled);
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
    const where = `${this.options.name}: the block at offset ${offset}${this.mirrors.length > 1 ? ` of stripe ${stripe}` : ''} on ${hosts.join(', ')}`;
    if (error === null) {
      this.options.onEvent(
        'repaired',
        `${where} was not what had been written; it has been replaced from another copy`,
      );
      return;
    }
    const key = `${stripe}/${offset}`;
    if (this.unreadable.has(key)) return; // whoever read it tries again
    this.unreadable.add(key);
    this.options.onEvent(
      'unreadable',
      `${where} is not what had been written, and no other copy has it: it reads as an error until it is overwritten`,
    );
  }

  /** At open: copies that did not answer, or lost writes, leave the record before the first I/O. */
  private async dropFromRecord(unusable: readonly Copy[]): Promise<void> {
    if (unusable.length === 0) return;
    for (const copy of unusable) copy.state = 'failing';
    const record = await this.options.change(this.object, (current) =>
      without(current, this.fence, idsOf(unusable)),
    );
    this.tellInSync(record, unusable, []);
    for (const copy of unusable) this.dropped(copy);
  }

  /** Makes all in-sync copies equal where the last writer may have left them different. */
  private reconcile(mirror: Mirror): void {
    const counting = mirror.copies.filter((copy) => copy.state === 'inSync');
    const source = counting.find((copy) => copy.isLocal) ?? counting[0];
    const targets = counting.filter((copy) => copy !== source);
    const regions = mirror.dirtyRegions();
    if (regions.length === 0) return;
    if (targets.length === 0) return mirror.settle(regions, null);
    // Until then only the source is read, and nothing at all from these regions: should the source
    // fail meanwhile, a target may take its place, because nobody has seen what it alone held.
    for (const target of targets) {
      target.state = 'joining';
      this.reconciling.add(target);
    }
    mirror.reconcile(regions, targets, () => {
      for (const target of targets) {
        this.reconciling.delete(target);
        if (target.state === 'joining') target.state = 'inSync';
      }
      mirror.retryReads();
    });
  }

  /** The daemon of a copy has been restarted: it does not know for certain what it holds there. */
  private settle(mirror: Mirror, copy: Copy, regions: readonly number[]): void {
    if (copy.state !== 'inSync') return; // all that it may lack is copied to it
    mirror.markDirty(regions);
    mirror.settle(regions, copy);
  }

  private onTrouble(copy: Copy, trouble: Trouble, error: HoldfastError | null): void {
    if (this.closed) return;
    if (trouble === 'fenced') {
      this.options.log.warn(`disk ${this.options.name} was opened by somebody else`);
      this.abandon();
      this.options.onFenced();
      return;
    }
    if (error?.code === 'disk-full')
      this.options.onEvent('full', `${this.options.name}: ${error.message}`);
    if (this.next?.has(copy) === true && copy.state === 'syncing') this.dropFromNext(copy);
    else if (copy.state === 'syncing') this.forgetSync(copy);
    else if (this.replacement(copy)) this.fail(copy, error?.message ?? trouble);
    // The last copy: its content is the disk. Everybody waits for it.
    else copy.persist();
  }

  /** The copy may have lost writes that were acknowledged and not flushed. */
  private onLoss(copy: Copy): LossDecision {
    if (this.closed) return 'wait';
    if (this.next?.has(copy) === true && copy.state === 'syncing') {
      this.dropFromNext(copy);
      return 'out';
    }
    if (copy.state === 'syncing') {
      this.forgetSync(copy);
      return 'out';
    }
    if (this.replacement(copy)) {
      this.fail(copy, 'it may have lost writes');
      return 'out';
    }
    const others = this.others(copy).filter(
      (one) => one.state === 'inSync' || one.state === 'joining',
    );
    if (others.some((one) => !one.isLost && !one.isSilent)) return 'wait';
    // Nobody who could be waited for has kept them: what was flushed is here.
    for (const other of others) this.fail(other, 'another copy was chosen after a loss of writes');
    this.writesLost();
    return 'keep';
  }

  /** Whoever has been told of them must not learn what is there now, nor that anything is durable. */
  private writesLost(): void {
    if (this.isMute) return;
    this.isMute = true;
    this.options.onWritesLost();
  }

  private dropFromNext(copy: Copy): void {
    const { next } = this;
    if (next === null || next.drop(copy)) return;
    this.giveUp(next, `no copy of a stripe of the new components answers (${copy.component.host})`);
  }

  private others(copy: Copy): Copy[] {
    const mirror = this.mirrors.find((one) => one.copies.includes(copy));
    return mirror?.copies.filter((one) => one !== copy) ?? [];
  }

  /** Whether another copy can serve alone. */
  private replacement(copy: Copy): boolean {
    const others = this.others(copy).filter((one) => one.isReady);
    if (others.some((one) => one.state === 'inSync')) return true;
    const next = others.find((one) => this.reconciling.has(one) && one.state === 'joining');
    if (next === undefined) return false;
    next.state = 'inSync';
    for (const mirror of this.mirrors) mirror.retryReads();
    return true;
  }

  private fail(copy: Copy, reason: string): void {
    copy.state = 'failing';
    copy.isReady = false;
    const { host } = copy.component;
    this.options.log.warn(`the copy of ${this.options.name} on ${host} is to go: ${reason}`, {
      object: this.object,
    });
    this.removeFailing();
  }

  /** It was not counted yet. */
  private forgetSync(copy: Copy): void {
    this.syncs.delete(copy.component.id);
    copy.drop();
    this.keep();
  }

  private removeFailing(): void {
    this.options.gate.pass(() => {
      const failing = this.copies().filter((copy) => copy.state === 'failing' && !copy.isReplaced);
      if (this.closed || this.changing || failing.length === 0) return;
      this.changing = true;
      this.options
        .change(this.object, (current) => without(current, this.fence, idsOf(failing)))
        .then(
          (record) => {
            this.changing = false;
            this.tellInSync(record, failing, []);
            for (const copy of failing) this.dropped(copy);
            for (const mirror of this.mirrors) mirror.retryReads();
            this.removeFailing();
          },
          (error: unknown) => this.changeFailed(error, () => this.removeFailing()),
        );
    });
  }

  private changeFailed(error: unknown, again: () => void): void {
    this.changing = false;
    if (this.closed) return;
    if (isError(error, 'fenced')) {
      this.abandon();
      this.options.onFenced();
      return;
    }
    this.options.log.warn(
      `in-sync set of ${this.options.name} could not be changed: ${String(error)}`,
    );
    this.options.clock.after(this.options.timings.heartbeatIntervalMs / 2, again);
  }

  /** To the probe only: the record is committed, and nothing has been made of it. */
  private tellInSync(record: DiskRecord, removed: readonly Copy[], added: readonly Copy[]): void {
    this.options.probe.reached({
      at: 'disk.inSyncChanged',
      object: this.object,
      inSync: record.inSync,
      removed: [...idsOf(removed)],
      added: [...idsOf(added)],
    });
  }

  private dropped(copy: Copy): void {
    this.forgetSync(copy);
    this.options.onEvent(
      'copyLost',
      `The copy of ${this.options.name} on ${copy.component.host} does not count any more`,
    );
  }

  /**
   * As long as there is something to do, once per interval: bits are cleared, absent copies are brought
   * back. To be called when there may be. (A timer for each open disk, whether it is written to or
   * not, is 10,000 events per second with 10,000 VMs.)
   */
  private keep(): void {
    const { clock, timings } = this.options;
    if (this.closed || this.timer !== null || this.nextKeepMs === null) return;
    if (!this.mirrors.some((mirror) => mirror.isDirty || mirror.copies.some(isAbsent))) return;
    // Where intervals went by with nothing to do it keeps to their beat.
    const intervalMs = timings.resyncRetryMs;
    const lateMs = clock.now() - this.nextKeepMs;
    if (lateMs >= 0) this.nextKeepMs += (Math.floor(lateMs / intervalMs) + 1) * intervalMs;
    this.timer = clock.after(Math.max(0, this.nextKeepMs - clock.now()), () => {
      this.timer = null;
      if (this.closed) return;
      this.nextKeepMs = clock.now() + intervalMs;
      for (const mirror of this.mirrors) {
        mirror.clearQuiet(timings.bitmapClearMs);
        for (const copy of mirror.copies) {
          if (isAbsent(copy) && this.options.gate.isOpen()) this.bringBack(mirror, copy);
        }
      }
      this.keep();
    });
  }

  private bringBack(mirror: Mirror, copy: Copy): void {
    const { id, host } = copy.component;
    if (this.syncs.has(id) || copy.isReplaced || !this.options.peer.isConnected(host)) return;
    const attempt: { meter: ProgressMeter | null } = { meter: null };
    this.syncs.set(id, attempt);
    // False from the moment on at which the copy is dropped: what this attempt did is void then.
    const isCurrent = () => !this.closed && this.syncs.get(id) === attempt;
    copy.take((error, _mayHaveLost, regions) => {
      if (error !== null || this.closed) {
        this.syncs.delete(id);
        copy.isReady = false;
        return;
      }
      // From here on it gets every write; what it missed is in the union of the bits.
      copy.state = 'syncing';
      mirror.markDirty(regions);
      const missed = mirror.dirtyRegions();
      this.options.onEvent(
        'resync',
        `The copy of ${this.options.name} on ${host} is being brought up to date (${missed.length} regions)`,
      );
      const { clock } = this.options;
      const meter = new ProgressMeter(clock, mirror.bytesOf(missed));
      attempt.meter = meter;
      const pace = new Pace(clock, this.load);
      mirror.resync(missed, copy, { isWanted: isCurrent, pace, meter }, () => {
        if (isCurrent()) copy.flush(() => this.join(mirror, copy, isCurrent));
      });
    });
  }

  /** The copy holds all: the record shall count it again. */
  private join(mirror: Mirror, copy: Copy, isCurrent: () => boolean): void {
    if (!isCurrent() || (copy.state !== 'syncing' && copy.state !== 'joining')) return;
    const { id, host } = copy.component;
    const again = () => this.join(mirror, copy, isCurrent);
    if (this.changing) {
      this.options.clock.after(this.options.timings.heartbeatIntervalMs / 10, again);
      return;
    }
    copy.state = 'joining';
    this.changing = true;
    this.options.probe.reached({ at: 'resync.joining', object: this.object, component: id });
    this.options
      .change(this.object, (current) => joined(current, this.fence, id))
      .then(
        (record) => {
          this.changing = false;
          this.tellInSync(record, [], [copy]);
          if (copy.state === 'joining') {
            copy.state = 'inSync';
            this.syncs.delete(id);
            mirror.retryReads();
            this.options.onEvent(
              'copyRestored',
              `The copy of ${this.options.name} on ${host} is in sync again`,
            );
          }
          this.removeFailing();
        },
        (error: unknown) =>
          // The record may count it already: it stays a target of every write until that is known.
          this.changeFailed(error, () => {
            again();
            this.removeFailing();
          }),
      );
  }
}

function stopped(): HoldfastError {
  return new HoldfastError('stopped', 'The disk is closed');
}

function idsOf(copies: readonly Copy[]): ReadonlySet<ComponentId> {
  return new Set(copies.map((copy) => copy.component.id));
}

function isAbsent(copy: Copy): boolean {
  return copy.state === 'absent';
}

function isServing(copy: Copy): boolean {
  return copy.state === 'inSync' && copy.isReady;
}

function hostsOf(components: readonly Component[]): string {
  return [...new Set(components.map(({ host }) => host))].join(', ');
}
