// What reads of one VM's disks may return. The truth is what the guest was told: a write that was
// acknowledged is read until the guest ends, one that was flushed for ever. What was written and
// never flushed may be there, whole or in some of its sectors, until the next boot has looked: what
// that finds of earlier ones is there for ever, too.
//
// Each sector of a block carries the serial number of the write that it is from, so that it can be told
// which write a read returned.

import { bytesForAMoment } from './slab.ts';

export const blockBytes = 4096;
export const sectorBytes = 512;

/** What stands at the beginning of each sector that a guest wrote. */
export interface Stamp {
  readonly vm: number;
  readonly disk: number;
  readonly block: number;
  readonly serial: number;
  readonly epoch: number;
}

const magic = 0x48465354;
const stampBytes = 24;

export function stampBlock(stamp: Stamp): Uint8Array {
  const block = bytesForAMoment(blockBytes);
  const view = new DataView(block.buffer, block.byteOffset);
  for (let at = 0; at < blockBytes; at += sectorBytes) {
    view.setUint32(at, magic);
    view.setUint32(at + 4, stamp.vm);
    view.setUint32(at + 8, stamp.disk);
    view.setUint32(at + 12, stamp.block);
    view.setUint32(at + 16, stamp.serial);
    view.setUint32(at + 20, stamp.epoch);
  }
  return block;
}

/** The stamp of the sector that begins there, or null. */
export function stampAt(bytes: Uint8Array, at: number): Stamp | null {
  if (bytes.length - at < stampBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(at) !== magic) return null;
  return {
    vm: view.getUint32(at + 4),
    disk: view.getUint32(at + 8),
    block: view.getUint32(at + 12),
    serial: view.getUint32(at + 16),
    epoch: view.getUint32(at + 20),
  };
}

interface Version {
  readonly serial: number;
  readonly boot: number;
  isAcknowledged: boolean;
  isFlushed: boolean;
}

interface Block {
  /** Oldest first; the first is the last one that is known to be there for good. */
  versions: Version[];
}

export interface WriteToken {
  readonly block: Block;
  readonly version: Version;
}

export class DiskTruth {
  /** Number of the VM in the world; part of each stamp. */
  readonly vm: number;
  #serial = 0;
  #boot = 0;
  readonly #blocks = new Map<string, Block>();

  constructor(vm: number) {
    this.vm = vm;
  }

  /** The guest begins anew: what it had not flushed need not be there any more. */
  booted(): number {
    this.#boot += 1;
    for (const block of this.#blocks.values()) {
      for (const version of block.versions) version.isAcknowledged = version.isFlushed;
    }
    return this.#boot;
  }

  nextSerial(): number {
    this.#serial += 1;
    return this.#serial;
  }

  write(disk: number, block: number, serial: number): WriteToken {
    const entry = this.#block(disk, block);
    const version = { serial, boot: this.#boot, isAcknowledged: false, isFlushed: false };
    entry.versions.push(version);
    return { block: entry, version };
  }

  /** `isDurable`: it was a write through (FUA). An answer to a guest that is no more says nothing. */
  acknowledged(token: WriteToken, isDurable: boolean, boot: number): void {
    if (boot !== this.#boot) return;
    token.version.isAcknowledged = true;
    if (isDurable) this.flushed([token], boot);
  }

  flushed(tokens: readonly WriteToken[], boot: number): void {
    if (boot !== this.#boot) return;
    for (const { block, version } of tokens) {
      version.isFlushed = true;
      const index = block.versions.indexOf(version);
      if (index > 0) block.versions.splice(0, index);
    }
  }

  /** What is wrong with what a read of one block returned, or null. */
  check(disk: number, block: number, bytes: Uint8Array): string | null {
    const entry = this.#block(disk, block);
    const { versions } = entry;
    const from = Math.max(
      0,
      versions.findLastIndex((version) => version.isAcknowledged),
    );
    const seen = new Set<number>();
    for (let at = 0; at < blockBytes; at += sectorBytes) {
      const stamp = stampAt(bytes, at);
      const serial = stamp?.serial ?? 0;
      const problem = this.#problem(stamp, disk, block, versions, from, serial);
      if (problem !== null)
        return `disk${disk} block ${block} sector ${at / sectorBytes}: ${problem}`;
      seen.add(serial);
    }
    // What was once read stays; writes of earlier boots that it does not show are gone for good.
    const [serial] = seen;
    const read = versions.find((version) => version.serial === serial);
    if (seen.size === 1 && read !== undefined) {
      read.isAcknowledged = true;
      if (read.boot !== this.#boot) read.isFlushed = true;
      entry.versions = versions.filter(
        (version) =>
          version.isFlushed || version.serial <= read.serial || version.boot === this.#boot,
      );
    }
    return null;
  }

  #problem(
    stamp: Stamp | null,
    disk: number,
    block: number,
    versions: readonly Version[],
    from: number,
    serial: number,
  ): string | null {
    if (stamp !== null && (stamp.vm !== this.vm || stamp.disk !== disk || stamp.block !== block)) {
      return `holds what VM ${stamp.vm} wrote to disk${stamp.disk} block ${stamp.block}`;
    }
    const index = versions.findIndex((version) => version.serial === serial);
    if (index >= from) return null;
    const known = versions[from] as Version;
    const kind = known.isFlushed ? 'flushed' : 'acknowledged';
    return `holds write ${serial}, and write ${known.serial} was ${kind}`;
  }

  #block(disk: number, block: number): Block {
    const key = `${disk}/${block}`;
    let entry = this.#blocks.get(key);
    if (entry === undefined) {
      entry = { versions: [{ serial: 0, boot: 0, isAcknowledged: true, isFlushed: true }] };
      this.#blocks.set(key, entry);
    }
    return entry;
  }
}
