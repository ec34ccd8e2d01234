// Which processes of this machine are a demo's own. What the demo started carries its folder in the
// environment, from the daemon down to the guest; where a program cleaned its environment, its command
// line tells, but only for the kinds of programs that the demo starts: somebody's `tail -f` on a log in
// the folder is not ours to end.

import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  isAlive,
  listPids,
  mentions,
  ownAncestors,
  readArguments,
  readOrNull,
  readStat,
  signal,
} from '../../lab/processes.ts';

export const demoMarker = 'HOLDFAST_DEMO';

/** Living processes that belong to the demo in `folder`, never this one or those above it. */
export function processesOfDemo(folder: string): number[] {
  const above = ownAncestors();
  return listPids().filter((pid) => {
    if (above.has(pid)) return false;
    if (!isAlive(readStat(pid))) return false;
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

/** Ends all processes of the demo; rejects if some can not be ended. */
export async function endDemoProcesses(folder: string, patienceMs = 10_000): Promise<void> {
  const until = Date.now() + patienceMs;
  const told = new Set<number>();
  for (;;) {
    const found = processesOfDemo(folder);
    for (const pid of found) {
      signal(pid, 'SIGKILL');
      told.add(pid);
    }
    // One that is being killed has no environment any more, and has its sockets still: it is waited for, and not
    // told again, because its number may be another's by then.
    const left = [...told].filter((pid) => isAlive(readStat(pid)));
    if (found.length === 0 && left.length === 0) return;
    if (Date.now() > until) {
      const which = (found.length > 0 ? found : left).join(', ');
      throw new Error(`processes ${which} can not be ended`);
    }
    await delay(20);
  }
}

const ourPrograms = /^(node|qemu|holdfast|guard)/;
