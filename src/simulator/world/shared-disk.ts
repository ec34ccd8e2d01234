// A disk on storage that every host sees, as a file on a file server is: it knows neither locks nor epochs.
// What was sent lands, though its sender stands still or has no power any more, and is durable then. Only
// that an older guest has stopped in time keeps its writes from the next one; whether it did is watched here.

import type { Epoch } from '../../model/ids.ts';
import type { DiskActivity } from '../../ports/guests.ts';
import { blockBytes } from './disk-truth.ts';
import type { SeededRandom } from './random.ts';
import type { Receiver, VirtualTime } from './time.ts';

/** What a guest does with a disk, wherever it lies. */
export interface DiskClient {
  read(offset: number, length: number, done: (data: Uint8Array, error: number) => void): void;
  write(offset: number, data: Uint8Array, fua: boolean, done: (error: number) => void): void;
  flush(done: (error: number) => void): void;
  close(): void;
}

/** To the server and into its memory that keeps, or back. */
const wayMs = { least: 0.1, most: 2 };

export class SharedDisk {
  readonly #time: VirtualTime;
  readonly #random: SeededRandom;
  readonly #onStaleWrite: (text: string) => void;
  readonly #blocks = new Map<number, Uint8Array>();
  /** The newest of whose guest anything has come. */
  #epoch: Epoch | null = null;

  constructor(time: VirtualTime, random: SeededRandom, onStaleWrite: (text: string) => void) {
    this.#time = time;
    this.#random = random;
    this.#onStaleWrite = onStaleWrite;
  }

  /** As the guest of one epoch has it; answers wait while it stands still. */
  open(epoch: Epoch, guest: Receiver): DiskClient & { readonly activity: DiskActivity } {
    const activity = { requests: 0, inFlight: 0 };
    const send = (arrived: () => void) => {
      activity.requests += 1;
      activity.inFlight += 1;
      this.#send(arrived);
    };
    const answer = (answered: () => void) =>
      this.#answer(guest, () => {
        activity.inFlight -= 1;
        answered();
      });
    return {
      activity,
      read: (offset, length, done) =>
        send(() => {
          this.#heard(epoch);
          const data = this.#read(offset, length);
          answer(() => done(data, 0));
        }),
      write: (offset, data, _fua, done) => {
        const sent = data.slice(); // the sender may use its memory again
        send(() => {
          if (this.#epoch !== null && epoch < this.#epoch) {
            this.#onStaleWrite(
              `a write of epoch ${epoch} came after the guest of epoch ${this.#epoch}`,
            );
          }
          this.#heard(epoch);
          this.#write(offset, sent);
          answer(() => done(0));
        });
      },
      flush: (done) => send(() => answer(() => done(0))),
      close: () => {},
    };
  }

  #heard(epoch: Epoch): void {
    if (this.#epoch === null || epoch > this.#epoch) this.#epoch = epoch;
  }

  #way(): number {
    return wayMs.least + this.#random.next() * (wayMs.most - wayMs.least);
  }

  #send(arrived: () => void): void {
    this.#time.after(this.#way(), arrived);
  }

  #answer(guest: Receiver, answered: () => void): void {
    this.#time.after(this.#way(), answered, guest);
  }

  #read(offset: number, length: number): Uint8Array {
    const data = new Uint8Array(length);
    for (let at = 0; at < length; at += blockBytes) {
      const block = this.#blocks.get((offset + at) / blockBytes);
      if (block !== undefined) data.set(block, at);
    }
    return data;
  }

  #write(offset: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += blockBytes) {
      this.#blocks.set((offset + at) / blockBytes, data.subarray(at, at + blockBytes));
    }
  }
}
