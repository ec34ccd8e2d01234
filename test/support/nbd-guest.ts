// A guest of one disk, reduced to what can be checked: it reads the last number on its disk, then for
// ever writes the next one, flushes, and only then reports it. It speaks NBD as QEMU does: when the
// server goes away it connects again and repeats what was not answered.

import { CMD, clientFlags, OPT, optionOf, requestOf } from '../nbd/client-wire.ts';
import type { ClientStream, MemoryStreams } from './memory-streams.ts';
import type { VirtualClock } from './virtual-clock.ts';

export interface Report {
  readonly atMs: number;
  readonly kind: 'read' | 'wrote';
  readonly number: number;
}

interface Request {
  readonly command: number;
  readonly data: Buffer;
  readonly replyBytes: number;
  readonly done: (data: Buffer) => void;
}

const blockBytes = 4096;
const greetingBytes = 18;
const exportBytes = 10;

export class NbdGuest {
  readonly reports: Report[] = [];
  isPaused = false;
  errors = 0;
  readonly #clock: VirtualClock;
  readonly #streams: MemoryStreams;
  readonly #path: string;
  readonly #intervalMs: number;
  #stream: ClientStream | null = null;
  #input = Buffer.alloc(0);
  #phase: 'greeting' | 'export' | 'ready' = 'greeting';
  #request: Request | null = null;
  #ended = false;
  /** What happens to a paused guest, happens when it goes on. */
  #held: (() => void)[] = [];
  readonly #onReport: (report: Report) => void;

  constructor(
    clock: VirtualClock,
    streams: MemoryStreams,
    path: string,
    intervalMs: number,
    onReport: (report: Report) => void,
  ) {
    this.#clock = clock;
    this.#streams = streams;
    this.#path = path;
    this.#intervalMs = intervalMs;
    this.#onReport = onReport;
  }

  /** Begins, or begins again (reset), with reading the disk. */
  boot(): void {
    this.#request = null;
    this.#stream?.close();
    this.#connect();
    this.#ask(CMD.READ, Buffer.alloc(0), blockBytes, (data) => {
      const number = data.readUInt32BE(0);
      this.#report('read', number);
      this.#write(number + 1);
    });
  }

  resume(): void {
    this.isPaused = false;
    const held = this.#held;
    this.#held = [];
    for (const action of held) this.#when(action);
  }

  end(): void {
    this.#ended = true;
    this.#stream?.close();
  }

  #when(action: () => void): void {
    if (this.#ended) return;
    if (this.isPaused) this.#held.push(action);
    else action();
  }

  #write(number: number): void {
    const block = Buffer.alloc(blockBytes);
    block.writeUInt32BE(number, 0);
    this.#ask(CMD.WRITE, block, 0, () =>
      this.#ask(CMD.FLUSH, Buffer.alloc(0), 0, () => {
        this.#report('wrote', number);
        this.#clock.after(this.#intervalMs, () => this.#when(() => this.#write(number + 1)));
      }),
    );
  }

  #report(kind: Report['kind'], number: number): void {
    const report = { atMs: this.#clock.now(), kind, number };
    this.reports.push(report);
    this.#onReport(report);
  }

  #ask(command: number, data: Buffer, replyBytes: number, done: (data: Buffer) => void): void {
    this.#request = { command, data, replyBytes, done };
    this.#send();
  }

  #send(): void {
    const request = this.#request;
    if (request === null || this.#phase !== 'ready') return;
    const length = request.command === CMD.READ ? request.replyBytes : request.data.length;
    this.#stream?.send(requestOf(request.command, { length, data: request.data }));
  }

  #connect(): void {
    if (this.#ended) return;
    this.#phase = 'greeting';
    this.#input = Buffer.alloc(0);
    const mine: { stream: ClientStream | null } = { stream: null };
    mine.stream = this.#streams.connect(
      this.#path,
      (bytes) =>
        this.#when(() => {
          if (this.#stream !== mine.stream) return;
          this.#input = Buffer.concat([this.#input, bytes]);
          this.#parse();
        }),
      () =>
        this.#when(() => {
          if (this.#stream === mine.stream) this.#clock.after(100, () => this.#connect());
        }),
    );
    this.#stream = mine.stream;
    if (mine.stream === null) this.#clock.after(100, () => this.#connect());
  }

  #take(count: number): Buffer | null {
    if (this.#input.length < count) return null;
    const taken = this.#input.subarray(0, count);
    this.#input = this.#input.subarray(count);
    return taken;
  }

  #parse(): void {
    if (this.#phase === 'greeting') {
      if (this.#take(greetingBytes) === null) return;
      this.#phase = 'export';
      this.#stream?.send(Buffer.concat([clientFlags(), optionOf(OPT.EXPORT_NAME)]));
    }
    if (this.#phase === 'export') {
      if (this.#take(exportBytes) === null) return;
      this.#phase = 'ready';
      this.#send();
    }
    const request = this.#request;
    if (request === null || this.#input.length < 16 + request.replyBytes) {
      if (this.#input.length >= 16 && this.#input.readUInt32BE(4) !== 0) this.#fail();
      return;
    }
    const head = this.#take(16) as Buffer;
    if (head.readUInt32BE(4) !== 0) return this.#fail();
    const data = this.#take(request.replyBytes) as Buffer;
    this.#request = null;
    request.done(Buffer.from(data));
  }

  #fail(): void {
    this.errors += 1;
    this.#request = null;
  }
}
