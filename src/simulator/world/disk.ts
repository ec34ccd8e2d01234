// The storage device of one machine, with everything that a real one does to its users: writes that
// were not synced are lost, kept or torn when the power fails, in any mixture; it may be slow, full
// or gone; a sync may fail, and after a failed sync the kernel believes that the pages are clean
// (they read well, and are gone after the next loss of power: "fsyncgate").
//
// `VirtualDisk` is the device and survives; `attach()` is the view of one run of the daemon and ends
// with it.

import { crc32 } from '../../model/crc32.ts';
import { DiskError, type LocalDisk } from '../../ports/disk.ts';
import { AttachedDisk, type Device, type DiskOperation } from './attached-disk.ts';
import type { SeededRandom } from './random.ts';
import { apply, type Change, emptyFile, type StoredFile } from './stored-file.ts';
import type { Receiver, VirtualTime } from './time.ts';

/** A page in which bits were flipped. */
interface Rot {
  readonly file: StoredFile;
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly before: Uint8Array;
}

export interface DiskWatcher {
  /** Bytes have been written to a file, by the daemon; not necessarily durably. */
  wrote(file: string, offset: number, bytes: Uint8Array): void;
}

export class VirtualDisk implements Device {
  readonly files = new Map<string, StoredFile>();
  /** What was on the device before this one. */
  #replaced: ReadonlyMap<string, StoredFile> = new Map();
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
    const file = emptyFile();
    file.content.write(0, bytes);
    file.durable.share(file.content, file.content.indices());
    this.files.set(name, file);
    this.#usedBytes += file.content.heldBytes;
  }

  /** Taken out while the machine runs, with what happened to be on it already. Whoever opens it later knows that it
   * was, also where no daemon was there to see it. */
  pull(): void {
    this.#endRun(this.#run);
    this.#incarnation += 1;
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
    this.#replaced = new Map(this.files);
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

  /** Up to a page of what would survive a loss of power, or would have where the device was replaced; where bits
   * have been flipped, of what was there before. False: there is no such file, and was none. */
  readDurable(name: string, offset: number, target: Uint8Array): boolean {
    const file = this.files.get(name) ?? this.#replaced.get(name);
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

  /** The file was on the device before this one. */
  hasLost(name: string): boolean {
    return this.#replaced.has(name);
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
