// The storage device of one machine, with everything that a real one does to its users: writes that
// were not synced are lost, kept or torn when the power fails, in any mixture; it may be slow, full
// or gone; a sync may fail, and after a failed sync the kernel believes that the pages are clean
// (they read well, and are gone after the next loss of power: "fsyncgate").
//
// `VirtualDisk` is the device and survives; `attach()` is the view of one run of the daemon and ends
// with it.

import { crc32 } from '../../model/crc32.ts';
import { DiskError, type DiskFile, type LocalDisk } from '../../ports/disk.ts';
import { Pages } from './pages.ts';
import type { SeededRandom } from './random.ts';
import type { Receiver, VirtualTime } from './time.ts';

/** A change of a file that the device may still lose. */
type Change =
  | {
      readonly kind: 'write';
      readonly offset: number;
      bytes: Uint8Array;
      state: ChangeState;
    }
  | { readonly kind: 'discard'; readonly offset: number; length: number; state: ChangeState }
  | { readonly kind: 'resize'; readonly sizeBytes: number; state: ChangeState };

/** `flying`: not called back; `written`: the next sync takes it; `doomed`: a sync failed on it. */
type ChangeState = 'flying' | 'written' | 'doomed';

interface StoredFile {
  /** What survives for certain. */
  durable: Pages;
  /** What reads return. */
  content: Pages;
  changes: Change[];
  /** Pages in which the two images may differ. */
  dirty: Set<number>;
}

/** A page in which bits were flipped. */
interface Rot {
  readonly file: StoredFile;
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly before: Uint8Array;
}

export type DiskOperation =
  | 'read'
  | 'write'
  | 'discard'
  | 'sync'
  | 'resize'
  | 'open'
  | 'remove'
  | 'rename';

export interface DiskWatcher {
  /** Bytes have been written to a file, by the daemon; not necessarily durably. */
  wrote(file: string, offset: number, bytes: Uint8Array): void;
}

export class VirtualDisk {
  readonly files = new Map<string, StoredFile>();
  /** Bytes over which writes fail as `full`. */
  capacityBytes: number;
  /** Each operation takes that much longer. */
  slowerByMs = 0;
  /** No space is left, whatever the capacity. */
  isFull = false;
  /** The device is gone: everything fails. */
  isFailed = false;
  /** It was taken out, and nothing is at its place. */
  isPulled = false;
  /** Of each operation to fail. */
  errorChance = 0;
  /** May let an operation fail; called for each. */
  fault: ((operation: DiskOperation, file: string) => DiskError | null) | null = null;
  watcher: DiskWatcher | null = null;
  readonly crc32: (bytes: Uint8Array) => number;
  readonly #time: VirtualTime;
  readonly #random: SeededRandom;
  #incarnation = 1;
  #run = 0;
  /** Runs that ended while their daemon lives on: what they still ask for fails. */
  readonly #ended = new Set<number>();
  #usedBytes = 0;
  #rotten: Rot[] = [];
  #bytesToPowerCut = Number.POSITIVE_INFINITY;

  constructor(
    time: VirtualTime,
    random: SeededRandom,
    capacityBytes: number,
    crc: (bytes: Uint8Array) => number = crc32,
  ) {
    this.#time = time;
    this.#random = random;
    this.capacityBytes = capacityBytes;
    this.crc32 = crc;
  }

