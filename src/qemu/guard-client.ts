// The daemon's side of the guard: starting one, and speaking its line protocol
// (docs/protocols/guard.md). Answers come in the order of the commands; what the guard says by
// itself begins with a word that no answer begins with.

import { spawn } from 'node:child_process';
import { HoldfastError } from '../model/errors.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import { LineSocket } from './line-socket.ts';
import { guestFailed } from './run-files.ts';

export type GuardState = 'running' | 'pausing' | 'paused' | 'exiting' | 'exited';

/** How the guest's process ended. */
export type GuestExit = { readonly code: number } | { readonly signal: number };

export interface GuardStatus {
  readonly vm: string;
  readonly name: string;
  readonly epoch: number;
  readonly pid: number;
  readonly state: GuardState;
  readonly exit: GuestExit | null;
  /** Why it is paused, where it is. */
  readonly pause: 'deadline' | 'command' | null;
  readonly deadlineMs: number;
  /** CLOCK_BOOTTIME as the guard reads it. */
  readonly nowMs: number;
}

export interface GuardEvents {
  pausedByDeadline(): void;
  exited(exit: GuestExit): void;
  /** The connection has ended: the guard is gone, or gave the place to another client. */
  closed(): void;
}

interface Pending {
  readonly command: string;
  readonly timer: Timer;
  resolve(fields: ReadonlyMap<string, string>): void;
  reject(error: HoldfastError): void;
}

const maxLineBytes = 1024;
const states: readonly string[] = ['running', 'pausing', 'paused', 'exiting', 'exited'];

function exitOf(text: string | undefined): GuestExit | null {
  const match = /^(signal[: ])?(\d+)$/.exec(text ?? '');
  if (match === null) return null;
  return match[1] === undefined ? { code: Number(match[2]) } : { signal: Number(match[2]) };
}

function fieldsOf(words: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    words.map((word): [string, string] => {
      const at = word.indexOf('=');
      return at < 0 ? [word, ''] : [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}

function stateOf(fields: ReadonlyMap<string, string>): GuardState {
  const state = fields.get('state') ?? '';
  if (!states.includes(state)) throw guestFailed(`the guard says the state "${state}"`);
  return state as GuardState;
}

export class GuardClient {
  readonly #socket: LineSocket;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #pending: Pending[] = [];
  #open = true;

  private constructor(socket: LineSocket, clock: Clock, timeoutMs: number, events: GuardEvents) {
    this.#socket = socket;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    socket.handle({
      line: (text) => this.#onLine(text, events),
      closed: () => {
        this.#open = false;
        for (const pending of this.#pending.splice(0)) {
          pending.timer.cancel();
          pending.reject(
            new HoldfastError('unreachable', `the guard went away: ${pending.command}`),
          );
        }
        events.closed();
      },
    });
  }

  /** Rejects with `unreachable` where no guard listens. */
  static async connect(
    path: string,
    options: { readonly clock: Clock; readonly timeoutMs: number },
    events: GuardEvents,
  ): Promise<GuardClient> {
    const socket = await LineSocket.connect(path, { ...options, maxLineBytes });
    return new GuardClient(socket, options.clock, options.timeoutMs, events);
  }

  async status(): Promise<GuardStatus> {
    const fields = await this.#ask('status');
    const number = (key: string): number => Number(fields.get(key));
    const pause = fields.get('pause');
    return {
      vm: fields.get('vm') ?? '',
      name: fields.get('name') ?? '',
      epoch: number('epoch'),
      pid: number('pid'),
      state: stateOf(fields),
      exit: exitOf(fields.get('exit')),
      pause: pause === 'deadline' || pause === 'command' ? pause : null,
      deadlineMs: number('deadline'),
      nowMs: number('now'),
    };
  }

  /** Sets a later deadline. A deadline never takes effect later than it was meant: rounded down. */
  async extend(deadlineMs: number): Promise<GuardState> {
    return stateOf(await this.#ask(`extend ${Math.floor(deadlineMs)}`));
  }

  async resume(deadlineMs: number): Promise<GuardState> {
    return stateOf(await this.#ask(`resume ${Math.floor(deadlineMs)}`));
  }

  /** Resolves when the guest stands. */
  async pause(): Promise<void> {
    await this.#ask('pause');
  }

  /** Resolves when no process of the guest is left. */
  async kill(): Promise<void> {
    await this.#ask('kill');
  }

  /** Lets a guard go whose guest has exited. */
  async release(): Promise<void> {
    await this.#ask('release');
  }

  close(): void {
    this.#socket.close();
  }

  #ask(command: string): Promise<ReadonlyMap<string, string>> {
    if (!this.#open) {
      return Promise.reject(new HoldfastError('unreachable', `the guard is gone: ${command}`));
    }
    return new Promise((resolve, reject) => {
      // After a time-out the order of answers is lost, so the connection is of no more use.
      const timer = this.#clock.after(this.#timeoutMs, () => {
        reject(new HoldfastError('timeout', `the guard did not answer: ${command}`));
        this.#socket.close();
      });
      this.#pending.push({ command, timer, resolve, reject });
      this.#socket.write(command);
    });
  }

  #onLine(text: string, events: GuardEvents): void {
    const [first, ...words] = text.split(' ');
    if (first === 'paused') {
      events.pausedByDeadline();
    } else if (first === 'exited') {
      const exit = exitOf(words.join(' '));
      if (exit !== null) events.exited(exit);
    } else {
      const pending = this.#pending.shift();
      if (pending === undefined) return;
      pending.timer.cancel();
      if (first === 'ok') pending.resolve(fieldsOf(words));
      else pending.reject(guestFailed(`the guard refused ${pending.command}: ${words.join(' ')}`));
    }
  }
}

