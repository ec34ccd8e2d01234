// posix_fadvise(2) with POSIX_FADV_DONTNEED: drops the pages of a file that the system takes for clean. After a failed
// sync some of them are not what the device has, and Node has no call for it.

import koffi from 'koffi';

const dontNeed = 4;

const fadvise = koffi
  .load('libc.so.6')
  .func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)');

/** On libuv's threads, as Node's own file calls. Rejects with the error's number. */
export function dropCached(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fadvise.async(fd, 0, 0, dontNeed, (error: Error | null, result: number) => {
      if (error === null && result === 0) resolve();
      else reject(error ?? new Error(`posix_fadvise: error ${result}`));
    });
  });
}
