// What each component of each disk has been given, by the stamps in the bytes: which write of which
// epoch is on which copy of which block. It is told of every write to a component's file, whoever made
// it (a guest's write, a resync, a reconciliation), and asks the devices themselves where what a copy
// was given and what it still has may differ.

import type { ComponentId, HostId } from '../../model/ids.ts';
import { type Component, components, type DiskRecord } from '../../model/record.ts';
import type { VirtualDisk } from '../world/disk.ts';
import { blockBytes, type Stamp, sectorBytes, stampAt } from '../world/disk-truth.ts';

/** What a copy was given of one block. */
export interface GivenBlock {
  /** Offset in the component's file. */
  readonly offset: number;
  last: Stamp;
  highestSerial: number;
}

export const fileOf = (component: ComponentId) => `components/${component}.data`;
const prefix = 'components/';
const suffix = '.data';
/** The first byte of a stamp: spares most blocks of zeros a closer look. */
const firstByte = 0x48;
const lastSector = blockBytes - sectorBytes;

/** Component -> number of the block in the guest's disk. */
type Given = Map<ComponentId, Map<number, GivenBlock>>;

export class Copies {
  /** The disk of the host that has this file, or is in the place of the one that had it. */
  readonly #device: (host: HostId, file: string) => VirtualDisk | null;
  readonly #given: Given = new Map();
  readonly #buffer = new Uint8Array(sectorBytes);

  constructor(device: (host: HostId, file: string) => VirtualDisk | null) {
    this.#device = device;
  }

  /** Null: the file holds no component's data. */
  static componentOf(file: string): ComponentId | null {
    if (!file.startsWith(prefix) || !file.endsWith(suffix)) return null;
    return file.slice(prefix.length, -suffix.length) as ComponentId;
  }

  /** Calls back for each whole stamped block, with what the copy had been given before. `isAtHome`: a guest has
   * written that to this place. */
  wrote(
    component: ComponentId,
    offset: number,
    bytes: Uint8Array,
    isAtHome: (stamp: Stamp, offset: number) => boolean,
    each: (stamp: Stamp, before: Stamp | null) => void,
  ): void {
    const first = (blockBytes - (offset % blockBytes)) % blockBytes;
    for (let at = first; at + blockBytes <= bytes.length; at += blockBytes) {
      if (bytes[at] !== firstByte) continue;
      const stamp = stampAt(bytes, at);
      if (stamp === null || !isAtHome(stamp, offset + at)) continue;
      const before = this.#give(component, offset + at, stamp);
      each(stamp, before);
    }
  }

  given(component: ComponentId, block: number): GivenBlock | null {
    return this.#given.get(component)?.get(block) ?? null;
  }

  /** Whether the copy has that write of the block now, by what it was given or by what is there. */
  holds(component: Component, stamp: Stamp): boolean {
    const given = this.given(component.id, stamp.block);
    if (given === null) return false;
    if (given.last.serial === stamp.serial) return true;
    const file = fileOf(component.id);
    const content = this.#device(component.host, file)?.files.get(file)?.content;
    content?.read(given.offset, this.#buffer);
    return content !== undefined && stampAt(this.#buffer, 0)?.serial === stamp.serial;
  }

  /** Whether that write of the block, or a later one, would survive a loss of power. Bits that flipped
   * afterwards, and a device that was taken away with it, are another matter. */
  isDurable(component: Component, stamp: Stamp): boolean {
    const given = this.given(component.id, stamp.block);
    const file = fileOf(component.id);
    const device = this.#device(component.host, file);
    if (given === null || device === null) return false;
    return [0, lastSector].every(
      (sector) =>
        device.readDurable(file, given.offset + sector, this.#buffer) &&
        (stampAt(this.#buffer, 0)?.serial ?? 0) >= stamp.serial,
    );
  }

  /** The object is deleted. */
  forget(record: DiskRecord): void {
    for (const one of components(record.blueprint)) this.#given.delete(one.id);
  }

  #give(component: ComponentId, offset: number, stamp: Stamp): Stamp | null {
    let blocks = this.#given.get(component);
    if (blocks === undefined) this.#given.set(component, (blocks = new Map()));
    const known = blocks.get(stamp.block);
    if (known === undefined) {
      blocks.set(stamp.block, { offset, last: stamp, highestSerial: stamp.serial });
      return null;
    }
    const before = known.last;
    known.last = stamp;
    known.highestSerial = Math.max(known.highestSerial, stamp.serial);
    return before;
  }
}
