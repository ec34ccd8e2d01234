// The host's store as a folder of the file system. Names are checked here, so that no name, wherever
// it comes from, leads out of the folder; and what appears in, moves within or vanishes from a folder
// is made durable in that folder too, which a sync of the file alone does not do.

import { constants, readFileSync, statfsSync } from 'node:fs';
import { open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { crc32 } from 'node:zlib';
import { HoldfastError } from '../model/errors.ts';
import { identityFile } from '../ports/device.ts';
import { DiskError, type LocalDisk } from '../ports/disk.ts';
import { openDiskFile, toDiskError } from './disk-file.ts';
import { syncFolder } from './durable-file.ts';
import { makeFolder } from './make-folder.ts';
import { lockStore } from './store-lock.ts';

const lockName = '.lock';

export interface NodeDisk extends LocalDisk {
  /** Lets go of the store, so that another daemon may use it. Files are to be closed before. */
  close(): void;
}

/** Opens (and makes) the store in this folder for this process alone; rejects with `conflict` while
 * another process has it. */
export async function openLocalDisk(folder: string): Promise<NodeDisk> {
  try {
    const outermost = await makeFolder(resolve(folder));
    let parent = dirname(resolve(folder));
    await syncFolder(parent);
    while (outermost !== null && parent.length >= outermost.length) {
      parent = dirname(parent);
      await syncFolder(parent);
    }
  } catch (error) {
    throw toDiskError(error, `opening the store ${folder}`);
  }
  const lock = await lockStore(join(folder, lockName));
  try {
    return makeDisk(folder, await readIncarnation(folder), () => lock.release());
  } catch (error) {
    lock.release();
    throw toDiskError(error, `opening the store ${folder}`);
  }
}

/** Opens a further device: a folder that was made one. Makes nothing where there is none, not even a lock: an
 * empty mount point stays empty. Rejects with `missing` then, and as above. */
export async function openDeviceFolder(folder: string): Promise<NodeDisk> {
  try {
    await stat(join(folder, identityFile));
  } catch (error) {
    throw toDiskError(error, `opening the device ${folder}`);
  }
  return openExistingFolder(folder);
}

/** A folder that is there, for this process alone. */
export async function openExistingFolder(folder: string): Promise<NodeDisk> {
  try {
    const incarnation = await readIncarnation(folder);
    const lock = await lockStore(join(folder, lockName));
    return makeDisk(folder, incarnation, () => lock.release());
  } catch (error) {
    if (error instanceof HoldfastError) throw error;
    throw toDiskError(error, `opening the device ${folder}`);
  }
}

/** Un-synced writes live in the page cache of this boot, for this device as it is there now. */
async function readIncarnation(folder: string): Promise<string> {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const { dev } = await stat(folder);
  return `${boot}/${dev.toString(16)}${await sequenceOf(dev)}`;
}

/** A device that was taken out and put back may have the number that it had; the kernel counts how often it found one
 * (`diskseq`, since Linux 5.15; of a partition its disk has it). Empty: the file system is on no block device of its own. */
async function sequenceOf(dev: number): Promise<string> {
  const major = (dev >>> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  const device = `/sys/dev/block/${major}:${minor}`;
  for (const path of [`${device}/diskseq`, `${device}/../diskseq`]) {
    const sequence = await readFile(path, 'utf8').catch(() => null); // not this one
    if (sequence !== null) return `/${sequence.trim()}`;
  }
  return '';
}

function makeDisk(root: string, incarnation: string, close: () => void): NodeDisk {
  /** Makes durable the names on the way from the root to a file, and so the file's own. */
  async function syncPath(name: string): Promise<void> {
    for (let folder = dirname(name); folder !== '.'; folder = dirname(folder)) {
      await syncFolder(join(root, folder));
    }
    await syncFolder(root);
  }

  async function attempt<T>(what: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      throw toDiskError(error, what);
    }
  }

  return {
    crc32,
    incarnation,
    close,
    open: (name, options) =>
      attempt(`opening ${name}`, async () => {
        const path = join(root, checked(name));
        let flags = constants.O_RDWR | constants.O_NOFOLLOW;
        if (options.create) {
          flags |= constants.O_CREAT;
          await makeFolder(dirname(path));
        }
        const handle = await open(path, flags, 0o600);
        try {
          // Also where it exists: whoever made it may have been killed before this point.
          if (options.create) await syncPath(name);
          return await openDiskFile(handle, name);
        } catch (error) {
          await handle.close();
          throw error;
        }
      }),
    list: (folder) =>
      attempt(`listing ${folder}`, async () => {
        const names = await namesBelow(root, folder === '' ? '' : checked(folder));
        return names.sort();
      }),
    remove: (name) =>
      attempt(`removing ${name}`, async () => {
        const path = join(root, checked(name));
        try {
          await unlink(path);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
        }
        try {
          await syncFolder(dirname(path)); // also where an earlier removal was not made durable
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
        }
      }),
    rename: (from, to) =>
      attempt(`renaming ${from} to ${to}`, async () => {
        const source = join(root, checked(from));
        const target = join(root, checked(to));
        await makeFolder(dirname(target));
        await rename(source, target);
        await syncPath(to);
        if (dirname(source) !== dirname(target)) await syncFolder(dirname(source));
      }),
    space() {
      try {
        const { bsize, blocks, bfree, bavail } = statfsSync(root);
        // As `df` counts: what is kept back for root or by a quota is not there to be used.
        return { totalBytes: bsize * (blocks - bfree + bavail), freeBytes: bsize * bavail };
      } catch (error) {
        throw toDiskError(error, 'asking for free space');
      }
    },
  };
}

/** The full names of the files below a folder; what begins with a dot is ours. */
async function namesBelow(root: string, folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      if (entry.name.startsWith('.') || entry.name === 'lost+found') continue;
      const name = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) names.push(...(await namesBelow(root, name)));
      else if (entry.isFile()) names.push(name);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return names;
}

/** The name, if it can only mean something below the root. Parts that begin with a dot are ours. */
function checked(name: string): string {
  const parts = name.split('/');
  if (parts.some((part) => !/^[A-Za-z0-9_@+=:,-][A-Za-z0-9_@+=:,.-]*$/.test(part))) {
    throw new DiskError('failed', `"${name}" is not a name in the store`);
  }
  return name;
}
