// The disk of one host, in memory, with everything that a real one does to its users: writes that
// were not synced are lost, kept or torn when the power is cut, in any mixture; the device may be
// full; a write or a sync may fail, and after a failed sync the kernel believes that the pages are
// clean (they read well, and are gone after the next loss of power: "fsyncgate").
//
// `MemoryDisk` is the device and survives; `attach()` is the view of one run of the daemon and ends
// with it.

import { crc32 } from '../../src/model/crc32.ts';
import type { Clock } from '../../src/ports/clock.ts';
import { DiskError, type DiskFile, type LocalDisk } from '../../src/ports/disk.ts';
import type { SeededRandom } from './seeded-random.ts';

/** A change of a file that the device may still lose. */
type Change =
  | {
      readonly kind: 'write';
      readonly offset: number;
      readonly bytes: Uint8Array;
      state: ChangeState;
    }
  | {
      readonly kind: 'discard';
      readonly offset: number;
      readonly length: number;
      state: ChangeState;
    }
  | { readonly kind: 'resize'; readonly sizeBytes: number; state: ChangeState };

/** `flying`: not called back; `written`: the next sync takes it; `doomed`: a sync failed on it. */
type ChangeState = 'flying' | 'written' | 'doomed';

interface StoredFile {
  /** What survives for certain. */
  durable: Uint8Array;
  /** What reads return. */
  content: Uint8Array;
  changes: Change[];
}

export interface DiskOperation {
  readonly kind: 'read' | 'write' | 'discard' | 'sync' | 'resize' | 'open' | 'remove' | 'rename';
  readonly file: string;
  readonly offset: number;
  readonly bytes: number;
}

export class MemoryDisk {
  readonly files = new Map<string, StoredFile>();
  /** May return an error with which the operation fails; called for each operation. */
  fault: (operation: DiskOperation) => DiskError | null = () => null;
  /** Bytes over which writes fail as `full`. */
  capacityBytes = Number.POSITIVE_INFINITY;
  latencyMs: (operation: DiskOperation) => number = (operation) =>
    operation.kind === 'sync' ? 0.4 : 0.05;
  /** Bytes written so far, over all files. */
  writtenBytes = 0;
  syncs = 0;
  readonly #clock: Clock;
  #incarnation = 1;
  #run = 0;
  #cutAtBytes = Number.POSITIVE_INFINITY;
  /** Set while the power is off because `cutPowerAfter` was reached. */
  #off = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The disk as one run of the daemon sees it; the run before gets no more callbacks. */
  attach(): LocalDisk {
    this.#run += 1;
    this.#off = false;
    return new AttachedDisk(this, this.#run);
  }

  /** The daemon ends, the machine goes on: what was written stays, what was in flight is torn. */
  kill(random?: SeededRandom): void {
    this.#run += 1;
    for (const file of this.files.values()) {
      for (const change of file.changes) {
        if (change.state !== 'flying') continue;
        change.state = 'written';
        if (random === undefined || change.kind === 'resize') continue;
        if (change.kind === 'discard') {
          Object.assign(change, { length: random.below(change.length + 1) });
          continue;
        }
        const kept = random.below(change.bytes.length + 1);
        Object.assign(change, { bytes: change.bytes.slice(0, kept) });
      }
      file.content = replay(file.durable, file.changes);
    }
  }

  /**
   * The power fails: each un-synced change is lost, kept, or (a write) torn into pieces of which some
   * are kept. Without an argument all of them are lost; with `keep` none is.
   */
  cutPower(fate?: SeededRandom | 'keep'): void {
    this.#run += 1;
    this.#incarnation += 1;
    this.#cutAtBytes = Number.POSITIVE_INFINITY;
    for (const file of this.files.values()) {
      const survivors = file.changes.flatMap((change) => survivorsOf(change, fate));
      file.content = replay(file.durable, survivors);
      file.durable = file.content.slice();
      file.changes = [];
    }
  }

  /** Tears the write that reaches so many more bytes there; from then on nothing answers any more. */
  cutPowerAfter(bytes: number): void {
    this.#cutAtBytes = this.writtenBytes + bytes;
  }

  get isOff(): boolean {
    return this.#off;
  }

  get incarnation(): string {
    return `boot-${this.#incarnation}`;
  }

  usedBytes(): number {
    let sum = 0;
    for (const file of this.files.values()) sum += file.content.length;
    return sum;
  }

  /** Flips bits of a file, in what reads return and in what survives. */
  damage(name: string, offset: number, mask = 0xff): void {
    const file = this.#existing(name);
    for (const bytes of new Set([file.durable, file.content])) {
      if (offset < bytes.length) bytes[offset] = (bytes[offset] as number) ^ mask;
    }
  }

  bytesOf(name: string): Uint8Array {
    return this.#existing(name).content;
  }

  #existing(name: string): StoredFile {
    const file = this.files.get(name);
    if (file === undefined) throw new Error(`no file ${name}`);
    return file;
  }

