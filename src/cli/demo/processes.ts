// The processes of this machine as `/proc` shows them, and which of them are a demo's own. What the
// demo started carries its folder in the environment, from the daemon down to the guest; where a
// program cleaned its environment, its command line tells, but only for the kinds of programs that
// the demo starts: somebody's `tail -f` on a log in the folder is not ours to end.

import { readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export const demoMarker = 'HOLDFAST_DEMO';

export interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  /** As ps(1) shows it: `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z` (ended, not yet waited for). */
  readonly state: string;
  /** Clock ticks since boot; with the pid it names a process for good. */
  readonly startTime: string;
}

/** Null where the process is gone. */
export function readStat(pid: number, root = '/proc'): ProcessStat | null {
  const text = readOrNull(`${root}/${pid}/stat`);
  if (text === null) return null;
  // The second field, the name, is in parentheses and may itself contain spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state = '', parent = ''] = fields;
  return { pid, state, parent: Number(parent), startTime: fields[19] ?? '' };
}

/** The command line, one argument after the other; empty for kernel threads and gone processes. */
export function readArguments(pid: number, root = '/proc'): string[] {
  const text = readOrNull(`${root}/${pid}/cmdline`);
  return text === null ? [] : text.split('\0').filter((part) => part !== '');
}

export function listPids(root = '/proc'): number[] {
  const pids: number[] = [];
  for (const name of readdirSync(root)) {
    const first = name.charCodeAt(0);
    if (first >= 49 && first <= 57) pids.push(Number(name));
  }
  return pids;
}

export function mentions(args: readonly string[], folder: string): boolean {
  return args.some((arg) => arg.endsWith(folder) || arg.includes(`${folder}/`));
}

/** Living processes that belong to the demo in `folder`, never this one or those above it. */
export function processesOfDemo(folder: string): number[] {
  const above = ownAncestors();
  return listPids().filter((pid) => {
    if (above.has(pid)) return false;
    const stat = readStat(pid);
    if (stat === null || stat.state === 'Z' || stat.state === 'X') return false;
    const environment = readOrNull(`/proc/${pid}/environ`);
    if (environment?.split('\0').includes(`${demoMarker}=${folder}`)) return true;
    const args = readArguments(pid);
    return ourPrograms.test(basename(args[0] ?? '')) && mentions(args, folder);
  });
}

/** Processes whose command line names the folder, and all that descend from them or from `root`. */
export function processesBelow(folder: string, root: number | null): number[] {
  const above = ownAncestors();
  const stats = listPids()
    .map((pid) => readStat(pid))
    .filter((stat) => stat !== null && stat.state !== 'Z' && !above.has(stat.pid));
  const found = new Set<number>(root === null ? [] : [root]);
  for (const stat of stats) {
    if (stat !== null && mentions(readArguments(stat.pid), folder)) found.add(stat.pid);
  }
  for (let grown = true; grown; ) {
    grown = false;
    for (const stat of stats) {
      if (stat === null || found.has(stat.pid) || !found.has(stat.parent)) continue;
      found.add(stat.pid);
      grown = true;
    }
  }
  return [...found];
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Ends all processes of the demo; rejects if some can not be ended. */
export async function endDemoProcesses(folder: string, patienceMs = 10_000): Promise<void> {
  const until = Date.now() + patienceMs;
  for (;;) {
    const pids = processesOfDemo(folder);
    if (pids.length === 0) return;
    if (Date.now() > until) throw new Error(`processes ${pids.join(', ')} can not be ended`);
    for (const pid of pids) signal(pid, 'SIGKILL');
    await delay(20);
  }
}

const ourPrograms = /^(node|qemu|holdfast|guard)/;

function ownAncestors(): Set<number> {
  const found = new Set<number>();
  for (let pid = process.pid; pid > 0 && !found.has(pid); ) {
    found.add(pid);
    pid = readStat(pid)?.parent ?? 0;
  }
  return found;
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null; // gone, or somebody else's
  }
}
