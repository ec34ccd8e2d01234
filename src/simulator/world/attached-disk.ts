// A device as one run of a daemon sees it: its files, and each operation after its latency, unless the run has ended by
// then.

import { DiskError, type DiskFile, type LocalDisk } from '../../ports/disk.ts';
import { apply, type Change, emptyFile, type StoredFile, supersede } from './stored-file.ts';
import type { Receiver } from './time.ts';

export type DiskOperation =
  | 'read'
  | 'write'
  | 'discard'
  | 'sync'
  | 'resize'
  | 'open'
  | 'remove'
  | 'rename';

/** The device itself, which survives. */
export interface Device {
  readonly files: Map<string, StoredFile>;
  readonly incarnation: string;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly isFull: boolean;
  readonly isFailed: boolean;
  readonly crc32: (bytes: Uint8Array) => number;
  isRun(run: number): boolean;
  perform(
    run: number,
    receiver: Receiver,
    operation: DiskOperation,
    file: string,
    done: (error: DiskError | null) => void,
  ): void;
  admitWrite(file: StoredFile, name: string, offset: number, bytes: Uint8Array): Uint8Array;
  admitResize(file: StoredFile, sizeBytes: number): boolean;
  discarded(file: StoredFile, offset: number, length: number): void;
  removed(file: StoredFile): void;
  dropDoomed(file: StoredFile): void;
}

export class AttachedDisk implements LocalDisk {
  readonly crc32: (bytes: Uint8Array) => number;
  readonly incarnation: string;
  readonly #device: Device;
  readonly #run: number;
  readonly #receiver: Receiver;

  constructor(device: Device, run: number, receiver: Receiver) {
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
      file = emptyFile();
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
  readonly #device: Device;
  readonly #run: number;
  readonly #receiver: Receiver;
  readonly #name: string;
  readonly #file: StoredFile;
  #failure: DiskError | null = null;

  constructor(device: Device, run: number, receiver: Receiver, name: string, file: StoredFile) {
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
        // A file's length is the file system's, which takes it with the next sync.
        for (const change of open) if (change.kind !== 'resize') change.state = 'doomed';
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
      if (isAdmitted) {
        supersede(this.#file, change);
        this.#file.changes.push(change);
      }
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
