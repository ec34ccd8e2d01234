// An append-only journal with group commit: what makes an acceptor's answer true after a crash. While
// one batch is being written and synced, further entries collect for the next one, so that many
// registers share one sync. Entries are opaque; the owner keeps the state that they build, and must
// be able to list it (`live`) for a checkpoint. See docs/protocols/register.md, "The journal".
//
// It is not a log of operations: an entry that failed may still turn out durable, so entries must be
// such that repeating or keeping one that nobody was told of does no harm (whole states do). One that
// builds upon earlier ones can be written as an `EntrySource`, which is asked when it is known what of
// these is in the file.

import { HoldfastError } from '../../model/errors.ts';
import type { Clock } from '../../ports/clock.ts';
import { DiskError, type DiskFile } from '../../ports/disk.ts';
import { syncFile } from '../../ports/disk-calls.ts';
import { encodeBatch } from './batch.ts';
import { writeCheckpoint } from './checkpoint.ts';
import { damaged, fromDisk } from './disk-errors.ts';
import { recover } from './recovery.ts';
import { openSuperblock, type StoreLocation, type Superblock } from './superblock.ts';

export type AppendDone = (error: HoldfastError | null) => void;

/** Says what is to be written when its batch is formed: while no other one is in flight, so that all
 * that was given before is durable, or has failed, or stands before it in this very batch. */
export interface EntrySource {
  /** Perhaps nothing, where all is written already. Called once, and not at all where it is refused. */
  encode(): readonly Uint8Array[];
}

export interface JournalBounds {
  /** A checkpoint is due when the file exceeds both this ... */
  readonly checkpointBytes: number;
  /** ... and so many times what the last checkpoint left. */
  readonly checkpointFactor: number;
  /** Of one batch; a single larger entry makes a batch of its own. */
  readonly batchBytes: number;
}

const defaultBounds: JournalBounds = {
  checkpointBytes: 8 * 1024 * 1024,
  checkpointFactor: 4,
  batchBytes: 1024 * 1024,
};

export interface Journal {
  readonly superblock: Superblock;
  /** The reason why everything is refused until the restart, or null. */
  readonly failure: HoldfastError | null;
  /**
   * To be called once, before the first append: replays what was found, in order. `live` lists
   * entries that rebuild the owner's state; it may be consumed over many turns, and must at any
   * time reflect every entry handed to `append` before, whether durable or not.
   */
  begin(replay: (entry: Uint8Array) => void, live: () => Iterable<Uint8Array>): void;
  /** Calls back, never before it returns, when the entry is durable or failed: `disk-full` (later
   * appends may succeed), `disk-error`, `stopped`. */
  append(entry: Uint8Array | EntrySource, done: AppendDone): void;
  /** Appends with the next batch that somebody waits for, or at the close; may get lost. */
  appendLazily(entry: Uint8Array | EntrySource): void;
  /** Writes what is queued, and ends. */
  close(): Promise<void>;
}

interface Entry {
  readonly what: Uint8Array | EntrySource;
  readonly done: AppendDone | null;
}

/** Entries that are written together, and what they say. */
interface Batch {
  readonly entries: readonly Entry[];
  readonly bytes: readonly Uint8Array[];
}

export type JournalOptions = StoreLocation & {
  readonly clock: Clock;
  readonly bounds?: Partial<JournalBounds>;
};

/** Rejects with `store-damaged`, `bad-request` (the store of another host), `disk-full`, `disk-error`. */
export async function openJournal(options: JournalOptions): Promise<Journal> {
  try {
    return await openOrMake(options);
  } catch (error) {
    throw error instanceof DiskError ? fromDisk(error, 'opening the store') : error;
  }
}

async function openOrMake(options: JournalOptions): Promise<Journal> {
  const { disk, folder, log } = options;
  const superblock = await openSuperblock(options);
  const { journalGeneration, journalSequence } = superblock.state;
  const current = journalFile(folder, journalGeneration);
  for (const name of await disk.list(folder)) {
    if (name.startsWith(`${folder}/journal.`) && name !== current) await disk.remove(name);
  }
  if (journalGeneration === 0) {
    const first = await disk.open(journalFile(folder, 1), { create: true });
    await syncFile(first);
    await superblock.update({ journalGeneration: 1, journalSequence: 0 });
    const nothing = { entries: [], sequence: 0, endOffset: 0 };
    return new GroupCommitJournal(options, superblock, first, nothing);
  }
  if (!(await disk.list(folder)).includes(current)) throw damaged(`${current} is missing`);
  const file = await disk.open(current, { create: false });
  const found = await recover(file, current, journalGeneration, journalSequence, log);
  return new GroupCommitJournal(options, superblock, file, found);
}

