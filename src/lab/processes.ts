// The processes of this machine as `/proc` shows them.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  /** As ps(1) shows it: `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z` (ended, not yet waited for). */
  readonly state: string;
  /** It is being ended by the kernel: no instruction of its own is executed any more. */
  readonly exiting: boolean;
  /** Clock ticks since boot; with the pid it names a process for good. */
  readonly startTime: string;
}

/** PF_EXITING of linux/sched.h. */
const exitingFlag = 0x4;

/** Null where the process is gone. */
export function readStat(pid: number, root = '/proc'): ProcessStat | null {
  const text = readOrNull(`${root}/${pid}/stat`);
  if (text === null) return null;
  // The second field, the name, is in parentheses and may itself contain spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state = '', parent = ''] = fields;
  return {
    pid,
    state,
    parent: Number(parent),
    exiting: (Number(fields[6]) & exitingFlag) !== 0,
    startTime: fields[19] ?? '',
  };
}

/** SIGKILL has been sent: one that stood still is shown as running from then on until it is gone, and does
 * nothing any more. */
export function isBeingKilled(pid: number, root = '/proc'): boolean {
  const pending = readOrNull(`${root}/${pid}/status`)?.matchAll(
    /^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm,
  );
  return [...(pending ?? [])].some(([, mask]) => (Number.parseInt(mask ?? '', 16) & 0x100) !== 0);
}

/** The command line, one argument after the other; empty for kernel threads and gone processes. */
export function readArguments(pid: number, root = '/proc'): string[] {
  const text = readOrNull(`${root}/${pid}/cmdline`);
  return text === null ? [] : text.split('\0').filter((part) => part !== '');
}

/** The inode of the network namespace that it lives in; null where it is gone. */
export function networkOf(pid: number, root = '/proc'): number | null {
  try {
    return Number(/\d+/.exec(readlinkSync(`${root}/${pid}/ns/net`))?.[0]);
  } catch {
    return null;
  }
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

/** Also of one that does not run (stopped); not of one that has ended and is only not yet waited for. */
export function isAlive(stat: ProcessStat | null): stat is ProcessStat {
  return stat !== null && !['Z', 'X', 'x'].includes(stat.state);
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export function ownAncestors(): Set<number> {
  const found = new Set<number>();
  for (let pid = process.pid; pid > 0 && !found.has(pid); ) {
    found.add(pid);
    pid = readStat(pid)?.parent ?? 0;
  }
  return found;
}

export function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null; // gone, or somebody else's
  }
}
