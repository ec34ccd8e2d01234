// Takes a host's power away, as far as that can be done to a part of a machine: everything of it ends
// by SIGKILL, without a word to anybody. The daemon is frozen first, so that it can neither notice
// nor tell that its guests go.

import { signal } from '../../lab/processes.ts';
import { processesBelow } from './processes.ts';

export interface PowerCut {
  /** When the host fell silent, in ms since 1970. */
  readonly at: number;
  readonly killed: number;
}

export function cutPower(hostFolder: string, daemon: number): PowerCut {
  const at = Date.now();
  signal(daemon, 'SIGSTOP');
  const killed = new Set<number>();
  // Until nothing is found any more: a process may just have been forked.
  for (let round = 0; round < 10; round += 1) {
    const found = processesBelow(hostFolder, round === 0 ? daemon : null);
    if (found.length === 0) break;
    for (const pid of found) signal(pid, 'SIGKILL');
    for (const pid of found) killed.add(pid);
  }
  return { at, killed: killed.size };
}