export function journalFile(folder: string, generation: number): string {
  return `${folder}/journal.${String(generation).padStart(8, '0')}`;
}

class GroupCommitJournal implements Journal {
  readonly superblock: Superblock;
  failure: HoldfastError | null = null;
  readonly #at: StoreLocation;
  readonly #clock: Clock;
  readonly #bounds: JournalBounds;
  #file: DiskFile;
  #generation: number;
  #lastGeneration: number;
  #sequence: number;
  #offset: number;
  #recovered: Uint8Array[];
  #live: () => Iterable<Uint8Array> = () => [];

  #queue: Entry[] = [];
  /** Entries of the queue that somebody waits for. */
  #awaited = 0;
  #inFlight = false;
  /** Bytes that the last checkpoint left, and the size at which a failed one is tried again. */
  #baseBytes = 0;
  #retryBytes = 0;
  /** Entries made durable since the checkpoint under way began; null where there is none. */
  #tail: Uint8Array[] | null = null;
  #checkpoint: Promise<void> = Promise.resolve();
  /** Called when no batch is in flight, while the checkpoint holds the next one back. */
  #idle: (() => void) | null = null;
  #held = false;
  #closing: (() => void) | null = null;

  constructor(
    options: StoreLocation & { readonly clock: Clock; readonly bounds?: Partial<JournalBounds> },
    superblock: Superblock,
    file: DiskFile,
    found: { entries: Uint8Array[]; sequence: number; endOffset: number },
  ) {
    this.#at = options;
    this.#clock = options.clock;
    this.#bounds = { ...defaultBounds, ...options.bounds };
    this.superblock = superblock;
    this.#file = file;
    this.#generation = superblock.state.journalGeneration;
    this.#lastGeneration = this.#generation;
    this.#recovered = found.entries;
    this.#sequence = found.sequence;
    this.#offset = found.endOffset;
  }

  begin(replay: (entry: Uint8Array) => void, live: () => Iterable<Uint8Array>): void {
    for (const entry of this.#recovered) replay(entry);
    this.#recovered = [];
    this.#live = live;
  }

  append(entry: Uint8Array | EntrySource, done: AppendDone): void {
    const refusal = this.failure ?? (this.#closing === null ? null : stopped());
    if (refusal !== null) {
      this.#clock.defer(() => done(refusal));
      return;
    }
    this.#queue.push({ what: entry, done });
    this.#awaited += 1;
    this.#pump();
  }

  appendLazily(entry: Uint8Array | EntrySource): void {
    if (this.failure === null && this.#closing === null)
      this.#queue.push({ what: entry, done: null });
  }

  close(): Promise<void> {
    if (this.#closing !== null) return Promise.resolve();
    return new Promise((resolve) => {
      let finishing = false;
      this.#closing = () => {
        if (finishing) return;
        finishing = true;
        void this.#finish().finally(resolve);
      };
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#inFlight) return;
    if (this.#held) {
      this.#idle?.();
      return;
    }
    if (this.failure !== null) this.#failQueue(this.failure);
    const wanted = this.#closing === null ? this.#awaited > 0 : this.#queue.length > 0;
    if (wanted) this.#writeBatch(this.#takeBatch());
    else if (this.#closing !== null) this.#closing();
  }

  #takeBatch(): Batch {
    const bytes: Uint8Array[] = [];
    let total = 0;
    let count = 0;
    while (count < this.#queue.length) {
      const { what } = this.#queue[count] as Entry;
      if (what instanceof Uint8Array) {
        if (count > 0 && total + what.length + 4 > this.#bounds.batchBytes) break;
        bytes.push(what);
        total += what.length + 4;
      } else {
        // How long it is, is known only once it is said, and then it stays in this batch.
        if (count > 0 && total > this.#bounds.batchBytes / 2) break;
        for (const piece of what.encode()) {
          bytes.push(piece);
          total += piece.length + 4;
        }
      }
      count += 1;
    }
    const entries = count === this.#queue.length ? this.#queue : this.#queue.slice(0, count);
    this.#queue = this.#queue.slice(count);
    this.#awaited = this.#queue.reduce((sum, entry) => sum + (entry.done === null ? 0 : 1), 0);
    return { entries, bytes };
  }

  #writeBatch(batch: Batch): void {
    this.#inFlight = true;
    const { crc32 } = this.#at.disk;
    const bytes = encodeBatch(this.#generation, this.#sequence + 1, batch.bytes, crc32);
    this.#file.write(this.#offset, [bytes], (error) => {
      // Nothing was synced, so the same place may be written again: no batch beyond it exists.
      if (error !== null) this.#settle(batch, this.#explain(error));
      else this.#file.sync((error) => this.#synced(batch, bytes.length, error));
    });
  }

  #synced(batch: Batch, bytes: number, error: DiskError | null): void {
    if (error !== null) {
      // What of the file is on the disk is unknown, and stays so: a second sync would say nothing.
      this.failure = this.#explain(error);
      this.#at.log.error('the journal refuses everything until the restart: a sync failed', {
        reason: error.message,
      });
      this.#settle(batch, this.failure);
      return;
    }
    this.#sequence += 1;
    this.#offset += bytes;
    if (this.#tail !== null) for (const one of batch.bytes) this.#tail.push(one);
    this.#settle(batch, null);
    this.#considerCheckpoint();
  }

  #settle(batch: Batch, error: HoldfastError | null): void {
    for (const entry of batch.entries) entry.done?.(error);
    // Only now: what the callbacks appended shares the next batch.
    this.#inFlight = false;
    this.#pump();
  }

  #failQueue(error: HoldfastError): void {
    const queue = this.#queue;
    this.#queue = [];
    this.#awaited = 0;
    for (const entry of queue) entry.done?.(error);
  }

  #explain(error: unknown): HoldfastError {
    return fromDisk(error, `writing ${journalFile(this.#at.folder, this.#generation)}`);
  }

