// One component on this host: its data with their checksums, its head (identity and fence) and its
// write-intent bitmap. It never returns bytes that are not what was written. It serves whoever took it last with the newest fence; a take first waits for what older
// writers have in flight, so that nothing of theirs lands afterwards.

import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import { limits } from '../../model/limits.ts';
import { compareFences, type Fence } from '../../model/record.ts';
import { DiskError, type DiskFile, type LocalDisk } from '../../ports/disk.ts';
import { readFrom, syncFile, writeTo } from '../../ports/disk-calls.ts';
import { BlockChecksums } from './block-checksums.ts';
import type { ZeroOptions } from './block-device.ts';
import { type ComponentMeta, decodeSlots, encodeSlot, slotBytes } from './component-meta.ts';
import type { TakeAnswer } from './messages.ts';
import { createWriteIntent, type WriteIntent } from './write-intent.ts';

type Done = (error: HoldfastError | null) => void;

const { blockBytes } = limits;

const headOf = (component: string) => `components/${component}.head`;
const dataOf = (component: string) => `components/${component}.data`;
const bitmapOffset = 2 * slotBytes;

export interface Component {
  readonly meta: ComponentMeta;
  take(fence: Fence): Promise<{ answer: TakeAnswer; regions: number[] }>;
  /**
   * `bad-block`: a block is not what was written. `unsettled-block`: a crash may be the reason that it
   * does not match; where `adopt`, it is taken as it is from now on.
   */
  read(
    token: string,
    offset: number,
    length: number,
    adopt: boolean,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void;
  /** No two requests of a writer may touch the same block at once, unless both read. */
  write(token: string, offset: number, bytes: Uint8Array, fua: boolean, done: Done): void;
  /** Whole blocks, of which no copy knows what should be in them: to be `bad-block` here as well. */
  writeBad(token: string, offset: number, length: number, done: Done): void;
  zero(token: string, offset: number, length: number, options: ZeroOptions, done: Done): void;
  flush(token: string, done: Done): void;
  clearIntent(token: string, regions: readonly number[]): void;
  /**
   * Offsets of the blocks in a range (of whole blocks) that do not match; for nobody in particular, at
   * any time. A write that is under way may make a good block seem bad.
   */
  verify(offset: number, length: number): Promise<number[]>;
  readonly isTaken: boolean;
  /** A file of it takes no more: it is of use again when it is opened anew, with `mayHaveLost`. */
  readonly isSpent: boolean;
  /** Requests are under way. */
  readonly isBusy: boolean;
  close(): Promise<void>;
}

interface Change {
  readonly offset: number;
  readonly length: number;
  /** Null: zeros. */
  readonly bytes: Uint8Array | null;
  /** The space of zeros may be given back. */
  readonly unmap: boolean;
  readonly fua: boolean;
  readonly isBad: boolean;
}

export async function createComponentFiles(
  disk: LocalDisk,
  meta: Omit<ComponentMeta, 'fence' | 'incarnation'> & { readonly fence: Fence },
  /** All regions are to be copied to it: its bitmap says so until that is done. */
  mustCopyAll = false,
): Promise<void> {
  await made(disk, dataOf(meta.component), (data) =>
    data.resize(BlockChecksums.fileBytes(meta.sizeBytes)),
  );
  // The head comes last: a component exists when its head does.
  await made(disk, headOf(meta.component), async (head) => {
    await head.resize(bitmapOffset + bitmapBytes(meta.sizeBytes));
    if (mustCopyAll) await writeTo(head, bitmapOffset, allRegions(meta.sizeBytes));
    await writeTo(head, 0, encodeSlot({ ...meta, incarnation: disk.incarnation }, 1));
  });
}

/** Makes a file, fills it, and makes that durable. */
async function made(
  disk: LocalDisk,
  name: string,
  fill: (file: DiskFile) => Promise<void>,
): Promise<void> {
  const file = await disk.open(name, { create: true });
  try {
    await fill(file);
    await syncFile(file);
  } finally {
    await file.close();
  }
}

export async function removeComponentFiles(disk: LocalDisk, component: string): Promise<void> {
  await disk.remove(headOf(component));
  await disk.remove(dataOf(component));
}

interface Opened {
  readonly data: DiskFile;
  readonly meta: ComponentMeta;
  /** Of the newest slot of the head. */
  readonly sequence: number;
  readonly intent: WriteIntent;
}

async function readHead(disk: LocalDisk, component: string, head: DiskFile): Promise<Opened> {
  const slots = new Uint8Array(2 * slotBytes);
  await readFrom(head, 0, slots);
  const { meta, sequence } = decodeSlots(slots, component);
  // A daemon that died may have left it written and not synced: the other slot is not to be written
  // before this one is durable.
  await writeTo(head, (sequence % 2) * slotBytes, encodeSlot(meta, sequence));
  await syncFile(head);
  const bits = new Uint8Array(bitmapBytes(meta.sizeBytes));
  await readFrom(head, bitmapOffset, bits);
  const intent = createWriteIntent(head, bitmapOffset, bits);
  const data = await disk.open(dataOf(component), { create: false });
  try {
    await makeRoomForChecksums(data, meta.sizeBytes, intent);
  } catch (error) {
    await data.close();
    throw error;
  }
  return { data, meta, sequence, intent };
}

/** One that was made before there were checksums: what it holds is taken as it is, region by region. */
async function makeRoomForChecksums(
  data: DiskFile,
  sizeBytes: number,
  intent: WriteIntent,
): Promise<void> {
  if (data.sizeBytes >= BlockChecksums.fileBytes(sizeBytes)) return;
  await new Promise<void>((resolve, reject) => {
    const last = Math.ceil(sizeBytes / limits.regionBytes) - 1;
    intent.set(0, last, (error) => (error === null ? resolve() : reject(error)));
  });
  await data.resize(BlockChecksums.fileBytes(sizeBytes));
  await syncFile(data);
}

/** Rejects with DiskError `missing`, or with `store-damaged`. `newToken` never repeats. `hasLost`: what was not
 * synced before it was opened may be lost, though the machine has gone on. */
export async function openComponent(
  disk: LocalDisk,
  component: string,
  newToken: () => string,
  hasLost = false,
): Promise<Component> {
  const head = await disk.open(headOf(component), { create: false });
  const opened = await readHead(disk, component, head).catch(async (error: unknown) => {
    await head.close();
    throw error;
  });
  const { data, intent } = opened;
  let { meta, sequence } = opened;
  let heads: Promise<unknown> = Promise.resolve();
  try {
    // Durably, or whoever opens it after this daemon would not know.
    if (hasLost) await changeHead({ incarnation: '' });
    // What a sync has failed on would be read, and be gone with the next loss of power.
    if (meta.incarnation === '') await data.dropCached();
  } catch (error) {
    await Promise.all([head.close(), data.close()]);
    throw error;
  }
  const sums = new BlockChecksums(data, meta.sizeBytes, disk.crc32);
  sums.unsettle(intent.regions());

  let token: string | null = null;
  let inFlight = 0;
  let whenIdle: (() => void)[] = [];
  let takes: Promise<unknown> = Promise.resolve();
  let failedSyncs = 0;

  const mayHaveLost = () => meta.incarnation !== disk.incarnation;

  /** One after the other, each into the slot of the older state; a failed one is not counted. */
  function changeHead(change: Partial<ComponentMeta>): Promise<void> {
    const result = heads.then(async () => {
      const next = { ...meta, ...change };
      await writeTo(head, ((sequence + 1) % 2) * slotBytes, encodeSlot(next, sequence + 1));
      await syncFile(head);
      sequence += 1;
      meta = next;
    });
    heads = result.catch(() => undefined);
    return result;
  }

  function syncData(done: (error: DiskError | null) => void): void {
    const failedBefore = failedSyncs;
    const landed = sums.syncing();
    data.sync((error) => {
      const isDurable = error === null && failedSyncs === failedBefore;
      landed(isDurable);
      if (isDurable) return done(null);
      sums.unsettle(intent.regions());
      // After a failed sync the system may have dropped what it could not write: what was
      // acknowledged before is in doubt, and another sync would succeed without it.
      if (error !== null) {
        failedSyncs += 1;
        token = null;
        meta = { ...meta, incarnation: '' };
        changeHead({ incarnation: '' }).catch(() => undefined);
      }
      done(error ?? new DiskError('failed', 'another sync failed at the same time'));
    });
  }

  /** Who flushes knows what was lost: it has replaced it by now, or does without it. */
  function settleLosses(done: (error: unknown) => void): void {
    if (!mayHaveLost()) return done(null);
    const failedBefore = failedSyncs;
    changeHead({ incarnation: disk.incarnation }).then(() => {
      if (failedSyncs === failedBefore) return done(null);
      meta = { ...meta, incarnation: '' };
      done(new DiskError('failed', 'a sync failed at the same time'));
    }, done);
  }

  function refusal(given: string, offset: number, length: number): HoldfastError | null {
    if (token === null || given !== token) {
      return new HoldfastError('fenced', `component ${component} was taken by another writer`);
    }
    if (offset < 0 || offset + length > meta.sizeBytes) {
      return new HoldfastError(
        'bad-request',
        `range ${offset}+${length} is outside of ${component}`,
      );
    }
    return null;
  }

  function began(): void {
    inFlight += 1;
  }

  function ended(): void {
    inFlight -= 1;
    if (inFlight > 0) return;
    const waiting = whenIdle;
    whenIdle = [];
    for (const resume of waiting) resume();
  }

  /** The bytes of whole blocks: null if all are what was written, otherwise which is not. */
  function mismatch(firstBlock: number, bytes: Uint8Array, adopt: boolean): HoldfastError | null {
    let unsettled: HoldfastError | null = null;
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = firstBlock + at / blockBytes;
      const one = bytes.length === blockBytes ? bytes : bytes.subarray(at, at + blockBytes);
      const verdict = sums.check(block, one);
      if (verdict === 'good') continue;
      const what = `${dataOf(component)} of object ${meta.object}: the block at offset ${block * blockBytes}`;
      if (verdict === 'bad') {
        return new HoldfastError('bad-block', `${what} does not match its checksum`);
      }
      if (adopt) sums.adopt(block, one);
      else {
        unsettled ??= new HoldfastError(
          'unsettled-block',
          `${what} may be left half written by a crash`,
        );
      }
    }
    return unsettled;
  }

