// Who this store is: one small record, in two copies that are written alternately. Whatever the power
// does while one is written, the other one is whole. See docs/protocols/register.md, "The journal".
//
// A copy: magic u32, CRC u32 of what follows the header, length u32, then JSON; 512 bytes at most,
// so that it lies in one sector.

import { crc32 } from '../../model/crc32.ts';
import { HoldfastError } from '../../model/errors.ts';
import {
  type HostId,
  type Incarnation,
  incarnation,
  type StoreId,
  storeId,
} from '../../model/ids.ts';
import type { LocalDisk } from '../../ports/disk.ts';
import { readFrom, syncFile, writeTo } from '../../ports/disk-calls.ts';
import type { Log } from '../../ports/log.ts';
import type { Random } from '../../ports/random.ts';
import { damaged, fromDisk } from './disk-errors.ts';

export interface SuperblockState {
  readonly format: 2;
  /** Of this copy; the higher one of two whole copies counts. */
  readonly generation: number;
  readonly host: HostId;
  readonly store: StoreId;
  /** Grows with every opening of the store, durably before anything else is done with it. */
  readonly incarnation: Incarnation;
  /** The longest lease that this voter ever granted: what it waits for after a restart. */
  readonly longestLeaseMs: number;
  /** The journal file in force (0: none yet) and the least number that its last batch must have. */
  readonly journalGeneration: number;
  readonly journalSequence: number;
}

export type SuperblockChange = Partial<
  Pick<SuperblockState, 'longestLeaseMs' | 'journalGeneration' | 'journalSequence'>
>;

export interface Superblock {
  readonly state: SuperblockState;
  /** Resolves when the change is durable. After a failed sync it refuses until the restart. */
  update(change: SuperblockChange): Promise<void>;
}

export interface StoreLocation {
  readonly disk: LocalDisk;
  /** Folder of the superblock and the journal. */
  readonly folder: string;
  readonly host: HostId;
  readonly random: Random;
  readonly log: Log;
}

const magic = 0xff484653;
const maxBytes = 512;
const slots = ['superblock.a', 'superblock.b'] as const;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/**
 * Opens the store in the folder, or makes a new one where there is none, and begins its next
 * incarnation. Rejects with `store-damaged`, with `bad-request` for the store of another host, and
 * with `disk-full` or `disk-error`.
 */
export async function openSuperblock(at: StoreLocation): Promise<Superblock> {
  const best = (await readBest(at)) ?? (await makeStore(at));
  if (best.host !== at.host) {
    throw new HoldfastError(
      'bad-request',
      `The store in ${at.folder} belongs to host ${best.host}, not to ${at.host}`,
    );
  }
  if (best.format !== 2) {
    throw new HoldfastError(
      'bad-request',
      `The store in ${at.folder} has format ${String(best.format)}; this version knows only 2`,
    );
  }
  // The best copy may be readable and yet not be on the disk (after a failed sync); the other one is
  // overwritten only once this one is there for certain.
  await writeCopy(at, best);
  const block = new AlternatingSuperblock(at, best);
  await block.begin();
  return block;
}

class AlternatingSuperblock implements Superblock {
  state: SuperblockState;
  readonly #at: StoreLocation;
  #last: Promise<void> = Promise.resolve();
  #failed: HoldfastError | null = null;

  constructor(at: StoreLocation, state: SuperblockState) {
    this.#at = at;
    this.state = state;
  }

  begin(): Promise<void> {
    return this.#write({ incarnation: incarnation(this.state.incarnation + 1) });
  }

  update(change: SuperblockChange): Promise<void> {
    const next = this.#last.then(() => this.#write(change));
    this.#last = next.catch(() => {});
    return next;
  }

