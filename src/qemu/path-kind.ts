// What lies at a path, looked up by another process: on a network file system whose server is away a look
// may wait for ever, and would take one of this process's few threads for files with it.

import { execFile } from 'node:child_process';
import type { Clock } from '../ports/clock.ts';

export type PathKind = 'file' | 'device';

/** A file system that works answers in some milliseconds. */
const lookTimeoutMs = 3000;

const typeMask = 0o170_000;
const kindOfType: Readonly<Record<number, PathKind>> = { 0o100_000: 'file', 0o060_000: 'device' };

/** What a guest can have as a disk, or why there is none; symbolic links are followed. */
export function pathKind(
  path: string,
  clock: Clock,
): Promise<PathKind | { readonly problem: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      'stat',
      ['--dereference', '--format=%f %F', '--', path],
      { env: { ...process.env, LC_ALL: 'C' } },
      (error, out, said) => {
        timer.cancel();
        if (error !== null) return resolve({ problem: reasonOf(said) ?? error.message });
        const [mode = '', ...type] = out.trim().split(' ');
        const kind = kindOfType[Number.parseInt(mode, 16) & typeMask];
        resolve(
          kind ?? { problem: `it is a ${type.join(' ')}, and no regular file or block device` },
        );
      },
    );
    // Not `timeout` of `execFile`: that waits for the end of a process which the kernel may not let go.
    const timer = clock.after(lookTimeoutMs, () => {
      child.kill('SIGKILL');
      child.unref();
      resolve({ problem: `its storage has not answered within ${lookTimeoutMs} ms` });
    });
  });
}

/** The system's word at the end of `stat: cannot statx 'PATH': No such file or directory`. */
function reasonOf(said: string): string | null {
  return said.trim().split(': ').at(-1) || null;
}