  /** Whole blocks, with their entries in memory when it calls back. */
  function readBlocks(
    firstBlock: number,
    lastBlock: number,
    done: (error: DiskError | null, bytes: Uint8Array) => void,
  ): void {
    const bytes = new Uint8Array((lastBlock - firstBlock + 1) * blockBytes);
    data.read(firstBlock * blockBytes, bytes, (error) => {
      if (error !== null) return done(error, bytes);
      sums.load(firstBlock, lastBlock, (failure) => done(failure, bytes));
    });
  }

  /** Enters a block of which only a part is written: what it holds otherwise stays what it is worth. */
  function putPart(block: number, held: Uint8Array, request: Change): void {
    const verdict = sums.check(block, held);
    const from = Math.max(request.offset, block * blockBytes);
    const to = Math.min(request.offset + request.length, (block + 1) * blockBytes);
    const part = held.subarray(from - block * blockBytes, to - block * blockBytes);
    if (request.bytes === null) part.fill(0);
    else part.set(request.bytes.subarray(from - request.offset, to - request.offset));
    if (verdict === 'bad' || request.isBad) sums.putBad(block, held);
    else if (verdict === 'good') sums.put(block, held);
  }

  function putWhole(firstBlock: number, lastBlock: number, request: Change): void {
    const { bytes, offset } = request;
    if (bytes === null) return sums.putZeros(firstBlock, lastBlock);
    for (let block = firstBlock; block <= lastBlock; block += 1) {
      const at = block * blockBytes - offset;
      const one =
        at === 0 && bytes.length === blockBytes ? bytes : bytes.subarray(at, at + blockBytes);
      if (request.isBad) sums.putBad(block, one);
      else sums.put(block, one);
    }
  }

