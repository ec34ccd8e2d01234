// Local streams of one machine: what the daemon listens on, guests connect to.

import type { Stream, StreamEvents, Streams } from '../../ports/streams.ts';
import type { Process } from './process.ts';
import type { Receiver, VirtualTime } from './time.ts';

export interface ClientStream {
  send(bytes: Uint8Array): void;
  close(): void;
}

export interface ClientEvents {
  data(bytes: Uint8Array): void;
  closed(): void;
}

interface Server {
  readonly process: Process;
  readonly onStream: (stream: Stream) => void;
}

/** A hop through the machine's kernel, with the wake-up of the other side. */
const hopMs = 0.02;

export class LocalStreams {
  readonly #time: VirtualTime;
  readonly #listeners = new Map<string, Server>();
  readonly #hangUps = new Set<() => void>();

  constructor(time: VirtualTime) {
    this.#time = time;
  }

  /** The port as one run of the daemon sees it. */
  attach(process: Process): Streams {
    return {
      listen: async (path, onStream) => {
        const server = { process, onStream };
        if (process.isAlive) this.#listeners.set(path, server);
        return {
          close: async () => {
            if (this.#listeners.get(path) === server) this.#listeners.delete(path);
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
  connect(path: string, client: Receiver, events: ClientEvents): ClientStream | null {
    const server = this.#listeners.get(path);
    if (server === undefined) return null;
    const { process } = server;
    let handler: StreamEvents | null = null;
    let open = true;
    const hangUp = () => {
      if (!open) return;
      open = false;
      this.#hangUps.delete(hangUp);
      this.#time.after(0, () => handler?.closed(), process);
      this.#time.after(0, () => events.closed(), client);
    };
    this.#hangUps.add(hangUp);
    const stream: Stream = {
      write: (chunks) => {
        if (!process.isAlive) return true;
        // The server may reuse nothing that it has written, so the client may read it in place.
        const deliver = () => {
          if (open) for (const chunk of chunks) events.data(chunk);
        };
        this.#time.after(hopMs, deliver, client);
        return true;
      },
      pause: () => {},
      resume: () => {},
      end: hangUp,
      destroy: hangUp,
      handle: (given) => {
        handler = given;
      },
    };
    this.#time.after(0, () => server.onStream(stream), process);
    return {
      send: (bytes) => {
        const deliver = () => {
          if (open) handler?.data(bytes);
        };
        this.#time.after(hopMs, deliver, process);
      },
      close: hangUp,
    };
  }
}
