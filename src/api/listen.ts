// A server on a Unix socket that only its owner can open. The mode of a socket counts from the very
// moment of `bind`, so it must be right then: a later chmod would leave a gap in which anybody may
// connect. What is in the way is looked at first: a socket that nobody answers on is left over from
// a daemon that was killed and is replaced; a living one, or something else, is not touched.

import { chmodSync } from 'node:fs';
import { lstat, mkdir, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { HoldfastError } from '../model/errors.ts';

/** `sun_path` of Linux has 108 bytes with the final NUL; Node cuts longer paths silently. */
const maxSocketPathBytes = 107;

function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= maxSocketPathBytes) return;
  throw new HoldfastError(
    'bad-request',
    `The socket path ${path} has ${bytes} bytes: Linux allows at most ${maxSocketPathBytes}. ` +
      'Choose a folder with a shorter path.',
  );
}

export async function listenPrivately(server: Server, path: string): Promise<void> {
  checkSocketPath(path);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await clearTheWay(path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    // The umask belongs to the whole process, but `listen` binds before it returns, and 077 harms no
    // file that another thread makes in between.
    const previous = process.umask(0o077);
    try {
      server.listen(path);
      chmodSync(path, 0o600);
    } catch {
      // Not bound: the error event says why.
    } finally {
      process.umask(previous);
    }
  });
}

async function clearTheWay(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return;
  if (!found.isSocket()) {
    throw new HoldfastError('bad-request', `${path} exists and is no socket; it was not replaced.`);
  }
  if (await answers(path)) {
    throw new HoldfastError(
      'conflict',
      `Another daemon serves ${path} already; two daemons can not share one socket.`,
    );
  }
  await unlink(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    // ECONNREFUSED: nobody listens. Anything else (EAGAIN: its queue is full, EACCES) is alive.
    socket.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT');
    });
  });
}
