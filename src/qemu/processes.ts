// The last resort: finding and ending the processes of a guest through /proc, for when its guard is
// gone or does not answer. A guest dies with its guard, but it takes a moment to die, and `kill` and
// `recover` promise that nothing of it is left.

import { existsSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import type { VmId } from '../model/ids.ts';
import { flock } from '../platform/flock.ts';
import type { Clock } from '../ports/clock.ts';
import { qmpChardev, vmOfQmpChardev } from './command-line.ts';
import type { RunFiles } from './run-files.ts';

/** The arguments of a process; none of one that is gone, or only waits to be reaped. */
async function argumentsOf(pid: string): Promise<string[]> {
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  let argv = await read(`/proc/${pid}/cmdline`);
  if (argv !== '') return argv.split('\0');
  // The first thread of a dying process may be gone while others still run.
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  for (const thread of threads.length > 1 ? threads : []) {
    argv ||= await read(`/proc/${pid}/task/${thread}/cmdline`);
  }
  return argv.split('\0');
}

/** All processes of this machine with their arguments. */
async function* processes(): AsyncGenerator<{ readonly pid: number; readonly argv: string[] }> {
  for (const entry of await readdir('/proc')) {
    if (/^\d+$/.test(entry)) yield { pid: Number(entry), argv: await argumentsOf(entry) };
  }
}

/** The guard and the guest both carry the guest's QMP argument, and nothing else does. */
async function processesOf(files: RunFiles): Promise<number[]> {
  const mark = qmpChardev(files);
  const found: number[] = [];
  for await (const { pid, argv } of processes()) if (argv.includes(mark)) found.push(pid);
  return found;
}

/** VMs of which a guest or a guard runs, whether there are files of it or not. */
export async function vmsWithProcesses(runDir: string): Promise<Set<VmId>> {
  const found = new Set<VmId>();
  for await (const { argv } of processes()) {
    for (const argument of argv) {
      const vm = vmOfQmpChardev(argument, runDir);
      if (vm !== null) found.add(vm);
    }
  }
  return found;
}

/** A dying process loses its arguments before the writes that it has under way are done. Its files it closes after
 * that, and with them the lock that the guard has put on the log and shares with all of the guest. */
async function isLogInUse(files: RunFiles): Promise<boolean> {
  if (!existsSync(files.launch)) return false; // cleared away when all of it had ended
  const log = await open(files.guestLog).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null; // no guard has begun
    throw error;
  });
  try {
    return log !== null && !(await flock(log.fd, files.guestLog));
  } finally {
    await log?.close();
  }
}

/** Ends the guest and its guard, whatever state they are in; false if some are left after a while. */
export async function endProcessesOf(files: RunFiles, clock: Clock): Promise<boolean> {
  const giveUpAtMs = clock.now() + 10_000;
  for (;;) {
    const pids = await processesOf(files);
    if (pids.length === 0 && !(await isLogInUse(files))) return true;
    if (clock.now() > giveUpAtMs) return false;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
    await new Promise<void>((resolve) => clock.after(20, resolve));
  }
}
