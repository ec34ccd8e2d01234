// The checksums of one component's data: 32 bits for each block of 4 KiB, in a table behind the data in
// the same file, so that one sync makes both durable. A page of the table covers 4 MiB of data; pages
// are read when first needed and written out, changed, before a sync.
//
// An entry is the block's CRC-32, XORed with that of a block of zeros: what was never written reads as
// zeros, has the entry 0, and a new component needs no table. An entry that is off by `poison` says
// that the block is known to be bad, whatever it holds.
//
// While the daemon lives the table in memory is exact. After a crash it is so only where the
// write-intent bits are clear; blocks of other regions are *unsettled* until they are found to match,
// are overwritten, or are taken as they are (`adopt`) because no copy has a better one.
// docs/protocols/disk.md says why that is safe.

import { limits } from '../../model/limits.ts';
import type { DiskError, DiskFile } from '../../ports/disk.ts';

type Done = (error: DiskError | null) => void;

const { blockBytes } = limits;
const entriesPerPage = blockBytes / 4;
const poison = 0xa5000001;
/** Pages that stay in memory although nobody needs them now: they cover 16 GiB. */
const maxPages = 4096;

interface Page {
  readonly index: number;
  /** In the byte order of the machine: the file never leaves it. */
  readonly entries: Uint32Array;
  isRead: boolean;
  /** Changed since it was last written out. */
  isDirty: boolean;
  /** Written out, and not known to be durable. */
  isUnsynced: boolean;
  wasUsed: boolean;
  users: number;
  waiting: Done[];
}

export type Verdict = 'good' | 'unsettled' | 'bad';

export class BlockChecksums {
  private readonly file: DiskFile;
  private readonly dataBytes: number;
  private readonly crc: (bytes: Uint8Array) => number;
  private readonly crcOfZeros: number;
  private readonly pages = new Map<number, Page>();
  private readonly dirty = new Set<Page>();
  private unsynced = new Set<Page>();
  private writingOut = false;
  private queue: Done[] = [];
  /** Region -> its unsettled blocks, one bit each; null: all of them. */
  private readonly unsettled = new Map<number, Uint8Array | null>();
  /** Regions with blocks that were adopted since the last flush, and when (counted in adoptions). */
  private readonly adopted = new Map<number, number>();
  private adoptions = 0;

  constructor(file: DiskFile, sizeBytes: number, crc: (bytes: Uint8Array) => number) {
    this.file = file;
    this.dataBytes = roundedUp(sizeBytes);
    this.crc = crc;
    this.crcOfZeros = crc(new Uint8Array(blockBytes));
  }

  /** Of data and table. */
  static fileBytes(sizeBytes: number): number {
    const blocks = roundedUp(sizeBytes) / blockBytes;
    return roundedUp(sizeBytes) + Math.ceil(blocks / entriesPerPage) * blockBytes;
  }

  /** The table can not be relied upon in these regions. */
  unsettle(regions: readonly number[]): void {
    for (const region of regions) this.unsettled.set(region, null);
  }

  /** Calls back when the entries of these blocks are in memory, at once if they are; they stay there
   * until it returns. */
  load(firstBlock: number, lastBlock: number, then: Done): void {
    const first = Math.floor(firstBlock / entriesPerPage);
    const last = Math.floor(lastBlock / entriesPerPage);
    if (first === last) {
      const page = this.pages.get(first);
      if (page?.isRead) {
        page.wasUsed = true;
        return then(null);
      }
    }
    let missing = 1;
    let failure: DiskError | null = null;
    const used: Page[] = [];
    const landed = (error: DiskError | null) => {
      failure ??= error;
      missing -= 1;
      if (missing > 0) return;
      then(failure);
      for (const page of used) page.users -= 1;
      if (this.pages.size > maxPages) this.trim();
    };
    for (let index = first; index <= last; index += 1) {
      const page = this.pages.get(index) ?? this.read(index);
      page.users += 1;
      page.wasUsed = true;
      used.push(page);
      if (page.isRead) continue;
      missing += 1;
      page.waiting.push(landed);
    }
    landed(null);
  }

