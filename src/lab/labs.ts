// Which labs there are on this machine. Each writes itself down before it makes anything, and is
// forgotten last, so that whatever a lab left behind when it was killed can be found and removed.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HoldfastError } from '../model/errors.ts';
import { detachLoops } from './devices.ts';
import { inodeOf, namespacesOf, processesIn, removeNamespaces } from './namespaces.ts';
import { readStat, signal } from './processes.ts';
import { run } from './program.ts';

const registry = '/run/holdfast-lab';
/** Short: the paths of the guests' sockets are below it. */
const parent = '/tmp';

export interface LabRecord {
  readonly id: string;
  readonly folder: string;
  /** `run`: it goes with the command that made it. `up`: it stands until it is taken down. */
  readonly kind: 'run' | 'up';
  /** The process that made it. */
  readonly maker: { readonly pid: number; readonly startTime: string };
  readonly scenario: string;
  readonly hosts: readonly string[];
}

export function enter(lab: Pick<LabRecord, 'kind' | 'scenario' | 'hosts'>): LabRecord {
  const folder = mkdtempSync(join(parent, 'hflab-')); // mode 0700
  const id = basename(folder).slice('hflab-'.length);
  const maker = { pid: process.pid, startTime: readStat(process.pid)?.startTime ?? '' };
  const record: LabRecord = { id, folder, maker, ...lab };
  mkdirSync(registry, { recursive: true, mode: 0o700 });
  writeFileSync(join(registry, `${id}.json`), JSON.stringify(record), { mode: 0o600 });
  return record;
}

export function labs(): LabRecord[] {
  let names: string[];
  try {
    names = readdirSync(registry);
  } catch {
    return []; // there never was one since this machine was started
  }
  return names.flatMap((name) => {
    try {
      return [JSON.parse(readFileSync(join(registry, name), 'utf8')) as LabRecord];
    } catch {
      return []; // it is being written, or was removed just now
    }
  });
}

/** Its command is at work. */
export function isAtWork({ kind, maker }: LabRecord): boolean {
  return kind === 'run' && readStat(maker.pid)?.startTime === maker.startTime;
}

/** All processes of a lab that are alive. */
function processesOfLab(id: string): number[] {
  const inodes = namespacesOf(id).flatMap((name) => inodeOf(name) ?? []);
  return processesIn(new Set(inodes));
}

/** Ends all of it and removes all of it; may be called again where that was interrupted. */
export async function remove({ id, folder }: LabRecord, patienceMs = 10_000): Promise<void> {
  const giveUpAtMs = Date.now() + patienceMs;
  for (;;) {
    const left = processesOfLab(id);
    if (left.length === 0) break;
    if (Date.now() > giveUpAtMs) {
      throw new HoldfastError('timeout', `Processes ${left.join(', ')} of the lab do not end`);
    }
    for (const pid of left) signal(pid, 'SIGKILL');
    await delay(10);
  }
  await removeNamespaces(id);
  const mounts = mountsBelow(folder);
  const unmount = async (those: typeof mounts): Promise<void> => {
    for (const { path } of those) await unmountUnused(path, giveUpAtMs);
  };
  // The file of a throttle is in use until the loop device on it is gone.
  await unmount(mounts.filter(({ kind }) => kind !== 'fuse'));
  await detachLoops(folder);
  await unmount(mounts.filter(({ kind }) => kind === 'fuse'));
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  rmSync(join(registry, `${id}.json`), { force: true });
}

/** For a moment it may still be in use, though no process of the lab is found any more. */
async function unmountUnused(path: string, giveUpAtMs: number): Promise<void> {
  for (;;) {
    try {
      return void (await run(['umount', path]));
    } catch (error) {
      if (Date.now() > giveUpAtMs) throw error;
      await delay(50);
    }
  }
}

/** The innermost first. */
function mountsBelow(folder: string): { path: string; kind: string }[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .map(([, path = '', kind = '']) => ({ path, kind }))
    .filter(({ path }) => path.startsWith(`${folder}/`))
    .toReversed();
}
