// A guest's connection to one of its disks, as QEMU keeps it: when the server goes away it connects
// again, and repeats what was not answered. Written from the NBD protocol document, apart from
// the server's code, so that a misread constant shows.

import { bytesForAMoment } from './slab.ts';
import type { ClientStream, LocalStreams } from './streams.ts';
import type { Receiver, VirtualTime } from './time.ts';

const command = { read: 0, write: 1, flush: 3 } as const;

interface Request {
  readonly cookie: number;
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly data: Uint8Array | null;
  readonly done: (data: Uint8Array, error: number) => void;
}

const greetingBytes = 18;
const exportBytes = 10;
const replyBytes = 16;
const reconnectMs = 100;

const none = new Uint8Array(0);

export class NbdClient {
  readonly #time: VirtualTime;
  readonly #streams: LocalStreams;
  readonly #path: string;
  readonly #guest: Receiver;
  #stream: ClientStream | null = null;
  #input: Uint8Array = none;
  #phase: 'greeting' | 'export' | 'ready' = 'greeting';
  #cookie = 0;
  #isClosed = false;
  readonly #requests = new Map<number, Request>();

  constructor(time: VirtualTime, streams: LocalStreams, path: string, guest: Receiver) {
    this.#time = time;
    this.#streams = streams;
    this.#path = path;
    this.#guest = guest;
    this.#connect();
  }

  read(offset: number, length: number, done: (data: Uint8Array, error: number) => void): void {
    this.#ask({ command: command.read, flags: 0, offset, length, data: null, done });
  }

  write(offset: number, data: Uint8Array, fua: boolean, done: (error: number) => void): void {
    const flags = fua ? 1 : 0;
    const { length } = data;
    const answered = (_: Uint8Array, error: number) => done(error);
    this.#ask({ command: command.write, flags, offset, length, data, done: answered });
  }

  flush(done: (error: number) => void): void {
    const answered = (_: Uint8Array, error: number) => done(error);
    const request = { command: command.flush, flags: 0, offset: 0, length: 0, data: null };
    this.#ask({ ...request, done: answered });
  }

  close(): void {
    this.#isClosed = true;
    this.#stream?.close();
  }

  #ask(request: Omit<Request, 'cookie'>): void {
    this.#cookie += 1;
    const numbered = { ...request, cookie: this.#cookie };
    this.#requests.set(this.#cookie, numbered);
    if (this.#phase === 'ready') this.#send(numbered);
  }

  #send(request: Request): void {
    const { data, offset, length } = request;
    const bytes = bytesForAMoment(28 + (data?.length ?? 0));
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setUint32(0, 0x25609513);
    view.setUint16(4, request.flags);
    view.setUint16(6, request.command);
    view.setUint32(12, request.cookie);
    view.setUint32(16, Math.floor(offset / 2 ** 32));
    view.setUint32(20, offset % 2 ** 32);
    view.setUint32(24, length);
    if (data !== null) bytes.set(data, 28);
    this.#stream?.send(bytes);
  }

  #connect(): void {
    if (this.#isClosed) return;
    this.#phase = 'greeting';
    this.#input = none;
    const mine: { stream: ClientStream | null } = { stream: null };
    mine.stream = this.#streams.connect(this.#path, this.#guest, {
      data: (bytes) => {
        if (this.#stream === mine.stream) this.#received(bytes);
      },
      closed: () => {
        if (this.#stream === mine.stream) this.#connectLater();
      },
    });
    this.#stream = mine.stream;
    if (mine.stream === null) this.#connectLater();
  }

  #connectLater(): void {
    this.#stream = null;
    this.#time.after(reconnectMs, () => this.#connect(), this.#guest);
  }

  #received(bytes: Uint8Array): void {
    if (this.#input.length === 0) this.#input = bytes;
    else {
      const joined = new Uint8Array(this.#input.length + bytes.length);
      joined.set(this.#input);
      joined.set(bytes, this.#input.length);
      this.#input = joined;
    }
    if (this.#phase === 'greeting' && this.#take(greetingBytes)) {
      this.#phase = 'export';
      this.#stream?.send(exportName);
    }
    if (this.#phase === 'export' && this.#take(exportBytes)) {
      this.#phase = 'ready';
      for (const request of this.#requests.values()) this.#send(request);
    }
    while (this.#phase === 'ready' && this.#input.length >= replyBytes) {
      if (!this.#answer()) return;
    }
  }

  /** Takes one whole reply; false if there is none yet. */
  #answer(): boolean {
    const view = new DataView(this.#input.buffer, this.#input.byteOffset, this.#input.byteLength);
    if (view.getUint32(0) !== 0x67446698) throw new Error('the NBD server sent no simple reply');
    const error = view.getUint32(4);
    const request = this.#requests.get(view.getUint32(12));
    if (request === undefined) throw new Error('the NBD server answered what was not asked');
    const length = request.command === command.read && error === 0 ? request.length : 0;
    if (this.#input.length < replyBytes + length) return false;
    const data = this.#input.subarray(replyBytes, replyBytes + length);
    this.#take(replyBytes + length);
    this.#requests.delete(request.cookie);
    request.done(data, error);
    return true;
  }

  #take(count: number): boolean {
    if (this.#input.length < count) return false;
    this.#input = this.#input.subarray(count);
    return true;
  }
}

/** Client flags (fixed newstyle, no zeroes), then NBD_OPT_EXPORT_NAME with an empty name. */
const exportName = new Uint8Array([
  0, 0, 0, 3, 0x49, 0x48, 0x41, 0x56, 0x45, 0x4f, 0x50, 0x54, 0, 0, 0, 1, 0, 0, 0, 0,
]);