  /** Carries an operation out after its latency, unless its run has ended by then. */
  perform(run: number, operation: DiskOperation, done: (error: DiskError | null) => void): void {
    if (run !== this.#run || this.#off) return;
    const error = this.fault(operation);
    this.#clock.after(this.latencyMs(operation), () => {
      if (run === this.#run && !this.#off) done(error);
    });
  }

  /** Takes a write up to the capacity or the power cut; says how many bytes went in. */
  admitWrite(file: StoredFile, offset: number, bytes: number): number {
    const growth = Math.max(0, offset + bytes - file.content.length);
    const room = Math.max(0, this.capacityBytes - this.usedBytes());
    let admitted = growth > room ? Math.max(0, bytes - (growth - room)) : bytes;
    if (this.writtenBytes + admitted > this.#cutAtBytes) {
      admitted = this.#cutAtBytes - this.writtenBytes;
      this.#off = true;
    }
    this.writtenBytes += admitted;
    return admitted;
  }
}

class AttachedDisk implements LocalDisk {
  readonly crc32 = (bytes: Uint8Array) => crc32(bytes);
  readonly incarnation: string;
  readonly #device: MemoryDisk;
  readonly #run: number;

  constructor(device: MemoryDisk, run: number) {
    this.#device = device;
    this.#run = run;
    this.incarnation = device.incarnation;
  }

  async open(name: string, options: { readonly create: boolean }): Promise<DiskFile> {
    await this.#do('open', name);
    let file = this.#device.files.get(name);
    if (file === undefined) {
      if (!options.create) throw new DiskError('missing', `no file ${name}`);
      file = { durable: new Uint8Array(0), content: new Uint8Array(0), changes: [] };
      this.#device.files.set(name, file);
    }
    return new AttachedFile(this.#device, this.#run, name, file);
  }

  async list(folder: string): Promise<string[]> {
    const prefix = folder === '' || folder.endsWith('/') ? folder : `${folder}/`;
    return [...this.#device.files.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  async remove(name: string): Promise<void> {
    await this.#do('remove', name);
    this.#device.files.delete(name);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#do('rename', from);
    const file = this.#device.files.get(from);
    if (file === undefined) throw new DiskError('missing', `no file ${from}`);
    this.#device.files.delete(from);
    this.#device.files.set(to, file);
  }

  space(): { totalBytes: number; freeBytes: number } {
    const totalBytes = Math.min(this.#device.capacityBytes, Number.MAX_SAFE_INTEGER);
    return { totalBytes, freeBytes: Math.max(0, totalBytes - this.#device.usedBytes()) };
  }

  #do(kind: DiskOperation['kind'], file: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#device.perform(this.#run, { kind, file, offset: 0, bytes: 0 }, (error) =>
        error === null ? resolve() : reject(error),
      );
    });
  }
}

class AttachedFile implements DiskFile {
  readonly #device: MemoryDisk;
  readonly #run: number;
  readonly #name: string;
  readonly #file: StoredFile;
  #failure: DiskError | null = null;

  constructor(device: MemoryDisk, run: number, name: string, file: StoredFile) {
    this.#device = device;
    this.#run = run;
    this.#name = name;
    this.#file = file;
  }

  get sizeBytes(): number {
    return this.#file.content.length;
  }

  read(offset: number, target: Uint8Array, done: (error: DiskError | null) => void): void {
    const operation = { kind: 'read', file: this.#name, offset, bytes: target.length } as const;
    this.#device.perform(this.#run, operation, (error) => {
      target.fill(0);
      target.set(this.#file.content.subarray(offset, offset + target.length));
      done(error);
    });
  }

  write(
    offset: number,
    chunks: readonly Uint8Array[],
    done: (error: DiskError | null) => void,
  ): void {
    const bytes = concatenate(chunks);
    const operation = { kind: 'write', file: this.#name, offset, bytes: bytes.length } as const;
    if (this.#device.isOff) return;
    if (this.isSpent) return this.#device.perform(this.#run, operation, () => done(this.#failure));
    const admitted = this.#device.admitWrite(this.#file, offset, bytes.length);
    const change = {
      kind: 'write' as const,
      offset,
      bytes: bytes.slice(0, admitted),
      state: 'flying' as ChangeState,
    };
    this.#file.changes = this.#file.changes.flatMap((older) => uncovered(older, change));
    this.#file.changes.push(change);
    this.#file.content = apply(this.#file.content, change);
    this.#device.perform(this.#run, operation, (error) => {
      change.state = 'written';
      done(error ?? (admitted < bytes.length ? new DiskError('full', 'no space left') : null));
    });
  }

