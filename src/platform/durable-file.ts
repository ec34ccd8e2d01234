// Small files that must be whole: written beside the target, made durable, then renamed over it.
// After a crash at any moment there is the old content or the new one, never a part.

import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { HoldfastError } from '../model/errors.ts';
import type { SmallFile } from '../ports/small-file.ts';

/** Makes durable which names a folder holds. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Replaces the file's content atomically and durably. One writer per file at a time. Rejects with
 * `disk-full` or `disk-error`; the old content is still there then. */
export async function writeFileDurably(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const draft = join(dirname(path), `.${basename(path)}.new`);
  await rm(draft, { force: true }); // of a writer that was killed; its mode may be another one
  try {
    const file = await open(draft, 'wx', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    const { code, message } = error as NodeJS.ErrnoException;
    const kind = code === 'ENOSPC' || code === 'EDQUOT' ? 'disk-full' : 'disk-error';
    throw new HoldfastError(kind, `writing ${path}: ${message}`, { cause: error });
  }
  await syncFolder(dirname(path));
}

/** The file at this path, which need not be there yet. */
export function smallFile(path: string): SmallFile {
  return {
    async read() {
      try {
        return await readFile(path, 'utf8');
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        if (code === 'ENOENT') return null;
        throw new HoldfastError('disk-error', `reading ${path}: ${message}`, { cause: error });
      }
    },
    write: (content) => writeFileDurably(path, content),
  };
}
