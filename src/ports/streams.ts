// Local byte streams: what the host serves to programs on the same machine (NBD to QEMU).

export interface Stream {
  /** Queues the chunks, which must not change afterwards; false while the peer is slow to read:
   * then wait for `drained` before producing more. */
  write(chunks: readonly Uint8Array[]): boolean;
  /** Stops, and begins again, to hand over what the peer sends; what it sends meanwhile waits with it. */
  pause(): void;
  resume(): void;
  /** Ends the stream after what was written has gone out. */
  end(): void;
  /** Breaks the stream at once. */
  destroy(): void;
  /** To be set once, before the next turn of the event loop. */
  handle(events: StreamEvents): void;
}

export interface StreamEvents {
  data(bytes: Uint8Array): void;
  drained(): void;
  closed(): void;
}

export interface Listener {
  close(): Promise<void>;
}

export interface Streams {
  /** Serves a name (a path of a Unix socket, mode 0600); replaces a stale socket of that name. */
  listen(path: string, onStream: (stream: Stream) => void): Promise<Listener>;
}
