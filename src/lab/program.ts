// Running the programs that a lab is built with: `ip`, `nft`, `nsenter`, and `holdfast` itself.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { HoldfastError } from '../model/errors.ts';

/** The program as it was built; the daemons run it. */
export const holdfast = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Resolves with what it said; rejects with `internal` and its complaint where it fails. */
export function run(command: readonly string[], input = ''): Promise<string> {
  const [program = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let out = '';
    let complaint = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
    child.stdin.on('error', () => undefined);
    child.once('error', (cause) => reject(failed(cause.message, cause)));
    child.once('close', (code, signal) => {
      if (code === 0) return resolve(out);
      reject(failed(complaint.trim() || `it ended with ${signal ?? `status ${code}`}`));
    });
    child.stdin.end(input);
  });

  function failed(why: string, cause?: unknown): HoldfastError {
    return new HoldfastError('internal', `${command.join(' ')}: ${why}`, { cause });
  }
}
