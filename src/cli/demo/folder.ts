// The folder that a demo works in: everything of it is below, so that it can be removed as a whole.
// Because removing is not to be undone, it is only ever done to a folder that bears the demo's mark.

import { copyFile, mkdir, mkdtemp, readdir, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { stringify } from 'yaml';
import type { Context } from '../context.ts';
import { UsageError } from '../failure.ts';

const markFile = '.holdfast-demo';
const contextFile = 'context.yaml';
/** What stands below it, sockets of guests included, must fit into the path of a Unix socket. */
const maxFolderBytes = 45;

export async function makeFolder(dir: string | undefined): Promise<string> {
  const folder = dir === undefined ? await temporaryFolder() : await givenFolder(dir);
  await writeFile(
    join(folder, markFile),
    'This folder belongs to `holdfast demo`, which removes it.\n',
  );
  return folder;
}

async function temporaryFolder(): Promise<string> {
  const usual = await realpath(tmpdir());
  const parent = Buffer.byteLength(usual) > maxFolderBytes - 21 ? '/tmp' : usual;
  return mkdtemp(join(parent, 'holdfast-demo-')); // mode 0700
}

async function givenFolder(dir: string): Promise<string> {
  const wanted = resolve(dir);
  await mkdir(wanted, { recursive: true, mode: 0o700 });
  const folder = await realpath(wanted);
  if (Buffer.byteLength(folder) > maxFolderBytes) {
    const limit = `its path must not exceed ${maxFolderBytes} bytes, because sockets are below it`;
    throw new UsageError(
      `${folder} can not be used: ${limit}.`,
      'Choose a folder with a shorter path.',
    );
  }
  if ((await readdir(folder)).length > 0) {
    throw new UsageError(`${folder} is not empty.`, 'Choose another folder, or none.');
  }
  return folder;
}

export async function writeContext(folder: string, sockets: readonly string[]): Promise<string> {
  const file = join(folder, contextFile);
  const context: Context = { sockets: [...sockets], demo: folder };
  await writeFile(file, stringify(context), { mode: 0o600 });
  return file;
}

export async function removeFolder(folder: string): Promise<void> {
  const marked = await stat(join(folder, markFile)).catch(() => null);
  if (marked === null) {
    throw new UsageError(`${folder} bears no mark of a demo; it was not removed.`);
  }
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
}

/** Copies what tells why a demo failed to a folder that stays; null where there is nothing. */
export async function saveLogs(folder: string): Promise<string | null> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const logs = names.filter((name) => name.endsWith('.log'));
  if (logs.length === 0) return null;
  const target = await mkdtemp(join(tmpdir(), 'holdfast-demo-logs-'));
  for (const name of logs) {
    await copyFile(join(folder, name), join(target, name.replaceAll('/', '_'))).catch(
      () => undefined,
    );
  }
  return target;
}