  /** What is to be thought of a block (whole, with the zeros behind the last one). Its entry is loaded. */
  check(block: number, bytes: Uint8Array): Verdict {
    const sum = this.sumOf(bytes);
    const entry = this.get(block);
    if (entry === sum) {
      if (this.unsettled.size > 0) this.settle(block);
      return 'good';
    }
    return this.unsettled.size > 0 && this.isUnsettledBlock(block) && entry !== (sum ^ poison) >>> 0
      ? 'unsettled'
      : 'bad';
  }

  /** An unsettled block counts from now on as what it holds. */
  adopt(block: number, bytes: Uint8Array): void {
    this.adoptions += 1;
    this.adopted.set(regionOf(block), this.adoptions);
    this.put(block, bytes);
  }

  /** The block is, or will be, overwritten with these bytes. */
  put(block: number, bytes: Uint8Array): void {
    this.change(block, this.sumOf(bytes));
  }

  putZeros(firstBlock: number, lastBlock: number): void {
    for (let block = firstBlock; block <= lastBlock; block += 1) this.change(block, 0);
  }

  /** The block is not what it should be, with these bytes in it: only what overwrites it heals it. */
  putBad(block: number, bytes: Uint8Array): void {
    this.change(block, (this.sumOf(bytes) ^ poison) >>> 0);
  }

  /** A write to these blocks failed: nobody knows what they hold, nor did anybody acknowledge it. */
  lose(firstBlock: number, lastBlock: number): void {
    const blocks = blocksPerRegion();
    for (let block = firstBlock; block <= lastBlock; block += 1) {
      const region = regionOf(block);
      let bits = this.unsettled.get(region);
      if (bits === null) continue;
      if (bits === undefined) {
        bits = new Uint8Array(Math.ceil(blocks / 8));
        this.unsettled.set(region, bits);
      }
      const at = block % blocks;
      bits[at >> 3] = (bits[at >> 3] as number) | (1 << (at & 7));
    }
  }

  /** Somewhere. */
  get isUnsettled(): boolean {
    return this.unsettled.size > 0;
  }

  /** Whether all that the table says of the region is exact, and durable since the last flush. */
  isSettled(region: number): boolean {
    return !this.unsettled.has(region) && !this.adopted.has(region);
  }

  /** Writes out what was changed; a sync has to follow. */
  writeOut(done: Done): void {
    if (this.dirty.size === 0 && !this.writingOut) return done(null);
    this.queue.push(done);
    if (!this.writingOut) this.writeNext();
  }

  /** To be called when a sync begins; the result when it has ended. */
  syncing(): (isDurable: boolean) => void {
    const covered = this.unsynced;
    if (covered.size > 0) this.unsynced = new Set();
    return (isDurable) => {
      for (const page of covered) {
        if (!this.unsynced.has(page)) page.isUnsynced = false;
        // The system may have dropped it, and believes that it is written.
        if (!isDurable) this.markDirty(page);
      }
    };
  }

  /** To be called when a flush begins, before anything is written out; the result when it is done. */
  flushing(): () => void {
    const { adoptions } = this;
    return () => {
      for (const [region, at] of this.adopted) if (at <= adoptions) this.adopted.delete(region);
    };
  }

  private get(block: number): number {
    const page = this.pages.get(Math.floor(block / entriesPerPage));
    if (!page?.isRead) throw new Error(`the checksum of block ${block} is not loaded`);
    return page.entries[block % entriesPerPage] as number;
  }

  private change(block: number, entry: number): void {
    const page = this.pages.get(Math.floor(block / entriesPerPage));
    if (!page?.isRead) throw new Error(`the checksum of block ${block} is not loaded`);
    page.entries[block % entriesPerPage] = entry;
    if (!page.isDirty) this.markDirty(page);
    if (this.unsettled.size > 0) this.settle(block);
  }

  private markDirty(page: Page): void {
    page.isDirty = true;
    this.dirty.add(page);
  }

  private sumOf(bytes: Uint8Array): number {
    return (this.crc(bytes) ^ this.crcOfZeros) >>> 0;
  }