  /** The disk as one run of the daemon sees it; the run before gets no more callbacks. */
  attach(receiver: Receiver): LocalDisk {
    this.#run += 1;
    return new AttachedDisk(this, this.#run, receiver);
  }

  /** As above, for a daemon that may let go of it, and outlives it: what it still asks for fails then. */
  open(receiver: Receiver): { readonly disk: LocalDisk; close(): void } {
    const disk = this.attach(receiver);
    const run = this.#run;
    return { disk, close: () => this.#endRun(run) };
  }

  #endRun(run: number): void {
    this.#ended.add(run);
    if (run === this.#run) this.#run += 1;
  }

  /** As if it had always been there. */
  put(name: string, bytes: Uint8Array): void {
    const file = {
      durable: new Pages(),
      content: new Pages(),
      changes: [],
      dirty: new Set<number>(),
    };
    file.content.write(0, bytes);
    file.durable.share(file.content, file.content.indices());
    this.files.set(name, file);
    this.#usedBytes += file.content.heldBytes;
  }

  /** Taken out while the machine runs, with what happened to be on it already. */
  pull(): void {
    this.#endRun(this.#run);
    this.isPulled = true;
    this.#loseUnsynced();
  }

  /** The daemon ends, the machine goes on: what was written stays, what was in flight may be torn. */
  kill(): void {
    this.#run += 1;
    for (const [name, file] of this.files) {
      for (const change of file.changes) {
        if (change.state !== 'flying') continue;
        change.state = 'written';
        if (change.kind === 'discard') change.length = this.#random.below(change.length + 1);
        if (change.kind !== 'write') continue;
        const kept = this.#random.below(change.bytes.length + 1);
        change.bytes = change.bytes.slice(0, wholeSectors(name, change.offset, kept));
      }
      if (file.changes.length > 0) this.#replay(file, file.changes);
    }
  }

  /** Tears the write that reaches so many more bytes there; nothing is carried out any more until the
   * power is cut. */
  cutPowerAfter(bytes: number): void {
    this.#bytesToPowerCut = bytes;
  }

  /** The power fails: each un-synced change is lost, kept, or torn to pieces (a resize is not). */
  cutPower(): void {
    this.#bytesToPowerCut = Number.POSITIVE_INFINITY;
    this.#run += 1;
    this.#incarnation += 1;
    this.#loseUnsynced();
  }

  #loseUnsynced(): void {
    for (const [name, file] of this.files) {
      if (file.changes.length > 0) {
        this.#replay(
          file,
          file.changes.flatMap((change) => this.#survivorsOf(name, change)),
        );
        file.changes = [];
      }
      file.durable.share(file.content, file.dirty);
      file.dirty.clear();
    }
  }

  /** The device is replaced by an empty one. */
  replace(): void {
    this.#endRun(this.#run);
    this.#incarnation += 1;
    this.files.clear();
    this.#usedBytes = 0;
    this.isFailed = false;
    this.isPulled = false;
  }

  /** Flips bits in random blocks of components' data at rest: what is durable, and nothing else is
   * written over it. Blocks in which nothing was ever written are left alone. */
  corrupt(count: number): { readonly file: string; readonly offset: number }[] {
    const atRest = [...this.files].flatMap(([name, file]) => {
      if (!name.endsWith('.data')) return [];
      const last = dataPages(file.content.sizeBytes);
      const held = [...file.content.indices()].filter((page) => page < last);
      return held.filter((page) => !file.dirty.has(page)).map((page) => ({ name, file, page }));
    });
    const chosen: { readonly file: string; readonly offset: number }[] = [];
    while (chosen.length < count && atRest.length > 0) {
      const [block] = atRest.splice(this.#random.below(atRest.length), 1);
      if (block === undefined) break;
      const { name, file, page } = block;
      const bytes = new Uint8Array(pageBytes);
      const offset = page * pageBytes;
      file.content.read(offset, bytes);
      const before = bytes.slice();
      // Some in each piece, so that nobody who looks at a part only overlooks it.
      for (let from = 0; from < pageBytes; from += 16) {
        const at = from + this.#random.below(16);
        bytes[at] = (bytes[at] as number) ^ (1 << this.#random.below(8));
      }
      file.content.write(offset, bytes);
      file.durable.share(file.content, [page]);
      this.#rotten.push({ file, offset, bytes, before });
      chosen.push({ file: name, offset });
    }
    return chosen;
  }

  /** Up to a page of what would survive a loss of power; where bits have been flipped, of what was there
   * before. False: there is no such file. */
  readDurable(name: string, offset: number, target: Uint8Array): boolean {
    const file = this.files.get(name);
    if (file === undefined) return false;
    file.durable.read(offset, target);
    const page = offset - (offset % pageBytes);
    for (const rot of this.#rotten) {
      if (rot.file !== file || rot.offset !== page) continue;
      const end = offset - page + target.length;
      const flipped = rot.bytes.subarray(offset - page, end);
      if (target.every((byte, index) => byte === flipped[index])) {
        target.set(rot.before.subarray(offset - page, end));
      }
    }
    return true;
  }

  /** Whether something of it is still there, for reads or after a loss of power. */
  get isRotten(): boolean {
    const found = new Uint8Array(pageBytes);
    const files = new Set(this.files.values());
    this.#rotten = this.#rotten.filter(
      ({ file, offset, bytes }) =>
        files.has(file) &&
        [file.content, file.durable].some((image) => {
          image.read(offset, found);
          return found.every((byte, index) => byte === bytes[index]);
        }),
    );
    return this.#rotten.length > 0;
  }

  /** Flips the bits of one byte of a file, in what reads return and in what survives. */
  damage(name: string, offset: number): void {
    const file = this.files.get(name);
    if (file === undefined) throw new Error(`there is no file ${name}`);
    const byte = new Uint8Array(1);
    file.content.read(offset, byte);
    file.content.write(offset, Uint8Array.of((byte[0] as number) ^ 0xff));
    file.durable.share(file.content, file.content.indices());
  }

  get incarnation(): string {
    return `boot-${this.#incarnation}`;
  }

  /** Space of all files; what was never written, or discarded, takes none. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Carries an operation out after its latency, unless its run has ended by then. */
  perform(
    run: number,
    receiver: Receiver,
    operation: DiskOperation,
    file: string,
    done: (error: DiskError | null) => void,
  ): void {
    const isOver = this.#ended.has(run);
    if (!isOver && !this.isRun(run)) return;
    const latencyMs = (operation === 'sync' ? 0.3 : 0.05) * (0.75 + this.#random.next() / 2);
    const error = this.isFailed || isOver ? gone(file) : this.#errorOf(operation, file);
    this.#time.after(
      latencyMs + this.slowerByMs,
      () => {
        if (this.isRun(run)) done(error);
        else if (this.#ended.has(run)) done(error ?? gone(file));
      },
      receiver,
    );
  }

  #errorOf(operation: DiskOperation, file: string): DiskError | null {
    const fault = this.fault?.(operation, file) ?? null;
    if (fault !== null || this.errorChance === 0) return fault;
    return this.#random.chance(this.errorChance)
      ? new DiskError('failed', `${operation} of ${file}: input/output error`)
      : null;
  }

  isRun(run: number): boolean {
    return run === this.#run && this.#bytesToPowerCut > 0;
  }

  /** Takes a write as far as there is room, and says what went in. The bytes must not change any more. */
  admitWrite(file: StoredFile, name: string, offset: number, bytes: Uint8Array): Uint8Array {
    const room = this.isFull ? 0 : Math.max(0, this.capacityBytes - this.#usedBytes);
    const fitting = file.content.fitting(offset, bytes.length, room);
    const admitted = Math.min(fitting, this.#bytesToPowerCut);
    this.#bytesToPowerCut -= admitted;
    const before = file.content.heldBytes;
    const taken = admitted === bytes.length ? bytes : bytes.subarray(0, admitted);
    file.content.write(offset, taken, file.dirty);
    this.#usedBytes += file.content.heldBytes - before;
    this.watcher?.wrote(name, offset, taken);
    return taken;
  }

  discarded(file: StoredFile, offset: number, length: number): void {
    const before = file.content.heldBytes;
    file.content.discard(offset, length, file.dirty);
    this.#usedBytes += file.content.heldBytes - before;
  }

  /** A file grows sparse, which takes no space. */
  admitResize(file: StoredFile, sizeBytes: number): boolean {
    if (sizeBytes > file.content.sizeBytes && this.isFull) return false;
    const before = file.content.heldBytes;
    file.content.resize(sizeBytes, file.dirty);
    this.#usedBytes += file.content.heldBytes - before;
    return true;
  }

  removed(file: StoredFile): void {
    this.#usedBytes -= file.content.heldBytes;
  }

  dropDoomed(file: StoredFile): void {
    if (!file.changes.some((change) => change.state === 'doomed')) return;
    file.changes = file.changes.filter((change) => change.state !== 'doomed');
    this.#replay(file, file.changes);
  }

  #replay(file: StoredFile, changes: readonly Change[]): void {
    this.#usedBytes -= file.content.heldBytes;
    file.content = file.durable.copy();
    for (const change of changes) apply(file.content, change, file.dirty);
    this.#usedBytes += file.content.heldBytes;
  }

  #survivorsOf(name: string, change: Change): Change[] {
    const random = this.#random;
    if (change.state === 'doomed') return [];
    const fate = random.next();
    if (fate < 0.35) return [];
    if (fate < 0.7 || change.kind === 'resize') return [change];
    const pieces: Change[] = [];
    if (change.kind === 'discard') {
      const end = change.offset + change.length;
      for (let offset = change.offset; offset < end; ) {
        const drawn = random.pick([512, 4096, Math.ceil(change.length / 4)]);
        const length = Math.min(end - offset, wholeSectors(name, offset, drawn));
        if (random.chance(0.5)) pieces.push({ ...change, offset, length });
        offset += length;
      }
      return pieces;
    }
    for (let from = 0; from < change.bytes.length; ) {
      const drawn = wholeSectors(name, change.offset + from, random.pick([1, 7, 512, 4096]));
      const length = Math.min(change.bytes.length - from, Math.max(drawn, 1));
      const bytes = change.bytes.subarray(from, from + length);
      if (random.chance(0.5)) pieces.push({ ...change, offset: change.offset + from, bytes });
      from += length;
    }
    return pieces;
  }
}

function gone(file: string): DiskError {
  return new DiskError('failed', `${file}: the device does not answer`);
}

/** Sectors of a guest's data are written whole or not at all, as guests may expect of a disk; all other
 * files are torn anywhere, which is harsher than any device. `length` made longer, to the end of a sector. */
function wholeSectors(name: string, offset: number, length: number): number {
  if (!name.endsWith('.data')) return length;
  return Math.ceil((offset + length) / sectorBytes) * sectorBytes - offset;
}

const sectorBytes = 512;
const pageBytes = 4096;

/** Pages of a component's file that hold data: behind them is their table of checksums, a page for 1024. */
function dataPages(fileBytes: number): number {
  const pages = fileBytes / pageBytes;
  return pages - Math.ceil(pages / 1025);
}

class AttachedDisk implements LocalDisk {
  readonly crc32: (bytes: Uint8Array) => number;
  readonly incarnation: string;
  readonly #device: VirtualDisk;
  readonly #run: number;
  readonly #receiver: Receiver;

  constructor(device: VirtualDisk, run: number, receiver: Receiver) {
    this.#device = device;
    this.#run = run;
    this.#receiver = receiver;
    this.crc32 = device.crc32;
    this.incarnation = device.incarnation;
  }

  async open(name: string, options: { readonly create: boolean }): Promise<DiskFile> {
    await this.#do('open', name);
    let file = this.#device.files.get(name);
    if (file === undefined) {
      if (!options.create) throw new DiskError('missing', `no file ${name}`);
      file = { durable: new Pages(), content: new Pages(), changes: [], dirty: new Set() };
      this.#device.files.set(name, file);
    }
    return new AttachedFile(this.#device, this.#run, this.#receiver, name, file);
  }

  async list(folder: string): Promise<string[]> {
    await this.#do('open', folder);
    const prefix = folder === '' || folder.endsWith('/') ? folder : `${folder}/`;
    return [...this.#device.files.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  async remove(name: string): Promise<void> {
    await this.#do('remove', name);
    const file = this.#device.files.get(name);
    if (file === undefined) return;
    this.#device.removed(file);
    this.#device.files.delete(name);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#do('rename', from);
    const file = this.#device.files.get(from);
    if (file === undefined) throw new DiskError('missing', `no file ${from}`);
    const replaced = this.#device.files.get(to);
    if (replaced !== undefined) this.#device.removed(replaced);
    this.#device.files.delete(from);
    this.#device.files.set(to, file);
  }

  space(): { totalBytes: number; freeBytes: number } {
    const { capacityBytes, usedBytes, isFull } = this.#device;
    return {
      totalBytes: capacityBytes,
      freeBytes: isFull ? 0 : Math.max(0, capacityBytes - usedBytes),
    };
  }

  #do(operation: DiskOperation, file: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#device.perform(this.#run, this.#receiver, operation, file, (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  }
}

class AttachedFile implements DiskFile {
  readonly #device: VirtualDisk;
  readonly #run: number;
  readonly #receiver: Receiver;
  readonly #name: string;
  readonly #file: StoredFile;
  #failure: DiskError | null = null;

  constructor(
    device: VirtualDisk,
    run: number,
    receiver: Receiver,
    name: string,
    file: StoredFile,
  ) {
    this.#device = device;
    this.#run = run;
    this.#receiver = receiver;
    this.#name = name;
    this.#file = file;
  }

  get sizeBytes(): number {
    return this.#file.content.sizeBytes;
  }

  read(offset: number, target: Uint8Array, done: (error: DiskError | null) => void): void {
    this.#perform('read', (error) => {
      if (error === null) this.#file.content.read(offset, target);
      done(error);
    });
  }

  write(
    offset: number,
    chunks: readonly Uint8Array[],
    done: (error: DiskError | null) => void,
  ): void {
    const isUsable = this.#device.isRun(this.#run) && !this.#device.isFailed;
    if (!isUsable || this.isSpent) return this.#perform('write', done);
    const bytes = concatenate(chunks);
    const file = this.#file;
    const admitted = this.#device.admitWrite(file, this.#name, offset, bytes);
    const change: Change = { kind: 'write', offset, bytes: admitted, state: 'flying' };
    supersede(file, change);
    file.changes.push(change);
    this.#perform('write', (error) => {
      change.state = 'written';
      done(
        error ?? (admitted.length < bytes.length ? new DiskError('full', 'no space left') : null),
      );
    });
  }

