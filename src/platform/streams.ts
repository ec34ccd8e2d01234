// Local byte streams over Unix sockets. A socket file is never wider than its owner, not even for
// the moment between its making and the change of its mode; what is written in one turn of the event
// loop goes out in one system call.

import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { HoldfastError } from '../model/errors.ts';
import type { Stream, Streams } from '../ports/streams.ts';
import { plainBytes } from './frame-stream.ts';

/** Of `sockaddr_un` on Linux, without the final zero. */
export const maxSocketPathBytes = 107;

/** Connections that wait to be accepted: so many at once keep a guest from its disk for a moment only. More than
 * the usual `net.core.somaxconn` the kernel does not keep. */
const backlog = 4096;

/** Closing a listener ends accepting; the streams that it accepted stay with their owners. */
export function createStreams(): Streams {
  return {
    async listen(path, onStream) {
      if (Buffer.byteLength(path) > maxSocketPathBytes) {
        const limit = `longer than the ${maxSocketPathBytes} bytes of a Unix socket's path`;
        throw new HoldfastError('bad-request', `${path} is ${limit}; choose a shorter runDir`);
      }
      await removeStale(path);
      const server = createServer((socket) => onStream(makeStream(socket)));
      await bindPrivately(server, path);
      return {
        // Not waiting for the streams: they may live on. Closing also removes the socket file.
        close: async () => void server.close(),
      };
    },
  };
}

function bindPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(
        new HoldfastError('disk-error', `${path} can not be served: ${cause.message}`, { cause }),
      );
    server.once('error', failed);
    // Node binds within this call. The mask is the process's, but 077 harms no file that another
    // thread makes meanwhile.
    const mask = process.umask(0o077);
    try {
      server.listen({ path, backlog });
      chmodSync(path, 0o600);
    } catch {
      // The path could not be bound: the event says why.
    } finally {
      process.umask(mask);
    }
    server.once('listening', () => {
      server.off('error', failed);
      server.on('error', () => {}); // of single connections that could not be accepted
      resolve();
    });
  });
}

/** Removes the socket of a process that was killed. Never removes a file or a socket that answers. */
async function removeStale(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new HoldfastError('conflict', `${path} exists and is not a socket`);
  }
  if (await answers(path))
    throw new HoldfastError('conflict', `${path} is served by another process`);
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => settle(true));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      settle(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}

function makeStream(socket: Socket): Stream {
  let corked = false;
  const uncork = () => {
    corked = false;
    socket.uncork();
  };
  socket.on('error', () => {}); // `close` follows
  return {
    write(chunks) {
      if (socket.destroyed || socket.writableEnded) return true;
      if (!corked) {
        corked = true;
        socket.cork();
        setImmediate(uncork);
      }
      for (const chunk of chunks) if (chunk.length > 0) socket.write(chunk);
      return !socket.writableNeedDrain;
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
    handle(events) {
      socket.on('data', (bytes: Buffer) => events.data(plainBytes(bytes)));
      socket.on('drain', () => events.drained());
      socket.on('close', () => events.closed());
    },
  };
}
