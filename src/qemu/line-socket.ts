// One connection to a Unix socket that speaks in lines: what the clients of the guard, of QMP and of
// the heartbeat port have in common. It ends once, with one call of `closed`.

import { connect, type Socket } from 'node:net';
import { HoldfastError } from '../model/errors.ts';
import type { Clock } from '../ports/clock.ts';
import { LineReader } from './lines.ts';

export interface LineEvents {
  line(text: string): void;
  /** The connection has ended, by either side; nothing more comes. */
  closed(): void;
}

/** Whether the error says that no process serves the socket: not busy, but gone. */
export function nobodyListens(error: unknown): boolean {
  if (!(error instanceof HoldfastError) || !(error.cause instanceof Error)) return false;
  const { code } = error.cause as NodeJS.ErrnoException;
  return code === 'ECONNREFUSED' || code === 'ENOENT';
}

export class LineSocket {
  readonly #socket: Socket;
  readonly #reader: LineReader;

  private constructor(socket: Socket, maxLineBytes: number) {
    this.#socket = socket;
    this.#reader = new LineReader(maxLineBytes);
  }

  /** Connects; rejects with `unreachable` where nobody listens, with `timeout` where nobody accepts. */
  static connect(
    path: string,
    options: { readonly clock: Clock; readonly timeoutMs: number; readonly maxLineBytes: number },
  ): Promise<LineSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      const timer = options.clock.after(options.timeoutMs, () => {
        socket.destroy();
        reject(new HoldfastError('timeout', `nobody accepts at ${path}`));
      });
      socket.once('error', (error) => {
        timer.cancel();
        socket.destroy();
        reject(new HoldfastError('unreachable', error.message, { cause: error }));
      });
      socket.once('connect', () => {
        timer.cancel();
        socket.removeAllListeners('error');
        // What follows an error is always `close`.
        socket.on('error', () => {});
        resolve(new LineSocket(socket, options.maxLineBytes));
      });
    });
  }

  /** To be called once, in the turn in which the connection was made. */
  handle(events: LineEvents): void {
    this.#socket.on('data', (bytes) => {
      for (const line of this.#reader.push(bytes)) {
        if (this.#socket.destroyed) return;
        events.line(line);
      }
    });
    this.#socket.once('close', () => events.closed());
    if (this.#socket.closed) events.closed();
  }

  write(line: string): void {
    if (!this.#socket.destroyed) this.#socket.write(`${line}\n`);
  }

  /** Stops reading, so that the other side has to wait; `proceed` goes on. */
  hold(): void {
    this.#socket.pause();
  }

  proceed(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroy();
  }
}
