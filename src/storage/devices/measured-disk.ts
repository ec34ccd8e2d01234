// A device as its host uses it, with two looks over the shoulder: how long a small write and its sync take,
// and which operations fail. Nothing is done for the sake of measuring; one write is timed at a time.

import type { Clock } from '../../ports/clock.ts';
import type { DiskError, DiskFile, LocalDisk } from '../../ports/disk.ts';

type Done = (error: DiskError | null) => void;

export interface MeasuredDisk extends LocalDisk {
  /** A moving average; null: nothing was made durable yet. */
  latencyMs(): number | null;
}

/** The weight of the newest of all measurements. */
const newest = 1 / 16;
/** Longer writes take long for their length. */
const smallBytes = 64 * 1024;

class Average {
  valueMs: number | null = null;

  add(ms: number): void {
    this.valueMs = this.valueMs === null ? ms : this.valueMs + (ms - this.valueMs) * newest;
  }
}

class Watch {
  readonly writes = new Average();
  readonly syncs = new Average();
  /** A write is being timed. */
  isTiming = false;
  readonly clock: Clock;
  readonly onError: (error: DiskError) => void;

  constructor(clock: Clock, onError: (error: DiskError) => void) {
    this.clock = clock;
    this.onError = onError;
  }

  told(done: Done): Done {
    return (error) => {
      if (error !== null) this.onError(error);
      done(error);
    };
  }

  async attempt<T>(action: Promise<T>): Promise<T> {
    try {
      return await action;
    } catch (error) {
      this.onError(error as DiskError);
      throw error;
    }
  }
}

export function measured(
  disk: LocalDisk,
  clock: Clock,
  /** Of any operation, before its caller hears of it. */
  onError: (error: DiskError) => void = () => {},
  /** What the device is known as since writes were last lost, where its own word does not say all. */
  incarnation = disk.incarnation,
): MeasuredDisk {
  const watch = new Watch(clock, onError);
  return {
    crc32: disk.crc32,
    incarnation,
    open: async (name, options) => {
      // A file that is missing is no trouble of the device.
      const file = await disk.open(name, options).catch((error: DiskError) => {
        if (options.create || error.kind !== 'missing') onError(error);
        throw error;
      });
      return new MeasuredFile(file, watch);
    },
    list: (folder) => watch.attempt(disk.list(folder)),
    remove: (name) => watch.attempt(disk.remove(name)),
    rename: (from, to) => watch.attempt(disk.rename(from, to)),
    space: () => disk.space(),
    latencyMs() {
      const { valueMs: syncMs } = watch.syncs;
      return syncMs === null ? null : syncMs + (watch.writes.valueMs ?? 0);
    },
  };
}

class MeasuredFile implements DiskFile {
  readonly #file: DiskFile;
  readonly #watch: Watch;

  constructor(file: DiskFile, watch: Watch) {
    this.#file = file;
    this.#watch = watch;
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  read(offset: number, target: Uint8Array, done: Done): void {
    this.#file.read(offset, target, this.#watch.told(done));
  }

  write(offset: number, chunks: readonly Uint8Array[], done: Done): void {
    const watch = this.#watch;
    if (watch.isTiming) return this.#file.write(offset, chunks, watch.told(done));
    watch.isTiming = true;
    const startedAtMs = watch.clock.now();
    this.#file.write(offset, chunks, (error) => {
      watch.isTiming = false;
      if (error !== null) watch.onError(error);
      else if (isSmall(chunks)) watch.writes.add(watch.clock.now() - startedAtMs);
      done(error);
    });
  }

  discard(offset: number, length: number, done: Done): void {
    this.#file.discard(offset, length, this.#watch.told(done));
  }

  sync(done: Done): void {
    const watch = this.#watch;
    const startedAtMs = watch.clock.now();
    this.#file.sync((error) => {
      if (error !== null) watch.onError(error);
      else watch.syncs.add(watch.clock.now() - startedAtMs);
      done(error);
    });
  }

  get isSpent(): boolean {
    return this.#file.isSpent;
  }

  dropCached(): Promise<void> {
    return this.#watch.attempt(this.#file.dropCached());
  }

  resize(sizeBytes: number): Promise<void> {
    return this.#watch.attempt(this.#file.resize(sizeBytes));
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function isSmall(chunks: readonly Uint8Array[]): boolean {
  let bytes = 0;
  for (const chunk of chunks) bytes += chunk.length;
  return bytes <= smallBytes;
}
