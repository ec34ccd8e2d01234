// Makes a folder and those around it that are missing. Node's own way of this (mkdir, `recursive`, with promises) says
// that there is no such folder whatever the reason is: on a full device, too, and on one that fails.

import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Returns the outermost that had to be made; null: all were there. They are their owner's alone. */
export async function makeFolder(path: string): Promise<string | null> {
  try {
    return await makeOne(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error;
  }
  const outermost = await makeFolder(dirname(path));
  const made = await makeOne(path);
  return outermost ?? made;
}

async function makeOne(path: string): Promise<string | null> {
  try {
    await mkdir(path, { mode: 0o700 });
    return path;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return null;
    throw error;
  }
}
