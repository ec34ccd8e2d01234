// Serves one disk to local programs, to QEMU above all, as an NBD export on a stream listener. Any
// number of connections may be open at once; what one of them does wrong costs only that one.
// (NBD protocol document, doc/proto.md: fixed newstyle, simple and structured replies, flush, FUA,
// trim, write zeroes, block status by `base:allocation`, multi-conn; no TLS, because the socket's
// file mode is the access control.)

import type { Log } from '../../ports/log.ts';
import type { Stream, Streams } from '../../ports/streams.ts';
import type { BlockDevice } from '../disk/block-device.ts';
import { Connection } from './connection.ts';
import type { NbdExport } from './wire.ts';

/**
 * More clients than that at once are turned away, because each may make the host hold some memory; but
 * whoever has not got through its handshake makes room for a new one.
 */
const maxConnections = 64;
/** Answers that clients do not take. Above it the one that takes least has to go: some clients that read
 * nothing must not fill this host's memory. One alone never comes near. */
export const maxUnsentBytes = 384 * 1024 * 1024;

export interface NbdServerOptions {
  readonly streams: Streams;
  /** Where to listen. */
  readonly path: string;
  /** The name that clients ask for; the empty name is served too. */
  readonly exportName: string;
  readonly device: BlockDevice;
  readonly readOnly?: boolean;
  readonly log: Log;
}

export interface NbdServer {
  readonly path: string;
  /** Clients connected now. */
  readonly connections: number;
  /** Asked for since it began to serve; each connection counts as one as well. */
  readonly requests: number;
  /** Not answered yet. */
  readonly inFlight: number;
  /**
   * Hangs up on all clients and stops listening. From the call on nothing reaches the device any
   * more; what is already under way there completes, and its results are dropped. Unanswered
   * requests are the client's to repeat: QEMU does, when the export is served again.
   */
  close(): Promise<void>;
}

/** Rejects where the path can not be listened on. */
export async function serveNbd(options: NbdServerOptions): Promise<NbdServer> {
  const { device, log, path } = options;
  const disk: NbdExport = {
    name: options.exportName,
    sizeBytes: device.sizeBytes,
    readOnly: options.readOnly ?? false,
    canUnmap: device.canUnmap,
  };
  const connections = new Set<Connection>();
  const shared = { inFlightBytes: 0, requests: 0 };
  let closing: Promise<void> | null = null;
  let full = false;

  function makeRoom(): boolean {
    const idle = [...connections].find((one) => !one.hasEntered);
    idle?.destroy();
    return idle !== undefined;
  }

  function lookAtUnsent(): void {
    let sum = 0;
    let most: Connection | null = null;
    for (const one of connections) {
      sum += one.unsentBytes;
      if (one.unsentBytes > (most?.unsentBytes ?? 0)) most = one;
    }
    if (sum > maxUnsentBytes)
      most?.drop('it does not take its answers, and the host holds too many');
  }

  const accept = (stream: Stream): void => {
    if (closing !== null) return stream.destroy();
    if (connections.size >= maxConnections) {
      if (!full) log.warn('too many NBD clients at once: some are turned away', { path });
      full = true;
      if (!makeRoom()) return stream.destroy();
    }
    shared.requests += 1;
    const connection = new Connection({
      stream,
      device,
      disk,
      log,
      shared,
      onUnsent: lookAtUnsent,
      onClosed: () => {
        connections.delete(connection);
        if (connections.size < maxConnections / 2) full = false;
      },
    });
    connections.add(connection);
    connection.start();
  };

  const listener = await options.streams.listen(path, accept);
  return {
    path,
    get connections() {
      return connections.size;
    },
    get requests() {
      return shared.requests;
    },
    get inFlight() {
      return [...connections].reduce((sum, one) => sum + one.inFlight, 0);
    },
    close() {
      closing ??= (async () => {
        for (const connection of connections) connection.destroy();
        await listener.close();
      })();
      return closing;
    },
  };
}
