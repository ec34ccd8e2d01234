// A disk opened by the holder of its VM's lock: the only writer. It opens by putting its fence into the record and
// into every component, and serves reads and writes of whoever uses it. Beside it `in-sync-set.ts` keeps the record
// true to what the components hold, `catch-up.ts` brings copies up to date, and `tree-changes.ts` and `restriping.ts`
// change what it is made of. The record changes only through the object's register, under the fence: before a
// write is acknowledged without a copy, the record says that the copy does not count.

import type { HoldfastError } from '../../model/errors.ts';
import type { ComponentId, ObjectId } from '../../model/ids.ts';
import type { Blueprint, Component } from '../../model/record.ts';
import type { ZeroOptions } from './block-device.ts';
import { CatchUp } from './catch-up.ts';
import { DiskState, stopped } from './disk-state.ts';
import { Hold } from './hold.ts';
import { InSyncSet } from './in-sync-set.ts';
import { nameSuffix } from './leftovers.ts';
import { TreeMaker } from './make-tree.ts';
import type { DiskOptions, DiskResync, Filling, OpenDisk } from './open-disk.ts';
import { together } from './progress.ts';
import { RecordChanges } from './record-changes.ts';
import { opened } from './record-steps.ts';
import { Restriping } from './restriping.ts';
import { takeCopies } from './take-copies.ts';
import { TreeChanges } from './tree-changes.ts';

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

class Disk implements OpenDisk {
  readonly object: ObjectId;
  private readonly state: DiskState;
  private readonly inSync: InSyncSet;
  private readonly catchUp: CatchUp;
  private readonly make: TreeMaker;
  private readonly treeChanges: TreeChanges;
  private readonly restriping: Restriping;
  private readonly hold: Hold;
  private namesGiven = 0;

  constructor(options: DiskOptions) {
    this.object = options.object;
    this.state = new DiskState(options);
    const { state } = this;
    const changes = new RecordChanges(state);
    const look = () => this.catchUp.look();
    this.inSync = new InSyncSet(state, changes, {
      fenced: () => this.abandon(),
      absent: look,
    });
    changes.onFree = () => this.inSync.removeFailing();
    this.catchUp = new CatchUp(state, changes, this.inSync);
    this.make = new TreeMaker(state, this.inSync, look);
    this.hold = new Hold(state);
    this.treeChanges = new TreeChanges(state, changes, this.inSync, this.make, look);
    this.restriping = new Restriping(state, changes, this.make, this.hold, this.catchUp);
  }

  async open(): Promise<void> {
    const { state, object } = this;
    const { epoch, probe, change, guestRuns } = state.options;
    const record = await change(object, (current) => opened(current, epoch));
    state.fence = record.fence;
    probe.reached({ at: 'disk.fenced', object, epoch, open: record.fence.open });
    state.sizeBytes = record.sizeBytes;
    state.tree = this.make.tree(record.blueprint, (id) =>
      record.inSync.includes(id) ? 'inSync' : 'absent',
    );
    state.io = state.tree.io;
    const taken = await Promise.all(
      state.mirrors.map((mirror) => takeCopies(mirror, state.options)),
    );
    await this.inSync.dropFromRecord(taken.flatMap(({ unusable }) => unusable));
    const areWritesLost = taken.some(({ writesLost }) => writesLost);
    if (areWritesLost && guestRuns) this.inSync.writesLost();
    for (const mirror of state.mirrors) this.catchUp.reconcile(mirror);
    // What was lost is settled: the components need not tell of it again.
    if (areWritesLost) for (const mirror of state.mirrors) mirror.flush(() => {});
    this.catchUp.begin();
    probe.reached({ at: 'disk.opened', object, epoch });
  }

  get sizeBytes(): number {
    return this.state.sizeBytes;
  }

  get canUnmap(): boolean {
    return this.state.tree.blueprint.thick !== true;
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    const { state } = this;
    if (state.isClosed) return done(stopped(), new Uint8Array(0));
    if (this.hold.isOn) return this.hold.keep(() => this.read(offset, length, done));
    state.load.began();
    state.io.read(offset, length, (error, bytes) => {
      state.load.ended();
      if (!state.isMute) done(error, bytes);
    });
  }