  /** The bits durably, then data and checksums; these are durable with the next sync. */
  function change(given: string, request: Change, done: Done): void {
    const { offset, length } = request;
    const refused = refusal(given, offset, length);
    if (refused !== null) return done(refused);
    if (length === 0) return done(null);
    began();
    const finish = (error: DiskError | null) => {
      ended();
      done(error === null ? null : fromDisk(error, component));
    };
    const end = offset + length;
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((end - 1) / blockBytes);
    const firstWhole = Math.ceil(offset / blockBytes);
    const lastWhole = Math.floor(end / blockBytes) - 1;
    const store = (loadError: DiskError | null) => {
      if (loadError !== null) return finish(loadError);
      putWhole(firstWhole, lastWhole, request);
      const landed = (error: DiskError | null) => {
        if (error !== null) sums.lose(first, last);
        // The checksums follow with the next flush: the bit is set, so that nothing rests on them.
        if (error !== null || !request.fua) finish(error);
        else syncData(finish);
      };
      if (request.bytes !== null) data.write(offset, [request.bytes], landed);
      else if (request.unmap) data.discard(offset, length, landed);
      else data.write(offset, zeros(length), landed);
    };
    const edges: number[] = [];
    if (first < firstWhole) edges.push(first);
    if (last > lastWhole && (last !== first || edges.length === 0)) edges.push(last);
    const nextEdge = (index: number) => {
      const edge = edges[index];
      if (edge === undefined) return sums.load(first, last, store);
      readBlocks(edge, edge, (error, held) => {
        if (error !== null) return finish(error);
        putPart(edge, held, request);
        nextEdge(index + 1);
      });
    };
    intent.set(
      Math.floor(offset / limits.regionBytes),
      Math.floor((end - 1) / limits.regionBytes),
      (intentError) => {
        if (intentError !== null) finish(intentError);
        else if (edges.length === 0) sums.load(first, last, store);
        else nextEdge(0);
      },
    );
  }

