// Streams without a network: the test is the peer, and decides when it is slow to read.

import type { Listener, Stream, StreamEvents, Streams } from '../../src/ports/streams.ts';

export class FakeStream implements Stream {
  readonly #written: Uint8Array[] = [];
  events: StreamEvents | null = null;
  writes = 0;
  ended = false;
  destroyed = false;
  slow = false;
  paused = false;

  /** What has been written so far, in one piece. */
  get output(): Buffer {
    return Buffer.concat(this.#written);
  }

  get outputBytes(): number {
    return this.#written.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  get open(): boolean {
    return !this.ended && !this.destroyed;
  }

  write(chunks: readonly Uint8Array[]): boolean {
    if (!this.open) throw new Error('write after the end');
    this.writes += 1;
    this.#written.push(...chunks);
    return !this.slow;
  }

  end(): void {
    if (this.ended) throw new Error('ended twice');
    this.ended = true;
  }

  destroy(): void {
    this.destroyed = true;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  handle(events: StreamEvents): void {
    this.events = events;
  }

  /** The peer sends something; as on a real stream nothing comes in after `destroy`. */
  feed(...chunks: Uint8Array[]): this {
    for (const chunk of chunks) if (!this.destroyed) this.events?.data(chunk);
    return this;
  }

  drain(): void {
    this.slow = false;
    this.events?.drained();
  }

  /** The peer is gone. */
  hangUp(): void {
    this.destroyed = true;
    this.events?.closed();
  }
}

export class FakeStreams implements Streams {
  listening = false;
  #accept: ((stream: Stream) => void) | null = null;

  listen(_path: string, onStream: (stream: Stream) => void): Promise<Listener> {
    this.listening = true;
    this.#accept = onStream;
    const close = () => {
      this.listening = false;
      return Promise.resolve();
    };
    return Promise.resolve({ close });
  }

  connect<T extends FakeStream = FakeStream>(stream: T = new FakeStream() as T): T {
    this.#accept?.(stream);
    return stream;
  }
}
