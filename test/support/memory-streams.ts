// Local streams of one machine without a kernel: what a daemon listens on, guests connect to.

import type { Stream, StreamEvents, Streams } from '../../src/ports/streams.ts';
import type { VirtualClock } from './virtual-clock.ts';

export interface ClientStream {
  send(bytes: Uint8Array): void;
  close(): void;
}

export class MemoryStreams {
  readonly #clock: VirtualClock;
  readonly #listeners = new Map<string, (stream: Stream) => void>();
  readonly #hangUps = new Set<() => void>();

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  /** The port as one run of the daemon sees it. */
  attach(): Streams {
    return {
      listen: async (path, onStream) => {
        this.#listeners.set(path, onStream);
        return {
          close: async () => {
            if (this.#listeners.get(path) === onStream) this.#listeners.delete(path);
          },
        };
      },
    };
  }

  /** The daemon is gone: nobody listens, and every stream breaks. */
  kill(): void {
    this.#listeners.clear();
    for (const hangUp of [...this.#hangUps]) hangUp();
  }

  /** Null while nobody listens. */
  connect(
    path: string,
    onData: (bytes: Uint8Array) => void,
    onClosed: () => void,
  ): ClientStream | null {
    const listener = this.#listeners.get(path);
    if (listener === undefined) return null;
    let server: StreamEvents | null = null;
    let open = true;
    const hangUp = () => {
      if (!open) return;
      open = false;
      this.#hangUps.delete(hangUp);
      this.#clock.defer(() => {
        server?.closed();
        onClosed();
      });
    };
    this.#hangUps.add(hangUp);
    listener({
      write: (chunks) => {
        const bytes = chunks.map((chunk) => chunk.slice());
        this.#clock.defer(() => {
          if (open) for (const chunk of bytes) onData(chunk);
        });
        return true;
      },
      pause: () => {},
      resume: () => {},
      end: hangUp,
      destroy: hangUp,
      handle: (events) => {
        server = events;
      },
    });
    return {
      send: (bytes) => {
        this.#clock.defer(() => {
          if (open) server?.data(bytes);
        });
      },
      close: hangUp,
    };
  }
}
