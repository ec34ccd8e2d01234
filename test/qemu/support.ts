// What the tests of guards and guests share: the guard compiled from its source, waiting for
// conditions, and the certainty that no process outlives a test, whatever became of it.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LineReader } from '../../src/qemu/lines.ts';

const source = new URL('../../src/qemu/guard.c', import.meta.url).pathname;

/** Folders of this run; every process that carries one of their names in its arguments is ours. */
const folders: string[] = [];

/** A folder with a short name: Unix sockets shall fit into it. */
export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'hfq-'));
  folders.push(folder);
  return folder;
}

export function compileGuard(): string {
  const path = join(tempFolder(), 'guard');
  execFileSync(process.env['CC'] ?? 'gcc', [
    '-O2',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-o',
    path,
    source,
  ]);
  return path;
}

/** Waits until the condition holds, and returns what it found; the test's own time limit bounds it. */
export async function until<T>(what: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (;;) {
    const found = await what();
    if (found) return found;
    await sleep(10);
  }
}

/** One letter as in ps(1), `T` for stopped; null for a process that is gone or only a zombie. */
export function stateOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const state = stat.charAt(stat.lastIndexOf(')') + 2);
    // The first thread of a dying process may be a zombie while others are still on their way.
    const threads = readdirSync(`/proc/${pid}/task`).length;
    return (state === 'Z' || state === 'X') && threads < 2 ? null : state;
  } catch {
    return null;
  }
}

/** Whether a process has put flock(2) on the file. */
export function isLocked(path: string): boolean {
  return spawnSync('flock', ['--nonblock', path, 'true']).status !== 0;
}

/** The living processes of which an argument contains the text. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(text);
      } catch {
        return false;
      }
    });
}

/** The living processes of a process group. */
export function groupOf(group: number): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
        // After the name: state, parent, group.
        const words = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return words[2] === String(group) && stateOf(pid) !== null;
      } catch {
        return false;
      }
    });
}

const children: ChildProcess[] = [];

/** A child process that ends with the test. */
export function run(program: string, args: readonly string[], detached = false): ChildProcess {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached });
  child.on('error', () => {});
  children.push(child);
  return child;
}

/** CLOCK_BOOTTIME in ms, cut to hundredths of a second. */
export function bootMs(): number {
  return Math.floor(Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000);
}

const groups: number[] = [];

/** A guest of the test's own: what it has started itself does not name the test's folder. */
export function endWithItsGroup(leader: number): void {
  groups.push(leader);
}

/** For afterEach: ends by pid what is left, and waits until it is gone. */
export async function cleanUp(): Promise<void> {
  for (const group of groups.splice(0)) {
    try {
      process.kill(-group, 'SIGKILL');
    } catch {
      // Nobody of it is left.
    }
  }
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const folder of folders) {
    await until(() => {
      const left = processesWith(`${folder}/`);
      for (const pid of left) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // Gone meanwhile.
        }
      }
      return left.length === 0;
    });
  }
}

/** For afterAll. */
export function removeFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

/** Speaks in lines with whatever listens at a Unix socket, and keeps all that it heard. */
export class RawClient {
  readonly heard: string[] = [];
  readonly socket: Socket;
  closed = false;
  #taken = 0;

  constructor(path: string) {
    const reader = new LineReader(4096);
    this.socket = connect(path);
    this.socket.on('data', (bytes) => this.heard.push(...reader.push(bytes)));
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
    });
  }

  send(text: string): void {
    this.socket.write(text);
  }

  /** The next line that was not taken yet. */
  async next(): Promise<string> {
    const line = await until(() => {
      const found = this.heard[this.#taken];
      if (found === undefined && this.closed) return '(closed)';
      return found;
    });
    this.#taken += 1;
    return line;
  }

  /** Sends a command and returns its answer, leaving out what the guard says by itself. */
  async ask(command: string): Promise<string> {
    this.send(`${command}\n`);
    for (;;) {
      const line = await this.next();
      if (/^(ok|error|\(closed\))/.test(line)) return line;
    }
  }
}