  async #write(change: Partial<SuperblockState>): Promise<void> {
    if (this.#failed !== null) throw this.#failed;
    const next = { ...this.state, ...change, generation: this.state.generation + 1 };
    try {
      await writeCopy(this.#at, next);
    } catch (error) {
      // Whether this copy is on the disk is unknown now: only the other one is to be trusted, so it
      // must not be touched. A write that found no space has changed nothing and may be repeated.
      const failure = fromDisk(error, `writing the superblock in ${this.#at.folder}`);
      if (failure.code !== 'disk-full') this.#failed = failure;
      throw failure;
    }
    this.state = next;
  }
}

async function readBest(at: StoreLocation): Promise<SuperblockState | null> {
  const names = await at.disk.list(at.folder);
  const present = slots
    .map((slot) => `${at.folder}/${slot}`)
    .filter((name) => names.includes(name));
  let best: SuperblockState | null = null;
  for (const name of present) {
    const state = await readCopy(at.disk, name);
    if (state === null) at.log.warn('a copy of the superblock is not readable', { file: name });
    else if (best === null || state.generation > best.generation) best = state;
  }
  if (best !== null) return best;
  if (present.length > 0)
    throw damaged(`No copy of the superblock is whole: ${present.join(', ')}`);
  const journal = names.find((name) => name.startsWith(`${at.folder}/journal.`));
  if (journal !== undefined)
    throw damaged(`There is ${journal}, but no superblock in ${at.folder}`);
  return null;
}

async function readCopy(disk: LocalDisk, name: string): Promise<SuperblockState | null> {
  const file = await disk.open(name, { create: false });
  try {
    const bytes = new Uint8Array(maxBytes);
    await readFrom(file, 0, bytes);
    return decode(bytes);
  } catch (error) {
    throw fromDisk(error, `reading ${name}`);
  } finally {
    await file.close();
  }
}

/** Under another name first: once a file has the superblock's name, it has been whole. */
async function makeStore(at: StoreLocation): Promise<SuperblockState> {
  const store = at.random.stream('store');
  const state: SuperblockState = {
    format: 2,
    generation: 1,
    host: at.host,
    store: storeId(store.id()),
    // Not 0: a host whose disk was replaced must make no ballot that it has made before.
    incarnation: incarnation(Math.floor(store.next() * 2 ** 48)),
    longestLeaseMs: 0,
    journalGeneration: 0,
    journalSequence: 0,
  };
  const draft = `${at.folder}/superblock.new`;
  await writeFile(at.disk, draft, encode(state));
  await at.disk.rename(draft, `${at.folder}/${slots[1]}`);
  at.log.info('made a new store', { folder: at.folder, store: state.store });
  return state;
}

function writeCopy(at: StoreLocation, state: SuperblockState): Promise<void> {
  const slot = slots[state.generation % 2] as string;
  return writeFile(at.disk, `${at.folder}/${slot}`, encode(state));
}

async function writeFile(disk: LocalDisk, name: string, bytes: Uint8Array): Promise<void> {
  const file = await disk.open(name, { create: true });
  try {
    await writeTo(file, 0, bytes);
    await syncFile(file);
  } catch (error) {
    throw fromDisk(error, `writing ${name}`);
  } finally {
    await file.close();
  }
}

function encode(state: SuperblockState): Uint8Array {
  const body = encoder.encode(JSON.stringify(state));
  if (body.length + 12 > maxBytes) throw new Error('the superblock is too long');
  const bytes = new Uint8Array(maxBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(body, 12);
  view.setUint32(0, magic);
  view.setUint32(8, body.length);
  view.setUint32(4, crc32(bytes.subarray(8)));
  return bytes;
}

function decode(bytes: Uint8Array): SuperblockState | null {
  const view = new DataView(bytes.buffer);
  const length = view.getUint32(8);
  if (view.getUint32(0) !== magic || length > maxBytes - 12) return null;
  if (view.getUint32(4) !== crc32(bytes.subarray(8))) return null;
  return JSON.parse(decoder.decode(bytes.subarray(12, 12 + length))) as SuperblockState;
}
