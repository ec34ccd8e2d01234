// The further devices of one machine: they outlive its daemons, and its daemons outlive them. Whoever puts one in
// makes it a device of this host at once, as an operator would.

import type { DeviceClass } from '../../model/device.ts';
import { type HostId, storeId } from '../../model/ids.ts';
import { type DevicePort, identityFile } from '../../ports/device.ts';
import { DiskError } from '../../ports/disk.ts';
import { identityContent } from '../../storage/devices/identity.ts';
import { VirtualDisk } from './disk.ts';
import type { SeededRandom } from './random.ts';
import type { Receiver, VirtualTime } from './time.ts';

export interface DeviceSize {
  readonly name: string;
  readonly class: DeviceClass;
  readonly diskBytes: number;
}

/** Of the whole virtual world. */
export const virtualCluster = 'virtual';

export class VirtualDevice {
  readonly name: string;
  readonly disk: VirtualDisk;
  readonly #class: DeviceClass;
  readonly #host: HostId;
  #installed = 0;

  constructor(
    time: VirtualTime,
    random: SeededRandom,
    host: HostId,
    size: DeviceSize,
    crc32?: (bytes: Uint8Array) => number,
  ) {
    this.name = size.name;
    this.#class = size.class;
    this.#host = host;
    this.disk = new VirtualDisk(time, random, size.diskBytes, crc32);
    this.install();
  }

  /** What components name as their store. */
  get store(): string {
    return `${this.#host}-${this.name}-${this.#installed}`;
  }

  /** An empty one, in the place of whatever was there. */
  install(): void {
    this.#installed += 1;
    this.disk.replace();
    const identity = {
      format: 1,
      cluster: virtualCluster,
      host: this.#host,
      device: storeId(this.store),
      losses: 0,
    } as const;
    this.disk.put(identityFile, identityContent(identity));
  }

  port(receiver: Receiver): DevicePort {
    return {
      name: this.name,
      class: this.#class,
      id: storeId(this.store),
      capacityBytes: null,
      open: async () => {
        if (this.disk.isPulled) throw new DiskError('missing', `nothing is at ${this.name}`);
        return this.disk.open(receiver);
      },
    };
  }
}