  discard(offset: number, length: number, done: (error: DiskError | null) => void): void {
    const isUsable = this.#device.isRun(this.#run) && !this.#device.isFailed;
    if (!isUsable || this.isSpent) return this.#perform('discard', done);
    const file = this.#file;
    if (offset + length > file.content.sizeBytes) {
      throw new Error(`${this.#name}: discards ${offset}+${length}, beyond its end`);
    }
    this.#device.discarded(file, offset, length);
    const change: Change = { kind: 'discard', offset, length, state: 'flying' };
    supersede(file, change);
    file.changes.push(change);
    this.#perform('discard', (error) => {
      change.state = 'written';
      done(error);
    });
  }

  sync(done: (error: DiskError | null) => void): void {
    const covered = this.#file.changes.filter((change) => change.state === 'written');
    this.#perform('sync', (error) => {
      // Another sync may have been faster, and what it made durable may be overwritten since.
      const file = this.#file;
      const open = covered.filter((change) => file.changes.includes(change));
      if (error !== null) {
        this.#failure ??= error;
        for (const change of open) change.state = 'doomed';
      } else if (open.length === file.changes.length) {
        file.durable.share(file.content, file.dirty);
        file.dirty.clear();
        file.changes = [];
      } else {
        for (const change of open) apply(file.durable, change, file.dirty);
        file.changes = file.changes.filter((change) => !open.includes(change));
      }
      done(error);
    });
  }

  resize(sizeBytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const change: Change = { kind: 'resize', sizeBytes, state: 'flying' };
      const isAdmitted = !this.isSpent && this.#device.admitResize(this.#file, sizeBytes);
      if (isAdmitted) this.#file.changes.push(change);
      this.#perform('resize', (error) => {
        change.state = 'written';
        if (error !== null) reject(error);
        else if (isAdmitted) resolve();
        else reject(new DiskError('full', 'no space left'));
      });
    });
  }

  get isSpent(): boolean {
    return this.#failure !== null;
  }

  dropCached(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#device.perform(this.#run, this.#receiver, 'read', this.#name, (error) => {
        if (error !== null) return reject(error);
        this.#device.dropDoomed(this.#file);
        resolve();
      });
    });
  }

  async close(): Promise<void> {}

  #perform(operation: DiskOperation, done: (error: DiskError | null) => void): void {
    const isVoid = this.isSpent && operation !== 'read';
    this.#device.perform(this.#run, this.#receiver, operation, this.#name, (error) =>
      done(isVoid ? this.#failure : error),
    );
  }
}