  #considerCheckpoint(): void {
    const { checkpointBytes, checkpointFactor } = this.#bounds;
    if (this.#tail !== null || this.#closing !== null || this.failure !== null) return;
    if (this.#offset < Math.max(checkpointBytes, checkpointFactor * this.#baseBytes)) return;
    if (this.#offset < this.#retryBytes) return;
    this.#tail = [];
    this.#checkpoint = this.#runCheckpoint().finally(() => {
      this.#tail = null;
      this.#held = false;
      this.#idle = null;
      this.#pump();
    });
  }

  /** Never rejects. A failure before the switch leaves everything as it was. */
  async #runCheckpoint(): Promise<void> {
    this.#lastGeneration += 1;
    const generation = this.#lastGeneration;
    const name = journalFile(this.#at.folder, generation);
    const { disk, log } = this.#at;
    let written: { file: DiskFile; offset: number; sequence: number };
    try {
      written = await writeCheckpoint({
        disk,
        name,
        generation,
        batchBytes: this.#bounds.batchBytes,
        live: this.#live(),
        takeTail: () => (this.#tail as Uint8Array[]).splice(0),
        hold: () => this.#hold(),
      });
    } catch (error) {
      this.#retryBytes = this.#offset + this.#bounds.checkpointBytes / 4;
      log.warn('a checkpoint of the journal was given up', { reason: String(error) });
      await disk.remove(name).catch(() => {});
      return;
    }
    // A batch may have failed meanwhile; then what the files hold is for the restart to see.
    if (this.failure !== null) {
      await written.file.close().catch(() => {});
      return;
    }
    try {
      const { sequence } = written;
      await this.superblock.update({ journalGeneration: generation, journalSequence: sequence });
    } catch (error) {
      this.failure = fromDisk(error, 'switching to the new journal');
      log.error('the journal refuses everything until the restart', { reason: String(error) });
      return;
    }
    const old = { file: this.#file, name: journalFile(this.#at.folder, this.#generation) };
    this.#file = written.file;
    this.#generation = generation;
    this.#sequence = written.sequence;
    this.#offset = written.offset;
    this.#baseBytes = written.offset;
    this.#retryBytes = 0;
    log.debug('the journal was compacted', { generation, bytes: written.offset });
    // What is left over after an error here is removed at the next start.
    void old.file
      .close()
      .then(() => disk.remove(old.name))
      .catch(() => {});
  }

  /** Resolves when no batch is in flight; none begins until the checkpoint has ended. */
  #hold(): Promise<void> {
    this.#held = true;
    if (!this.#inFlight) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle = resolve;
    });
  }

  async #finish(): Promise<void> {
    await this.#checkpoint;
    this.#failQueue(stopped());
    const known = this.failure === null && this.#sequence > this.superblock.state.journalSequence;
    // An orderly end names the last batch, so that its loss would be noticed.
    if (known) await this.superblock.update({ journalSequence: this.#sequence }).catch(() => {});
    this.failure ??= stopped();
    await this.#file.close().catch(() => {});
  }
}

function stopped(): HoldfastError {
  return new HoldfastError('stopped', 'The journal is closed');
}
