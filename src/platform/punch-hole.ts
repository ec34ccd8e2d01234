// fallocate(2) with FALLOC_FL_PUNCH_HOLE: the only way to give the space inside of a file back, and
// Node has no call for it. It runs on libuv's threads like Node's own file calls; a few at a time,
// so that a guest that trims a whole disk does not keep reads and writes from these threads.

import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';

/** FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */
const mode = 1 | 2;
const maxRunning = 2;

const fallocate = koffi
  .load('libc.so.6')
  .func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');

let running = 0;
const waiting: (() => void)[] = [];

/** Makes the range a hole, which reads as zeros. `unsupported`: this file system has no holes, and
 * nothing was done. */
export function punchHole(
  fd: number,
  offset: number,
  length: number,
  done: (outcome: 'punched' | 'unsupported' | NodeJS.ErrnoException) => void,
): void {
  const start = () => {
    running += 1;
    fallocate.async(fd, mode, offset, length, (error: Error | null, result: number) => {
      running -= 1;
      waiting.shift()?.();
      if (error !== null) done(error);
      else done(result === 0 ? 'punched' : again(fd, offset, length));
    });
  };
  if (running < maxRunning) start();
  else waiting.push(start);
}

/** `errno` is the calling thread's, and the call above ran on another one: what is wrong is learned by
 * doing it once more here. Doing it twice is harmless. */
function again(
  fd: number,
  offset: number,
  length: number,
): 'punched' | 'unsupported' | NodeJS.ErrnoException {
  if (fallocate(fd, mode, offset, length) === 0) return 'punched';
  const number = koffi.errno();
  const { EOPNOTSUPP, ENOSYS, ENODEV } = koffi.os.errno;
  if (number === EOPNOTSUPP || number === ENOSYS || number === ENODEV) return 'unsupported';
  const code = getSystemErrorName(-number);
  return Object.assign(new Error(`${code}: punching a hole`), { code, errno: -number });
}
