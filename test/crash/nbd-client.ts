// An NBD client on a real socket, for whoever needs to know of each request whether it was answered.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { CMD, enter, FUA, requestOf } from '../nbd/client-wire.ts';

/** The connection ended; what was asked and not answered may have happened or not. */
export class ConnectionGone extends Error {}

interface Waiting {
  readonly readBytes: number;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: Error) => void;
}

export class NbdClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  #input: Buffer = Buffer.alloc(0);
  #cookie = 0n;
  #isGone = false;
  /** Resolves when the connection has ended. */
  readonly gone: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.gone = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isGone = true;
        for (const { reject } of this.#waiting.values()) reject(new ConnectionGone('hung up'));
        this.#waiting.clear();
        resolve();
      });
    });
  }

  static async open(path: string, name: string): Promise<NbdClient> {
    const socket = connect({ path });
    socket.on('error', () => undefined);
    const client = new NbdClient(socket);
    await client.#next('connect');
    socket.write(enter(name));
    await client.#handshake();
    socket.on('data', (chunk: Buffer) => client.#receive(chunk));
    client.#receive(Buffer.alloc(0));
    return client;
  }

  /** What kills the connection in between, by whatever error, is its end. */
  async #next(event: 'connect' | 'data'): Promise<unknown[]> {
    const happened = once(this.#socket, event).catch(() => this.gone);
    const values = await Promise.race([happened, this.gone]);
    if (values === undefined) throw new ConnectionGone('hung up during the handshake');
    return values;
  }

  /** Skips to the acknowledgement of NBD_OPT_GO: a greeting, then option replies. */
  async #handshake(): Promise<void> {
    let at = 18;
    for (;;) {
      while (this.#input.length < at + 20 || this.#input.length < this.#endOf(at)) {
        const [chunk] = await this.#next('data');
        this.#input = Buffer.concat([this.#input, chunk as Buffer]);
      }
      const type = this.#input.readUInt32BE(at + 12);
      at = this.#endOf(at);
      if (type >= 2 ** 31) throw new Error(`the export is refused: ${type.toString(16)}`);
      if (type === 1) break;
    }
    this.#input = this.#input.subarray(at);
  }

  #endOf(at: number): number {
    return at + 20 + this.#input.readUInt32BE(at + 16);
  }

  #receive(chunk: Buffer): void {
    this.#input = this.#input.length === 0 ? chunk : Buffer.concat([this.#input, chunk]);
    while (this.#input.length >= 16) {
      if (this.#input.readUInt32BE(0) !== 0x67446698) {
        this.#socket.destroy(new Error('not a simple reply'));
        return;
      }
      const error = this.#input.readUInt32BE(4);
      const cookie = this.#input.readBigUInt64BE(8);
      const asked = this.#waiting.get(cookie);
      const end = 16 + (error === 0 ? (asked?.readBytes ?? 0) : 0);
      if (this.#input.length < end) return;
      const data = this.#input.subarray(16, end);
      this.#input = this.#input.subarray(end);
      this.#waiting.delete(cookie);
      if (error === 0) asked?.resolve(data);
      else asked?.reject(new Error(`NBD error ${error}`));
    }
  }

  #ask(command: number, fields: Parameters<typeof requestOf>[1], readBytes = 0): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#isGone) return reject(new ConnectionGone('hung up before'));
      this.#cookie += 1n;
      this.#waiting.set(this.#cookie, { readBytes, resolve, reject });
      this.#socket.write(requestOf(command, { ...fields, cookie: this.#cookie }));
    });
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#ask(CMD.READ, { offset, length }, length);
  }

  async write(offset: number, data: Buffer, fua: boolean): Promise<void> {
    await this.#ask(CMD.WRITE, { offset, data, flags: fua ? FUA : 0 });
  }

  /** Either way the range reads as zeros afterwards; see docs/protocols/disk.md. */
  async zero(offset: number, length: number, command: 'trim' | 'writeZeroes'): Promise<void> {
    await this.#ask(command === 'trim' ? CMD.TRIM : CMD.WRITE_ZEROES, { offset, length });
  }

  async flush(): Promise<void> {
    await this.#ask(CMD.FLUSH, {});
  }

  close(): void {
    this.#socket.destroy();
  }
}