  discard(offset: number, length: number, done: (error: DiskError | null) => void): void {
    if (offset + length > this.sizeBytes) throw new Error(`${this.#name}: discards beyond its end`);
    const operation = { kind: 'discard', file: this.#name, offset, bytes: length } as const;
    if (this.#device.isOff) return;
    if (this.isSpent) return this.#device.perform(this.#run, operation, () => done(this.#failure));
    const change: Change = { kind: 'discard', offset, length, state: 'flying' };
    const zeros = { offset, bytes: new Uint8Array(length) };
    this.#file.changes = this.#file.changes.flatMap((older) => uncovered(older, zeros));
    this.#file.changes.push(change);
    this.#file.content = apply(this.#file.content, change);
    this.#device.perform(this.#run, operation, (error) => {
      change.state = 'written';
      done(error);
    });
  }

  sync(done: (error: DiskError | null) => void): void {
    const covered = this.#file.changes.filter((change) => change.state === 'written');
    const operation = { kind: 'sync', file: this.#name, offset: 0, bytes: 0 } as const;
    this.#device.perform(this.#run, operation, (error) => {
      this.#device.syncs += 1;
      this.#failure ??= error;
      // Another sync may have been faster, and what it made durable may be overwritten since.
      const open = covered.filter((change) => this.#file.changes.includes(change));
      if (this.#failure !== null) {
        for (const change of open) change.state = 'doomed';
      } else {
        this.#file.durable = replay(this.#file.durable, open);
        this.#file.changes = this.#file.changes.filter((change) => !open.includes(change));
      }
      done(this.#failure);
    });
  }

  get isSpent(): boolean {
    return this.#failure !== null;
  }

  async dropCached(): Promise<void> {
    this.#file.changes = this.#file.changes.filter((change) => change.state !== 'doomed');
    this.#file.content = replay(this.#file.durable, this.#file.changes);
  }

  resize(sizeBytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const change: Change = { kind: 'resize', sizeBytes, state: 'flying' };
      this.#file.changes.push(change);
      this.#file.content = apply(this.#file.content, change);
      const operation = { kind: 'resize', file: this.#name, offset: 0, bytes: sizeBytes } as const;
      this.#device.perform(this.#run, operation, (error) => {
        change.state = 'written';
        if (error === null) resolve();
        else reject(error);
      });
    });
  }

  async close(): Promise<void> {}
}

function apply(content: Uint8Array, change: Change): Uint8Array {
  if (change.kind === 'resize') {
    const resized = new Uint8Array(change.sizeBytes);
    resized.set(content.subarray(0, change.sizeBytes));
    return resized;
  }
  if (change.kind === 'discard') {
    content.fill(0, change.offset, change.offset + change.length);
    return content;
  }
  const end = change.offset + change.bytes.length;
  const target = end <= content.length ? content : new Uint8Array(end);
  if (target !== content) target.set(content);
  target.set(change.bytes, change.offset);
  return target;
}

/** What a sync failed on stays in the cache as it reads, and must not come back over what was
 * written there since: what is left of it. */
function uncovered(
  older: Change,
  newer: { readonly offset: number; readonly bytes: Uint8Array },
): Change[] {
  if (older.kind === 'resize' || older.state !== 'doomed') return [older];
  const newerEnd = newer.offset + newer.bytes.length;
  if (older.kind === 'discard') {
    const olderEnd = older.offset + older.length;
    const before = { ...older, length: Math.min(olderEnd, newer.offset) - older.offset };
    const offset = Math.max(older.offset, newerEnd);
    const after = { ...older, offset, length: olderEnd - offset };
    return [before, after].filter((piece) => piece.length > 0);
  }
  const from = Math.max(older.offset, newer.offset);
  const to = Math.min(older.offset + older.bytes.length, newerEnd);
  if (from < to) {
    older.bytes.set(
      newer.bytes.subarray(from - newer.offset, to - newer.offset),
      from - older.offset,
    );
  }
  return [older];
}

function replay(base: Uint8Array, changes: readonly Change[]): Uint8Array {
  return changes.reduce(apply, base.slice());
}

/** What the loss of power leaves of one un-synced change. */
function survivorsOf(change: Change, random: SeededRandom | 'keep' | undefined): Change[] {
  if (random === undefined || change.state === 'doomed') return [];
  if (random === 'keep') return [change];
  const fate = random.next();
  if (fate < 0.35) return [];
  if (fate < 0.7 || change.kind === 'resize') return [change];
  const pieces: Change[] = [];
  if (change.kind === 'discard') {
    const end = change.offset + change.length;
    for (let offset = change.offset; offset < end; ) {
      const length = Math.min(end - offset, random.pick([1, 512, 4096, 65536]));
      if (random.chance(0.5)) pieces.push({ ...change, offset, length });
      offset += length;
    }
    return pieces;
  }
  for (let from = 0; from < change.bytes.length; ) {
    const length = Math.min(change.bytes.length - from, random.pick([1, 7, 512, 4096]));
    const bytes = change.bytes.slice(from, from + length);
    if (random.chance(0.5)) pieces.push({ ...change, offset: change.offset + from, bytes });
    from += length;
  }
  return pieces;
}

function concatenate(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}
