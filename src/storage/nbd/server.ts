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

/** More clients than that at once are turned away: each may make the host hold some memory. */
const maxConnections = 64;

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
  let closing: Promise<void> | null = null;
  let full = false;

  const accept = (stream: Stream): void => {
    if (closing !== null) return stream.destroy();
    if (connections.size >= maxConnections) {
      if (!full) log.warn('turned an NBD client away: too many are connected', { path });
      full = true;
      return stream.destroy();
    }
    const connection = new Connection({
      stream,
      device,
      disk,
      log,
      onClosed: () => {
        connections.delete(connection);
        full = false;
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
    close() {
      closing ??= (async () => {
        for (const connection of connections) connection.destroy();
        await listener.close();
      })();
      return closing;
    },
  };
}
