// Making a folder, the root of a mounted file system, a device of this host. It is an operator's act, done once:
// a daemon that finds no device in a place never makes one there, because what it finds may be the empty
// mount point of a device that is not mounted.

import { readFile, realpath, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { isMap, isSeq, parseDocument } from 'yaml';
import type { DeviceClass } from '../model/device.ts';
import { asHoldfastError, HoldfastError, isError } from '../model/errors.ts';
import type { StoreId } from '../model/ids.ts';
import { openExistingFolder } from '../platform/disk.ts';
import { writeFileDurably } from '../platform/durable-file.ts';
import { createRandom } from '../platform/random.ts';
import { DiskError } from '../ports/disk.ts';
import {
  type DeviceIdentity,
  initialiseDevice,
  readIdentity,
} from '../storage/devices/identity.ts';
import { type HostConfig, parseConfig, readConfig } from './config.ts';

export interface NewDevice {
  readonly configFile: string;
  readonly path: string;
  readonly class: DeviceClass;
  /** As it shall stand in the configuration: `400GiB`. */
  readonly capacity?: string;
  /** It may be on the file system of the folder that it is in. */
  readonly sharesFileSystem?: boolean;
}

export interface AddedDevice {
  readonly device: string;
  readonly path: string;
  /** The configuration named this place before: a running daemon takes it by itself. */
  readonly wasConfigured: boolean;
}

/** Rejects with `conflict` where the folder is in use, not empty, or no file system of its own. */
export async function addDevice(wanted: NewDevice): Promise<AddedDevice> {
  const config = await readConfig(wanted.configFile);
  if (config.kind === 'witness') {
    throw new HoldfastError('bad-request', `${config.name} is a witness, which holds no data`);
  }
  const path = resolve(wanted.path);
  const known = config.devices.find((one) => one.path === path);
  // Whether it can be written down is found out before anything is made.
  if (known === undefined) await withDevice(config, path, wanted, null);
  await assertOwnFileSystem(path, wanted.sharesFileSystem === true);
  const { device } = await makeOurs(config, path);
  if (known?.id !== device) {
    await writeFileDurably(config.file, await withDevice(config, path, wanted, device));
  }
  return { device, path, wasConfigured: known !== undefined };
}

async function makeOurs(config: HostConfig, path: string): Promise<DeviceIdentity> {
  const disk = await openExistingFolder(path).catch((error: unknown) => {
    throw isError(error, 'conflict')
      ? new HoldfastError('conflict', `${path} is a device that a daemon uses`, { cause: error })
      : asHoldfastError(error);
  });
  try {
    // Whoever was interrupted before the configuration was written does it once more.
    const found = await readIdentity(disk).catch((error: unknown) => {
      if (error instanceof DiskError && error.kind === 'missing') return null;
      throw error;
    });
    const { cluster, name: host } = config;
    if (found?.cluster === cluster && found.host === host) return found;
    return await initialiseDevice(disk, { cluster, host, id: createRandom().id() });
  } catch (error) {
    const { message } = error as Error;
    throw new HoldfastError('conflict', `${path} is not made a device: ${message}`, {
      cause: error,
    });
  } finally {
    disk.close();
  }
}

async function assertOwnFileSystem(path: string, mayShare: boolean): Promise<void> {
  try {
    const place = await realpath(path);
    const [own, around] = await Promise.all([stat(place), stat(dirname(place))]);
    if (!own.isDirectory()) throw new HoldfastError('bad-request', `${path} is no folder`);
    if (mayShare || own.dev !== around.dev) return;
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('bad-request', `${path} can not be used: ${why}`, { cause });
  }
  throw new HoldfastError(
    'conflict',
    `nothing is mounted at ${path}: mount the device first, or say --shared if it is meant to be on the file system around it`,
  );
}

/** The configuration with one more device, or with another one in this place; its comments stay. It is checked. */
async function withDevice(
  config: HostConfig,
  path: string,
  { class: deviceClass, capacity }: NewDevice,
  id: StoreId | null,
): Promise<string> {
  const document = parseDocument(await readFile(config.file, 'utf8'));
  const entry = {
    ...{ path, class: deviceClass },
    ...(capacity === undefined ? {} : { capacity }),
    ...(id === null ? {} : { id }),
  };
  const devices = document.get('devices');
  const index = config.devices.findIndex((one) => one.path === path);
  if (index !== -1) document.setIn(['devices', index, 'id'], id);
  else if (isSeq(devices)) devices.add(document.createNode(entry));
  else if (isMap(document.contents)) document.set('devices', document.createNode([entry]));
  const text = document.toString();
  parseConfig(text, config.file);
  return text;
}
