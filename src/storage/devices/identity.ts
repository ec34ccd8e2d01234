// Whose a device is: a small file in its root, written when an operator makes the device one of this host,
// and never by a daemon that finds an empty folder. An empty folder in the place of a device is a device that is
// not mounted, and what was put there would be hidden, and missed, the moment that it is.

import { crc32 } from '../../model/crc32.ts';
import { HoldfastError } from '../../model/errors.ts';
import { type HostId, type StoreId, storeId } from '../../model/ids.ts';
import { identityFile } from '../../ports/device.ts';
import type { LocalDisk } from '../../ports/disk.ts';
import { readFrom, syncFile, writeTo } from '../../ports/disk-calls.ts';

export interface DeviceIdentity {
  readonly format: 1;
  readonly cluster: string;
  readonly host: HostId;
  /** What components name as their store. */
  readonly device: StoreId;
  /** How often the device was given up and taken back while the machine ran: what was not synced then may
   * be lost each time. */
  readonly losses: number;
}

const draftFile = `${identityFile}.new`;
/** Written in turn, so that one of them is whole after any crash; and in place, which takes no space. */
const slotBytes = 4096;

/** Rejects with `store-damaged`, and with the device's own errors. */
export async function readIdentity(disk: LocalDisk): Promise<DeviceIdentity> {
  const file = await disk.open(identityFile, { create: false });
  const bytes = new Uint8Array(2 * slotBytes);
  try {
    await readFrom(file, 0, bytes);
  } finally {
    await file.close();
  }
  const [newest] = [bytes.subarray(0, slotBytes), bytes.subarray(slotBytes)]
    .flatMap((slot) => decode(slot) ?? [])
    .sort((a, b) => b.losses - a.losses);
  if (newest === undefined) throw damaged('can not be understood');
  if (newest.format !== 1) throw damaged(`has format ${String(newest.format)}, unknown here`);
  return newest;
}

/** One loss more; durable when it resolves. */
export async function countLoss(disk: LocalDisk, known: DeviceIdentity): Promise<DeviceIdentity> {
  const identity = { ...known, losses: known.losses + 1 };
  const file = await disk.open(identityFile, { create: false });
  try {
    await writeTo(file, (identity.losses % 2) * slotBytes, encode(identity));
    await syncFile(file);
  } finally {
    await file.close();
  }
  return identity;
}

/**
 * Makes an empty device one of this host's. Rejects with `conflict` where there is something already: the
 * device of some host, or files that are none of ours.
 */
export async function initialiseDevice(
  disk: LocalDisk,
  owner: { readonly cluster: string; readonly host: HostId; readonly id: string },
): Promise<DeviceIdentity> {
  const names = await disk.list('');
  if (names.includes(identityFile)) {
    const { cluster, host, device } = await readIdentity(disk);
    throw new HoldfastError(
      'conflict',
      `it is device ${device} of host ${host} in the cluster ${cluster} already`,
    );
  }
  const [first] = names.filter((name) => name !== draftFile);
  if (first !== undefined)
    throw new HoldfastError('conflict', `it is not empty: there is ${first}`);
  const { cluster, host, id } = owner;
  const identity = { format: 1, cluster, host, device: storeId(id), losses: 0 } as const;
  const file = await disk.open(draftFile, { create: true });
  try {
    await writeTo(file, 0, identityContent(identity));
    await syncFile(file);
  } finally {
    await file.close();
  }
  await disk.rename(draftFile, identityFile);
  return identity;
}

function damaged(how: string): HoldfastError {
  return new HoldfastError('store-damaged', `its file ${identityFile} ${how}`);
}

/** The whole file, as it is in the beginning. */
export function identityContent(identity: DeviceIdentity): Uint8Array {
  const bytes = new Uint8Array(2 * slotBytes);
  for (const at of [0, slotBytes]) bytes.set(encode(identity), at);
  return bytes;
}

/** One line of JSON, for people, and one with its checksum. */
function encode(identity: DeviceIdentity): Uint8Array {
  const text = JSON.stringify(identity);
  const bytes = new TextEncoder().encode(`${text}\n${checksum(text)}\n`);
  if (bytes.length > slotBytes) throw new Error('the identity of a device does not fit its slot');
  const slot = new Uint8Array(slotBytes).fill(0x20);
  slot.set(bytes);
  slot[slotBytes - 1] = 0x0a;
  return slot;
}

function decode(slot: Uint8Array): DeviceIdentity | null {
  const [text = '', sum] = new TextDecoder().decode(slot).split('\n');
  return checksum(text) === sum ? (JSON.parse(text) as DeviceIdentity) : null;
}

const checksum = (text: string): string => crc32(new TextEncoder().encode(text)).toString(16);
