// A cluster of real daemons on this machine, made and used only with the commands that a user has.
// Everything lives below one folder; `end` ends every process that names it.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClient } from '../../../src/api/client.ts';

const program = fileURLToPath(new URL('../../../bin/holdfast', import.meta.url));
const pollMs = 50;

export interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

export class RealCluster {
  /** The daemon that was started last on each host. */
  readonly daemons = new Map<string, ChildProcess>();
  readonly folder = realpathSync(mkdtempSync(join(tmpdir(), 'hf-real-')));
  readonly #network = `127.${randomInt(1, 255)}.${randomInt(0, 256)}`;

  /** Runs `holdfast` and waits for its end. */
  run(...args: string[]): Promise<Ran> {
    return new Promise((resolve) => {
      execFile(process.execPath, [program, ...args], (error, out, err) => {
        resolve({ status: error === null ? 0 : Number(error.code ?? 1), out, err });
      });
    });
  }

  /** Asks the daemon of one host; throws what went wrong. */
  async ask(host: string, ...args: string[]): Promise<string> {
    const ran = await this.run('--socket', this.socket(host), ...args);
    if (ran.status !== 0) throw new Error(`holdfast ${args.join(' ')}: ${ran.err}`);
    return ran.out;
  }

  async json<T>(host: string, ...args: string[]): Promise<T> {
    return JSON.parse(await this.ask(host, '--output', 'json', ...args)) as T;
  }

  #runDir(host: string): string {
    return join(this.folder, host, 'data', 'run');
  }

  socket(host: string): string {
    return join(this.#runDir(host), 'api.sock');
  }

  /** `edit` gets each host's configuration file before its daemon does. */
  async start(count: number, edit = (config: string): string => config): Promise<void> {
    const hosts = Array.from({ length: count }, (_, index) => `host-${index + 1}`);
    const [first = '', ...others] = hosts;
    await this.#make(first, edit, 'cluster', 'init', '--host', first);
    await this.boot(first);
    await Promise.all(
      others.map(async (host) => {
        const token = await this.#token();
        await this.#make(host, edit, 'host', 'join', '--token', token, '--name', host);
        await this.boot(host);
      }),
    );
    const client = createClient([this.socket(first)]);
    await until('the cluster is complete', async () => {
      const complete = (await client.cluster()).hosts.filter(
        ({ state, storage }) =>
          (state === 'master' || state === 'connectedToMaster') && storage === 'reachable',
      );
      return complete.length === count;
    });
  }

  async #make(host: string, edit: (config: string) => string, ...command: string[]): Promise<void> {
    const address = `${this.#network}.${host.replace('host-', '')}`;
    const made = await this.run(
      ...command,
      ...['--dir', join(this.folder, host)],
      ...['--storage-address', `${address}:7440`, '--ha-address', `${address}:7441`],
    );
    if (made.status !== 0) throw new Error(made.err);
    const config = join(this.folder, host, 'config.yaml');
    writeFileSync(config, edit(readFileSync(config, 'utf8')));
  }

  async #token(): Promise<string> {
    return (await this.ask('host-1', 'host', 'token')).trim().split('\n').at(-1) as string;
  }

  async boot(host: string): Promise<void> {
    this.spawn(host);
    const client = createClient([this.socket(host)]);
    await until(`${host} answers`, () =>
      client.cluster().then(
        () => true,
        () => false,
      ),
    );
  }

  /** Starts the daemon and does not wait for anything. */
  spawn(host: string): ChildProcess {
    const log = openSync(this.log(host), 'a');
    const config = join(this.folder, host, 'config.yaml');
    const child = spawn(process.execPath, [program, 'host', 'run', '--config', config], {
      detached: true,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.daemons.set(host, child);
    return child;
  }

  /** The file that all daemons of this host write to, one after the other. */
  log(host: string): string {
    return join(this.folder, `${host}.log`);
  }

  /** SIGKILL of the daemon alone. */
  killDaemon(host: string): void {
    for (const pid of this.#processes(join(this.folder, host, 'config.yaml')))
      process.kill(pid, 'SIGKILL');
  }

  /** SIGKILL of all that runs there, as a loss of power: daemon, guards and guests. */
  cutPower(host: string): void {
    for (const pid of this.#processes(`${join(this.folder, host)}/`)) process.kill(pid, 'SIGKILL');
  }

  guestOf(host: string, vm: string): number | null {
    const run = join(this.#runDir(host), vm);
    const guests = this.#processes(run).filter((pid) =>
      argumentsOf(pid)[0]?.includes('qemu-system'),
    );
    return guests[0] ?? null;
  }

  /** All that guests of the VM have said on this host. */
  said(host: string, vm: string): string {
    try {
      return readFileSync(join(this.#runDir(host), vm, 'serial.log'), 'utf8');
    } catch {
      return '';
    }
  }

  /** The last number that the guest reported on this host, and how often it has booted there. */
  reports(host: string, vm: string): { wrote: number; boots: number } {
    const text = this.said(host, vm);
    const numbers = [...text.matchAll(/^holdfast: wrote (\d+)/gm)].map((match) => Number(match[1]));
    return { wrote: numbers.at(-1) ?? 0, boots: [...text.matchAll(/^holdfast: read /gm)].length };
  }

  #processes(text: string): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .map(Number)
      .filter((pid) => argumentsOf(pid).some((argument) => argument.includes(text)));
  }

  async end(): Promise<void> {
    await until('every process of the cluster has ended', async () => {
      const left = this.#processes(this.folder);
      for (const pid of left) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // it ended by itself
        }
      }
      return left.length === 0;
    });
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function argumentsOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** `T` stopped, `S` sleeping, ...; null if the process is gone. */
export function stateOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[0] as string;
  } catch {
    return null;
  }
}

/** Waits for a condition; the limit only keeps a failure from lasting for ever. */
export async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
): Promise<void> {
  const limitMs = 120_000;
  for (let waitedMs = 0; !(await condition()); waitedMs += pollMs) {
    if (waitedMs > limitMs) throw new Error(`still not so: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}
