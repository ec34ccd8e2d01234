// A client of QMP, the machine protocol of QEMU: JSON objects, one a line, over a Unix socket
// (docs/interop/qmp-spec.rst of QEMU). QEMU serves one client at a time, so whoever connects while
// another is there is accepted by the kernel and hears nothing: connecting has a time limit too.
//
// A request that gets no answer in time is given up; its late answer is recognised by its number and
// dropped. What can not be understood is logged and skipped: QEMU's output holds text of the guest.

import { HoldfastError } from '../model/errors.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import { LineSocket } from './line-socket.ts';
import { guestFailed } from './run-files.ts';

export type QmpObject = Readonly<Record<string, unknown>>;

export interface QmpEvents {
  /** An event of QEMU, by its name (`SHUTDOWN`, `GUEST_PANICKED`, ...) and its data. */
  event(name: string, data: QmpObject): void;
  /** The connection has ended; all requests under way have failed. */
  closed(): void;
}

interface Pending {
  readonly command: string;
  readonly timer: Timer;
  resolve(value: unknown): void;
  reject(error: HoldfastError): void;
}

/** Far beyond what QEMU 7 to 10 say at once; its largest answers describe its own schema. */
const maxLineBytes = 4 * 1024 * 1024;
const defaultTimeoutMs = 5000;

function isObject(value: unknown): value is QmpObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A text out of QEMU's words, or `otherwise`. */
export function textOf(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise;
}

export class QmpClient {
  readonly #socket: LineSocket;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #events: QmpEvents;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #open = true;
  #greeted: (() => void) | null = null;

  private constructor(socket: LineSocket, clock: Clock, log: Log, events: QmpEvents) {
    this.#socket = socket;
    this.#clock = clock;
    this.#log = log;
    this.#events = events;
  }

  /**
   * Connects and negotiates. Rejects with `unreachable` where no QEMU listens, with `timeout` where it
   * does not greet in time: it is stopped, busy, or has another client.
   */
  static async connect(
    path: string,
    options: { readonly clock: Clock; readonly log: Log; readonly timeoutMs?: number },
    events: QmpEvents,
  ): Promise<QmpClient> {
    const { clock, log, timeoutMs = defaultTimeoutMs } = options;
    const socket = await LineSocket.connect(path, { clock, timeoutMs, maxLineBytes });
    const client = new QmpClient(socket, clock, log, events);
    let ready = false;
    await new Promise<void>((resolve, reject) => {
      const timer = clock.after(timeoutMs, () => {
        socket.close();
        reject(new HoldfastError('timeout', `QEMU does not answer at ${path}`));
      });
      client.#greeted = () => {
        timer.cancel();
        resolve();
      };
      socket.handle({
        line: (text) => client.#onLine(text),
        closed: () => {
          timer.cancel();
          reject(new HoldfastError('unreachable', `QEMU closed ${path}`));
          client.#onClosed(ready);
        },
      });
    });
    try {
      await client.execute('qmp_capabilities', {}, timeoutMs);
    } catch (error) {
      socket.close();
      throw error;
    }
    ready = true;
    return client;
  }

  /** Does one command and resolves with what it returns; rejects with `guest-failed` if QEMU refuses. */
  execute(command: string, args: QmpObject = {}, timeoutMs = defaultTimeoutMs): Promise<unknown> {
    if (!this.#open) {
      return Promise.reject(new HoldfastError('unreachable', `QEMU is gone, no ${command}`));
    }
    const id = (this.#lastId += 1);
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(timeoutMs, () => {
        this.#pending.delete(id);
        reject(
          new HoldfastError('timeout', `QEMU did not answer ${command} within ${timeoutMs} ms`),
        );
      });
      this.#pending.set(id, { command, timer, resolve, reject });
      this.#socket.write(JSON.stringify({ execute: command, arguments: args, id }));
    });
  }

  close(): void {
    this.#socket.close();
  }

  #onClosed(tell: boolean): void {
    this.#open = false;
    for (const [id, pending] of this.#pending) {
      this.#pending.delete(id);
      pending.timer.cancel();
      pending.reject(
        new HoldfastError('outcome-unknown', `QEMU went away during ${pending.command}`),
      );
    }
    if (tell) this.#events.closed();
  }

  #onLine(text: string): void {
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      message = undefined;
    }
    if (!isObject(message)) {
      this.#log.warn('QEMU said what is no QMP message', { text: text.slice(0, 200) });
    } else if ('QMP' in message) {
      this.#greeted?.();
    } else if (typeof message['event'] === 'string') {
      const data = message['data'];
      this.#events.event(message['event'], isObject(data) ? data : {});
    } else {
      this.#onAnswer(message);
    }
  }

  #onAnswer(message: QmpObject): void {
    const pending = this.#pending.get(message['id'] as number);
    if (pending === undefined) {
      this.#log.debug('QEMU answered what nobody waits for', { id: JSON.stringify(message['id']) });
      return;
    }
    this.#pending.delete(message['id'] as number);
    pending.timer.cancel();
    if ('return' in message) {
      pending.resolve(message['return']);
      return;
    }
    const error = message['error'];
    const reason = isObject(error) ? error['desc'] : undefined;
    pending.reject(
      guestFailed(`QEMU refused ${pending.command}: ${textOf(reason, 'it says no reason')}`),
    );
  }
}
