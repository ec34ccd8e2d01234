// What cleans up when this command itself is killed: a shell that waits for a word from it, and where
// the word does not come because the pipe just ends, runs the command with which a user would clean up.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface Reaper {
  /** Nothing is left to be cleaned up, or all shall stay. */
  dismiss(): Promise<void>;
}

/** `cleanUp` are the arguments of the clean-up to `program`. */
export function startReaper(program: string, cleanUp: readonly string[]): Reaper {
  const child = spawn(
    '/bin/sh',
    ['-c', 'read -r word || exec "$@"', 'holdfast-reaper', process.execPath, program, ...cleanUp],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
  );
  const gone = once(child, 'exit').catch(() => undefined);
  child.stdin.on('error', () => undefined);
  child.unref();
  return {
    async dismiss() {
      child.ref(); // now it is waited for, even if nothing else keeps this process alive
      child.stdin.end('done\n');
      await gone;
    },
  };
}