export interface GuardStart {
  readonly guardPath: string;
  readonly socket: string;
  readonly vm: string;
  readonly name: string;
  readonly epoch: number;
  readonly deadlineMs: number;
  readonly log: string;
  readonly cwd: string;
  readonly command: readonly string[];
}

/** A guard that has been started; until it is ready its process belongs to whoever started it. */
export interface StartedGuard {
  readonly pid: number;
  /** Resolves when the guest's program has begun; rejects with the guard's reason. */
  readonly ready: Promise<void>;
}

/** Starts a guard with its guest, in a session of its own: it shall survive this process. */
export function startGuard(start: GuardStart): StartedGuard {
  const child = spawn(
    start.guardPath,
    [
      ...['--socket', start.socket, '--vm', start.vm, '--name', start.name],
      ...['--epoch', String(start.epoch), '--deadline-ms', String(Math.floor(start.deadlineMs))],
      ...['--log', start.log, '--', ...start.command],
    ],
    { detached: true, stdio: ['ignore', 'pipe', 'pipe'], cwd: start.cwd },
  );
  const ready = new Promise<void>((resolve, reject) => {
    let said = '';
    let complaint = '';
    child.stdout.on('data', (bytes: Buffer) => {
      said += bytes.toString('latin1');
      if (!/^ready \d+\n/.test(said)) return;
      child.unref();
      child.stdout.destroy();
      child.stderr.destroy();
      resolve();
    });
    child.stderr.on('data', (bytes: Buffer) => {
      if (complaint.length < 4096) complaint += bytes.toString('utf8');
    });
    child.on('error', (error) =>
      reject(
        guestFailed(`the guard ${start.guardPath} can not be started: ${error.message}`, error),
      ),
    );
    child.on('close', (code, signal) => {
      const reason = complaint.trim() || `it ended with ${signal ?? `status ${code}`}`;
      reject(guestFailed(`the guard of VM ${start.name} did not start it: ${reason}`));
    });
  });
  return { pid: child.pid ?? 0, ready };
}
