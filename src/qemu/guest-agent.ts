// Asks the QEMU guest agent of a guest, where it has one, whether it is there: each answer is a heartbeat. The
// protocol is JSON, one object a line (docs/interop/qemu-ga.rst and qga/qapi-schema.json of QEMU): `guest-sync`
// first, because what an earlier connection has asked may be answered on this one; then `guest-ping`.
//
// Nobody says whether a guest has an agent. Where none reads, what is written to it would pile up, so there is one
// question at a time, and one without an answer ends the connection; the next one asks anew. A guest may as well say
// more than it is asked for, without end: so it is read only while a question is open, and not for long.

import type { Clock, Timer } from '../ports/clock.ts';
import { LineSocket } from './line-socket.ts';

const pingMs = 5000;
/** A guest that has one processor of many may take its time. */
const answerMs = 10_000;
const connectMs = 5000;
const maxLineBytes = 64 * 1024;
/** Of what an earlier connection has asked for. */
const maxStaleLines = 100;

export interface GuestAgentOptions {
  readonly path: string;
  readonly clock: Clock;
  /** One that stands is not asked, and its silence ends nothing. */
  readonly isRunning: () => boolean;
  readonly onAnswer: () => void;
}

export class GuestAgent {
  readonly #options: GuestAgentOptions;
  #isOn = false;
  #socket: LineSocket | null = null;
  #timer: Timer | null = null;
  #lastSync = 0;
  #isSynced = false;
  #staleLines = 0;
  /** A question is open. */
  #isAsking = false;

  constructor(options: GuestAgentOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#isOn) return;
    this.#isOn = true;
    void this.#connect();
  }

  stop(): void {
    this.#isOn = false;
    this.#timer?.cancel();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  async #connect(): Promise<void> {
    const { path, clock } = this.#options;
    let socket: LineSocket;
    try {
      socket = await LineSocket.connect(path, { clock, timeoutMs: connectMs, maxLineBytes });
    } catch {
      return this.#later(pingMs, () => void this.#connect());
    }
    socket.handle({
      line: (text) => {
        if (this.#socket === socket) this.#heard(text);
      },
      closed: () => {
        if (this.#socket !== socket) return;
        this.#socket = null;
        this.#later(pingMs, () => void this.#connect());
      },
    });
    if (!this.#isOn) return socket.close();
    this.#socket = socket;
    this.#isSynced = false;
    this.#staleLines = 0;
    this.#lastSync += 1;
    this.#ask('guest-sync', { id: this.#lastSync });
  }

  #ask(command: string, args?: Readonly<Record<string, number>>): void {
    const question = { execute: command, ...(args === undefined ? {} : { arguments: args }) };
    this.#isAsking = true;
    this.#socket?.write(JSON.stringify(question));
    this.#socket?.proceed();
    this.#await();
  }

  #await(): void {
    this.#later(answerMs, () => {
      if (this.#options.isRunning()) this.#socket?.close();
      else this.#await();
    });
  }

  #heard(text: string): void {
    if (!this.#isAsking) return; // it came with the answer
    if (!this.#isSynced && answerIn(text) !== this.#lastSync) {
      this.#staleLines += 1; // to somebody else's question
      if (this.#staleLines >= maxStaleLines) this.#listenNoMore();
      return;
    }
    this.#isSynced = true;
    this.#listenNoMore();
    this.#options.onAnswer();
    this.#later(pingMs, () => this.#ping());
  }

  /** Until it is asked again, or the connection ends for want of an answer. */
  #listenNoMore(): void {
    this.#isAsking = false;
    this.#socket?.hold();
  }

  #ping(): void {
    if (this.#options.isRunning()) this.#ask('guest-ping');
    else this.#later(pingMs, () => this.#ping());
  }

  #later(delayMs: number, what: () => void): void {
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(delayMs, () => {
      if (this.#isOn) what();
    });
  }
}

function answerIn(text: string): unknown {
  try {
    return (JSON.parse(text) as { readonly return?: unknown } | null)?.return;
  } catch {
    return undefined; // a guest may say anything
  }
}
