// Reads the lines that a guest writes to its heartbeat port, and seeks the port again when the
// connection breaks. The guest is not trusted: it may send without end, so only so many lines a
// second are taken, and then the port is not read until the second is over, which the guest feels.

import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import { LineSocket } from './line-socket.ts';

const maxLineBytes = 1024;
const maxLinesPerSecond = 500;
const timeoutMs = 5000;
const retryMs = 250;

export interface HeartbeatOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly onLine: (line: string) => void;
}

export class HeartbeatReader {
  readonly #options: HeartbeatOptions;
  #socket: LineSocket | null = null;
  #running = false;
  #secondBeganMs = 0;
  #lines = 0;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    void this.#connect();
  }

  stop(): void {
    this.#running = false;
    this.#socket?.close();
  }

  async #connect(): Promise<void> {
    const { path, clock } = this.#options;
    try {
      const socket = await LineSocket.connect(path, { clock, timeoutMs, maxLineBytes });
      socket.handle({
        line: (text) => this.#onLine(socket, text),
        closed: () => {
          this.#socket = null;
          this.#again();
        },
      });
      this.#socket = socket;
      if (!this.#running) socket.close();
    } catch {
      this.#again();
    }
  }

  #again(): void {
    this.#options.clock.after(retryMs, () => {
      if (this.#running && this.#socket === null) void this.#connect();
    });
  }

  #onLine(socket: LineSocket, text: string): void {
    if (!this.#running || text === '') return;
    const { clock, log, onLine } = this.#options;
    const nowMs = clock.now();
    if (nowMs - this.#secondBeganMs >= 1000) {
      this.#secondBeganMs = nowMs;
      this.#lines = 0;
    }
    this.#lines += 1;
    if (this.#lines <= maxLinesPerSecond) onLine(text);
    if (this.#lines === maxLinesPerSecond) {
      log.warn('the guest reports too often, some of its lines are dropped', {
        path: this.#options.path,
      });
      socket.hold();
      clock.after(1000, () => socket.proceed());
    }
  }
}