  private isUnsettledBlock(block: number): boolean {
    const bits = this.unsettled.get(regionOf(block));
    if (bits === undefined) return false;
    const at = block % blocksPerRegion();
    return bits === null || ((bits[at >> 3] as number) & (1 << (at & 7))) !== 0;
  }

  private settle(block: number): void {
    const region = regionOf(block);
    let bits = this.unsettled.get(region);
    if (bits === undefined) return;
    const blocks = blocksPerRegion();
    if (bits === null) {
      const held = Math.min(blocks, this.dataBytes / blockBytes - region * blocks);
      bits = new Uint8Array(Math.ceil(blocks / 8));
      for (let at = 0; at < held; at += 1) {
        bits[at >> 3] = (bits[at >> 3] as number) | (1 << (at & 7));
      }
      this.unsettled.set(region, bits);
    }
    const at = block % blocks;
    bits[at >> 3] = (bits[at >> 3] as number) & ~(1 << (at & 7));
    if (bits.every((byte) => byte === 0)) this.unsettled.delete(region);
  }

  private read(index: number): Page {
    const page: Page = {
      index,
      entries: new Uint32Array(entriesPerPage),
      isRead: false,
      isDirty: false,
      isUnsynced: false,
      wasUsed: true,
      users: 0,
      waiting: [],
    };
    this.pages.set(index, page);
    const bytes = new Uint8Array(page.entries.buffer);
    this.file.read(this.offsetOf(index), bytes, (error) => {
      if (error === null) page.isRead = true;
      else this.pages.delete(index);
      const { waiting } = page;
      page.waiting = [];
      for (const done of waiting) done(error);
    });
    return page;
  }

  private offsetOf(index: number): number {
    return this.dataBytes + index * blockBytes;
  }

  /** One batch at a time, so that no older image of a page lands on a newer one. */
  private writeNext(): void {
    const batch = this.queue;
    this.queue = [];
    const pages = [...this.dirty].sort((a, b) => a.index - b.index);
    this.writingOut = true;
    let missing = 1;
    let failure: DiskError | null = null;
    const landed = (error: DiskError | null) => {
      failure ??= error;
      missing -= 1;
      if (missing > 0) return;
      this.writingOut = false;
      for (const page of pages) {
        page.users -= 1;
        page.isUnsynced = true;
        this.unsynced.add(page);
        if (failure !== null) this.markDirty(page);
      }
      for (const done of batch) done(failure);
      if (this.queue.length > 0 && !this.writingOut) this.writeNext();
    };
    for (let from = 0; from < pages.length; ) {
      const run = adjoining(pages, from);
      from += run.length;
      missing += 1;
      const images = run.map((page) => {
        page.isDirty = false;
        page.users += 1; // not to be read again before this has landed
        this.dirty.delete(page);
        return new Uint8Array(page.entries.slice().buffer);
      });
      this.file.write(this.offsetOf((run[0] as Page).index), images, landed);
    }
    landed(null);
  }

  /** Drops pages that were not used since it came by last; those that the file does not hold for
   * certain stay. */
  private trim(): void {
    for (const page of this.pages.values()) {
      if (this.pages.size <= maxPages) return;
      if (page.users > 0 || page.isDirty || page.isUnsynced || !page.isRead) continue;
      this.pages.delete(page.index);
      if (!page.wasUsed) continue;
      page.wasUsed = false;
      this.pages.set(page.index, page);
    }
  }
}

function roundedUp(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes;
}

function blocksPerRegion(): number {
  return limits.regionBytes / blockBytes;
}

function regionOf(block: number): number {
  return Math.floor((block * blockBytes) / limits.regionBytes);
}

/** Pages from there on that follow each other in the file. */
function adjoining(pages: readonly Page[], from: number): Page[] {
  const run: Page[] = [];
  for (let at = from; at < pages.length; at += 1) {
    const page = pages[at] as Page;
    if (run.length > 0 && page.index !== (run.at(-1) as Page).index + 1) break;
    run.push(page);
  }
  return run;
}
