// What cleans up when the demo itself is killed: a shell that waits for a word from the demo, and
// where the word does not come because the pipe just ends, stops the demo from outside. It is the
// same `demo --stop` that a user would call.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface Reaper {
  /** Nothing is left to be cleaned up, or all shall stay. */
  dismiss(): Promise<void>;
}

export function startReaper(program: string, contextFile: string): Reaper {
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      'read -r word || exec "$@"',
      'holdfast-demo-reaper',
      process.execPath,
      program,
      'demo',
      '--stop',
      '--context',
      contextFile,
    ],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
  );
  const gone = once(child, 'exit').catch(() => undefined);
  child.stdin.on('error', () => undefined);
  child.unref();
  return {
    async dismiss() {
      child.ref(); // now it is waited for, even if nothing else keeps the demo's process alive
      child.stdin.end('done\n');
      await gone;
    },
  };
}