  async function take(fence: Fence): Promise<{ answer: TakeAnswer; regions: number[] }> {
    if (compareFences(fence, meta.fence) < 0) {
      throw new HoldfastError(
        'fenced',
        `component ${component} has taken the newer fence ${meta.fence.epoch}.${meta.fence.open}`,
      );
    }
    token = null; // from here on nothing of an older writer begins
    if (inFlight > 0) await new Promise<void>((resolve) => whenIdle.push(resolve));
    await changeHead({ fence });
    token = newToken();
    return {
      answer: {
        token,
        incarnation: disk.incarnation,
        mayHaveLost: mayHaveLost(),
        isUnsettled: sums.isUnsettled,
      },
      regions: intent.regions(),
    };
  }

  return {
    get meta() {
      return meta;
    },
    take(fence) {
      const result = takes.then(() => take(fence));
      takes = result.catch(() => undefined);
      return result;
    },
    read(given, offset, length, adopt, done) {
      const refused = refusal(given, offset, length);
      if (refused !== null) return done(refused, new Uint8Array(0));
      if (length === 0) return done(null, new Uint8Array(0));
      began();
      const first = Math.floor(offset / blockBytes);
      const last = Math.floor((offset + length - 1) / blockBytes);
      readBlocks(first, last, (error, blocks) => {
        ended();
        if (error !== null) return done(fromDisk(error, component), blocks);
        const from = offset - first * blockBytes;
        const bytes = length === blocks.length ? blocks : blocks.subarray(from, from + length);
        done(mismatch(first, blocks, adopt), bytes);
      });
    },
    write: (given, offset, bytes, fua, done) =>
      change(given, { offset, length: bytes.length, bytes, unmap: false, fua, isBad: false }, done),
    writeBad(given, offset, length, done) {
      const bytes = new Uint8Array(length);
      change(given, { offset, length, bytes, unmap: false, fua: false, isBad: true }, done);
    },
    zero: (given, offset, length, { fua, unmap }, done) =>
      change(given, { offset, length, bytes: null, unmap, fua, isBad: false }, done),
    flush(given, done) {
      const refused = refusal(given, 0, 0);
      if (refused !== null) return done(refused);
      began();
      const finish = (error: unknown) => {
        ended();
        done(error === null ? null : fromDisk(error, component));
      };
      const flushed = sums.flushing();
      sums.writeOut((writeError) => {
        if (writeError !== null) return finish(writeError);
        syncData((error) => {
          if (error !== null) return finish(error);
          flushed();
          settleLosses(finish);
        });
      });
    },
    clearIntent(given, regions) {
      if (refusal(given, 0, 0) !== null) return;
      // A clear bit says that a block which does not match is bad, not that a crash left it so.
      intent.clear(regions.filter((region) => sums.isSettled(region)));
    },
    verify(offset, length) {
      const first = Math.floor(offset / blockBytes);
      const last = Math.floor((Math.min(offset + length, meta.sizeBytes) - 1) / blockBytes);
      began();
      return new Promise((resolve, reject) => {
        readBlocks(first, last, (error, bytes) => {
          ended();
          if (error !== null) return reject(fromDisk(error, component));
          const bad: number[] = [];
          for (let at = 0; at < bytes.length; at += blockBytes) {
            const verdict = sums.check(
              first + at / blockBytes,
              bytes.subarray(at, at + blockBytes),
            );
            if (verdict === 'bad') bad.push(first * blockBytes + at);
          }
          resolve(bad);
        });
      });
    },
    get isBusy() {
      return inFlight > 0;
    },
    get isTaken() {
      return token !== null;
    },
    get isSpent() {
      return data.isSpent || head.isSpent;
    },
    async close() {
      token = null;
      if (inFlight > 0) await new Promise<void>((resolve) => whenIdle.push(resolve));
      // Not needed, the bits are there; it spares whoever opens it next to settle what they cover.
      await new Promise<void>((resolve) => {
        sums.writeOut(() => resolve());
      });
      await Promise.all([head.close(), data.close()]);
    },
  };
}

function allRegions(sizeBytes: number): Uint8Array {
  const bits = new Uint8Array(bitmapBytes(sizeBytes));
  const regions = Math.ceil(sizeBytes / limits.regionBytes);
  for (let region = 0; region < regions; region += 1) {
    bits[region >> 3] = (bits[region >> 3] as number) | (1 << (region & 7));
  }
  return bits;
}

function bitmapBytes(sizeBytes: number): number {
  return Math.ceil(Math.ceil(sizeBytes / limits.regionBytes) / 8);
}

const zeroChunk = new Uint8Array(64 * 1024);

function zeros(length: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let left = length; left > 0; left -= zeroChunk.length) {
    chunks.push(left >= zeroChunk.length ? zeroChunk : zeroChunk.subarray(0, left));
  }
  return chunks;
}

export function fromDisk(error: unknown, what: string): HoldfastError {
  if (!(error instanceof DiskError)) return asHoldfastError(error);
  const code = error.kind === 'full' ? 'disk-full' : 'disk-error';
  return new HoldfastError(code, `${what}: ${error.message}`, { cause: error });
}
