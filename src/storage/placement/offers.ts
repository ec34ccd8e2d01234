// What a host offers to a copy of an object: of its devices those of the wanted class, and on each of them a
// component or several. The stripes of a copy are spread over them, which is what stripes are for.

import { type DeviceClass, usualClass } from '../../model/device.ts';
import type { HostId, StoreId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import type { StoragePolicy } from '../../model/policy.ts';

/** Something with room that components go to. */
export interface PlacementDevice {
  readonly store: StoreId;
  readonly class: DeviceClass;
  readonly name?: string;
  readonly freeBytes: number;
  readonly totalBytes?: number;
  /** Used part from which on it takes no new objects. */
  readonly fullAtPercent?: number;
  /** What is there already, by the directory. */
  readonly placedBytes?: number;
  readonly components?: number;
}

/** A host with its main device. */
export interface PlacementHost extends Omit<PlacementDevice, 'class' | 'name'> {
  readonly host: HostId;
  /** `witness` hosts vote and hold no data. */
  readonly kind: 'full' | 'witness';
  /** What may fail together: a building, a room. Hosts without one are at one site. */
  readonly site?: string | null;
  readonly votes?: number;
  /** All that can be used, the main one included; absent: it has no other, and that is a large one. */
  readonly devices?: readonly PlacementDevice[];
}

export type Wish = Pick<StoragePolicy, 'stripes' | 'deviceClass'>;

/** A host with the devices that it would put a copy on; the space is that of all devices of the class. */
export interface Offer extends PlacementHost {
  /** For each stripe; null: there is no room. */
  readonly stores: readonly StoreId[] | null;
  /** Not of the class that is taken first. */
  readonly isSecondChoice: boolean;
}

/** The classes to try in turn. Who names none gets what is large, and leaves what is fast to others. */
function classesFor({ deviceClass }: Wish): readonly DeviceClass[] {
  return deviceClass === undefined ? [usualClass, 'fast'] : [deviceClass];
}

export function devicesAt(host: PlacementHost): readonly PlacementDevice[] {
  return host.devices ?? [{ ...host, class: usualClass }];
}

/** Of the first class that has room; where none has, of the first that the host has at all. */
export function offerOf(host: PlacementHost, wish: Wish, sizeBytes: number): Offer {
  const offers = classesFor(wish).map((deviceClass, index) => ({
    devices: devicesAt(host).filter((device) => device.class === deviceClass),
    isSecondChoice: index > 0,
  }));
  const sizes = stripeSizes(sizeBytes, wish.stripes);
  for (const { devices, isSecondChoice } of offers) {
    const stores = spread(sizes, devices);
    if (stores !== null) return offer(host, devices, stores, isSecondChoice);
  }
  const had = offers.find(({ devices }) => devices.length > 0)?.devices ?? [];
  return offer(host, had, null, false);
}

function offer(
  host: PlacementHost,
  devices: readonly PlacementDevice[],
  stores: readonly StoreId[] | null,
  isSecondChoice: boolean,
): Offer {
  const sum = (of: (device: PlacementDevice) => number | undefined) =>
    devices.reduce((total, device) => total + (of(device) ?? 0), 0);
  const isKnown = devices.every(({ totalBytes }) => totalBytes !== undefined);
  const { totalBytes: _, ...rest } = host;
  return {
    ...rest,
    stores,
    isSecondChoice,
    freeBytes: sum(({ freeBytes }) => freeBytes),
    ...(isKnown ? { totalBytes: sum(({ totalBytes }) => totalBytes) } : {}),
    placedBytes: sum(({ placedBytes }) => placedBytes),
    components: sum(({ components }) => components),
  };
}

/** Each on a device that has the fewest of them, and of these the most room; null where one fits on none. */
function spread(
  sizes: readonly number[],
  devices: readonly PlacementDevice[],
): readonly StoreId[] | null {
  const left = devices.map((device) => ({ store: device.store, room: roomFor(device), count: 0 }));
  const stores: StoreId[] = [];
  for (const sizeBytes of sizes) {
    let best: (typeof left)[number] | null = null;
    for (const one of left) {
      if (one.room < sizeBytes) continue;
      if (best === null || one.count < best.count) best = one;
      else if (one.count === best.count && one.room > best.room) best = one;
    }
    if (best === null) return null;
    best.room -= sizeBytes;
    best.count += 1;
    stores.push(best.store);
  }
  return stores;
}

/**
 * Room for new components. From `fullAtPercent` on a device takes no new ones: what is left is for those that
 * are there to grow into.
 */
function roomFor({
  freeBytes,
  totalBytes = 0,
  fullAtPercent = limits.fullAtPercent,
}: Pick<PlacementDevice, 'freeBytes' | 'totalBytes' | 'fullAtPercent'>): number {
  const kept = (totalBytes * (100 - fullAtPercent)) / 100;
  return Math.max(0, freeBytes - kept);
}

/** Stripe s holds chunks s, s + stripes, s + 2 * stripes, ...; one stripe is as long as the object. */
function stripeSizes(sizeBytes: number, stripes: number): number[] {
  if (stripes === 1) return [sizeBytes];
  const chunks = Math.ceil(sizeBytes / limits.stripeBytes);
  return Array.from(
    { length: stripes },
    (_, stripe) => Math.ceil((chunks - stripe) / stripes) * limits.stripeBytes,
  );
}