  write(
    offset: number,
    bytes: Uint8Array,
    fua: boolean,
    done: (error: HoldfastError | null) => void,
  ): void {
    if (this.state.isClosed) return done(stopped());
    if (this.hold.isOn) return this.hold.keep(() => this.write(offset, bytes, fua, done));
    this.state.io.write(offset, bytes, fua, this.request(done));
  }

  zero(
    offset: number,
    length: number,
    how: ZeroOptions,
    done: (error: HoldfastError | null) => void,
  ): void {
    if (this.state.isClosed) return done(stopped());
    if (this.hold.isOn) return this.hold.keep(() => this.zero(offset, length, how, done));
    this.state.io.zero(offset, length, how, this.request(done));
  }

  flush(done: (error: HoldfastError | null) => void): void {
    if (this.state.isClosed) return done(stopped());
    if (this.hold.isOn) return this.hold.keep(() => this.flush(done));
    this.state.io.flush(this.request(done));
  }

  verify(component: ComponentId, offset: number): void {
    if (this.state.isClosed) return;
    for (const mirror of this.state.mirrors) {
      const copy = mirror.copies.find((one) => one.component.id === component);
      if (copy !== undefined) mirror.verify(copy, offset);
    }
  }

  resync(): DiskResync | null {
    const { next, syncs } = this.state;
    if (syncs.size === 0 && next === null) return null;
    const meters = [...syncs.values(), next].flatMap((one) => one?.meter ?? []);
    const progress = together(meters.map((meter) => meter.get()));
    if (progress === null) return null;
    const filled = next?.copies.filter((copy) => copy.state !== 'absent') ?? [];
    const components = [...syncs.keys(), ...filled.map(({ component }) => component.id)];
    return { ...progress, components };
  }

  get isDirty(): boolean {
    return this.state.mirrors.some((mirror) => mirror.isDirty);
  }

  filling(): Filling | null {
    const { next } = this.state;
    return next === null ? null : { next: next.tree.blueprint, regionsLeft: next.left };
  }

  newSuffix(): string {
    this.namesGiven += 1;
    return nameSuffix(this.state.fence, this.namesGiven);
  }

  replaceCopy(old: ComponentId, added: Component): Promise<void> {
    return this.treeChanges.replaceCopy(old, added);
  }

  addMirror(stripes: readonly Component[]): Promise<void> {
    return this.treeChanges.addMirror(stripes);
  }

  removeMirror(gone: ReadonlySet<ComponentId>): Promise<void> {
    return this.treeChanges.removeMirror(gone);
  }

  async restripe(next: Blueprint, makeComponents: () => Promise<void>): Promise<void> {
    this.treeChanges.assertNone();
    await this.restriping.begin(next, makeComponents);
  }

  async giveUpNext(next: Blueprint, reason: string): Promise<void> {
    const filling = this.state.next;
    if (filling === null) await this.restriping.forget(next);
    else this.restriping.giveUp(filling, reason);
  }

  async close(): Promise<void> {
    const { state } = this;
    if (state.isClosed) return;
    state.isClosed = true;
    this.catchUp.end();
    const { gate, clock, timings } = state.options;
    if (gate.isOpen()) {
      await new Promise<void>((resolve) => {
        const limit = clock.after(timings.componentTimeoutMs, resolve);
        state.io.idle(() => {
          limit.cancel();
          resolve();
        });
      });
    }
    this.abandon();
  }

  /** Stops at once. */
  abandon(): void {
    const { state } = this;
    state.isClosed = true;
    this.catchUp.end();
    for (const copy of state.copies) copy.end();
    state.next?.giveUp();
    this.hold.letGo();
  }

  /** A change that somebody has asked for, until it is done. */
  private request(done: (error: null) => void): () => void {
    const { state } = this;
    state.load.began();
    return () => {
      state.load.ended();
      if (!state.isMute) done(null);
    };
  }
}