function apply(image: Pages, change: Change, dirty: Set<number>): void {
  if (change.kind === 'resize') image.resize(change.sizeBytes, dirty);
  else if (change.kind === 'discard') image.discard(change.offset, change.length, dirty);
  else image.write(change.offset, change.bytes, dirty);
}

/** What a sync failed on stays in the cache as it reads, and must not come back over what was
 * written there since. */
function supersede(file: StoredFile, newer: Change & { readonly kind: 'write' | 'discard' }): void {
  if (!file.changes.some((change) => change.state === 'doomed')) return;
  const start = newer.offset;
  const end = start + (newer.kind === 'write' ? newer.bytes.length : newer.length);
  file.changes = file.changes.flatMap((older) => {
    if (older.state !== 'doomed') return [older];
    if (older.kind === 'write') {
      const from = Math.max(older.offset, start);
      const to = Math.min(older.offset + older.bytes.length, end);
      if (from >= to) return [older];
      older.bytes = older.bytes.slice(); // pages may be parts of what it was
      const place = older.bytes.subarray(from - older.offset, to - older.offset);
      if (newer.kind === 'write') place.set(newer.bytes.subarray(from - start, to - start));
      else place.fill(0);
      return [older];
    }
    if (older.kind === 'discard') {
      const olderEnd = older.offset + older.length;
      const before = { ...older, length: Math.min(olderEnd, start) - older.offset };
      const offset = Math.max(older.offset, end);
      const after = { ...older, offset, length: olderEnd - offset };
      return [before, after].filter((piece) => piece.length > 0);
    }
    return [older];
  });
}

/** One piece, which nobody else changes. */
function concatenate(chunks: readonly Uint8Array[]): Uint8Array {
  if (chunks.length === 1) return (chunks[0] as Uint8Array).slice();
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}
