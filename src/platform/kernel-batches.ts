// Several reads and writes by one system call, io_submit(2), on one of libuv's threads. What a small read
// or write costs is nearly all the hand-over to such a thread and back (8 of 10 us), and so many share one.
// Despite the call's name it is no asynchronous I/O: for a file that is not opened for direct I/O the kernel
// does one after the other before the call returns.
//
// It is a short cut, and takes only what it can do whole: what is not reported to be done must be done in
// the usual way, which says what is wrong, too. Reads wait for no device (`RWF_NOWAIT`), so that one of them
// does not hold up the others. docs/decisions/0011 says why the event
// loop does not make the call itself.

import { endianness } from 'node:os';
import koffi from 'koffi';

export interface FileCall {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

type Kind = 'read' | 'write';
/** Of each call whether it was done whole; null: the kernel took none. */
type Done = (whole: readonly boolean[] | null) => void;

/** Calls at once. */
export const maxBatch = 32;
/** Batches at once; more would only wait for threads. */
const maxRunning = 16;

const iocbBytes = 64;
const eventBytes = 32;
const opcodes = { read: 0, write: 1 } as const;
const nowait = 8;

/** The numbers of io_setup, io_getevents and io_submit. */
const numbers: { readonly [arch: string]: readonly [number, number, number] } = {
  x64: [206, 208, 209],
  arm64: [0, 4, 2],
};
const [setupNumber, geteventsNumber, submitNumber] = numbers[process.arch] ?? [];

const libc = koffi.load('libc.so.6');
const setup = libc.func('long syscall(long number, unsigned int events, void *context)');
const submit = libc.func('long syscall(long number, uint64_t context, long count, void *iocbs)');
const getevents = libc.func(
  'long syscall(long number, uint64_t context, long least, long most, void *events, void *timeout)',
);

/** A context of the kernel with the memory that it reads from and writes to; used by one batch at a time. */
class Slot {
  /** None: the kernel gives none, or this is not a machine whose calls are known here. */
  static make(): Slot | null {
    if (setupNumber === undefined || endianness() !== 'LE') return null;
    const context = new BigUint64Array(1);
    return setup(setupNumber, maxBatch, context) === 0 ? new Slot(context[0] as bigint) : null;
  }

  readonly #context: bigint;
  readonly #iocbs = new DataView(new ArrayBuffer(maxBatch * iocbBytes));
  readonly #pointers = new BigUint64Array(maxBatch);
  readonly #events = new DataView(new ArrayBuffer(maxBatch * eventBytes));

  private constructor(context: bigint) {
    this.#context = context;
    const base = koffi.address(new Uint8Array(this.#iocbs.buffer));
    for (let index = 0; index < maxBatch; index += 1) {
      this.#pointers[index] = base + BigInt(index * iocbBytes);
    }
  }

  run(kind: Kind, fd: number, calls: readonly FileCall[], done: Done): void {
    for (const [index, call] of calls.entries()) this.#prepare(index, kind, fd, call);
    submit.async(
      submitNumber,
      this.#context,
      calls.length,
      this.#pointers,
      (error: Error | null, submitted: number) => {
        if (error !== null || submitted <= 0) return done(null);
        const whole = calls.map(() => false);
        this.#collect(submitted, calls, whole, () => done(whole));
      },
    );
  }

  /** `struct iocb` of linux/aio_abi.h. */
  #prepare(index: number, kind: Kind, fd: number, { offset, bytes }: FileCall): void {
    const at = index * iocbBytes;
    const view = this.#iocbs;
    view.setUint32(at, index, true);
    view.setUint32(at + 12, kind === 'read' ? nowait : 0, true);
    view.setUint16(at + 16, opcodes[kind], true);
    view.setInt32(at + 20, fd, true);
    view.setBigUint64(at + 24, koffi.address(bytes), true);
    view.setUint32(at + 32, bytes.length, true);
    view.setUint32(at + 40, offset % 2 ** 32, true);
    view.setUint32(at + 44, Math.floor(offset / 2 ** 32), true);
  }

  /** Nearly always all that was submitted is finished by now; what is not is waited for on a thread. It keeps
   * hold of the calls, whose memory the kernel uses until they are finished. */
  #collect(
    missing: number,
    calls: readonly FileCall[],
    whole: boolean[],
    done: () => void,
    mayWait = false,
  ): void {
    const landed = (count: number) => {
      for (let index = 0; index < count; index += 1) {
        const { call, result } = this.#event(index);
        whole[call] = result === (calls[call] as FileCall).bytes.length;
      }
      const left = missing - Math.max(0, count);
      if (left === 0) done();
      else this.#collect(left, calls, whole, done, true);
    };
    const least = mayWait ? missing : 0;
    const args = [geteventsNumber, this.#context, least, missing, this.#events, null];
    if (mayWait) getevents.async(...args, (_: Error | null, count: number) => landed(count));
    else landed(getevents(...args));
  }

  /** `struct io_event` of linux/aio_abi.h. */
  #event(index: number): { call: number; result: number } {
    const at = index * eventBytes;
    const call = this.#events.getUint32(at, true);
    return { call, result: Number(this.#events.getBigInt64(at + 16, true)) };
  }
}

let available = true;
let running = 0;
const free: Slot[] = [];

/**
 * Makes up to `maxBatch` calls to one file at once. What was not done whole may have been done in part. False: it
 * can not be done now, and `done` is not called.
 */
export function runBatch(kind: Kind, fd: number, calls: readonly FileCall[], done: Done): boolean {
  if (!available || running >= maxRunning) return false;
  const slot = free.pop() ?? Slot.make();
  if (slot === null) {
    available = false;
    return false;
  }
  running += 1;
  slot.run(kind, fd, calls, (whole) => {
    running -= 1;
    free.push(slot);
    done(whole);
  });
  return true;
}
