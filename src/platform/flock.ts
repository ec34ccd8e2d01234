// The kernel's lock of a file, flock(2), which Node has not. It belongs to the open file, not to the
// process that asked for it: the `flock` program of util-linux takes it on a descriptor that it
// inherits from us, and when that program is gone the lock stays with our descriptor. Node opens
// files close-on-exec, so no other child of the daemon (a guard lives on after us) ever has it.

import { spawn } from 'node:child_process';
import { HoldfastError } from '../model/errors.ts';

/** Locks the open file, whose path is for the error; the lock ends when the descriptor is closed. False: another
 * process has it. Rejects with `disk-error` where locking does not work at all. */
export function flock(descriptor: number, path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn('flock', ['--exclusive', '--nonblock', '3'], {
      stdio: ['ignore', 'ignore', 'pipe', descriptor],
    });
    let said = '';
    child.stderr?.on('data', (bytes) => {
      said += String(bytes);
    });
    child.on('error', (cause) => {
      const why = `${path} can not be locked: the program "flock" (package util-linux) is missing`;
      reject(new HoldfastError('disk-error', why, { cause }));
    });
    child.on('close', (code) => {
      if (code === 0 || code === 1) return resolve(code === 0);
      reject(new HoldfastError('disk-error', `${path} can not be locked: ${said.trim()}`));
    });
  });
}
