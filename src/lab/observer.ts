// Runs the sampler in a thread of its own, so that nothing else that the lab does can slow it down.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Change } from './instances.ts';
import type { ObserverData } from './observer-worker.ts';
import type { Doubled, Watched } from './sampler.ts';

/** Below this what it saw is not to be trusted: too much could have been between two looks. */
export const leastRateHz = 20;

interface Message {
  readonly at: number;
  readonly changes: readonly Change[];
  readonly doubled: readonly Doubled[];
}

export class Observer {
  readonly #stop = new SharedArrayBuffer(4);
  readonly #worker: Worker;
  #samples = 0;
  #firstAt = 0;
  #lastAt = 0;
  #longestGapMs = 0;

  constructor(
    watched: Watched,
    events: { change(change: Change): void; doubled(doubled: Doubled): void },
  ) {
    const data: ObserverData = { watched, stop: this.#stop };
    const ending = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
    this.#worker = new Worker(new URL(`./observer-worker${ending}`, import.meta.url), {
      workerData: data,
    });
    this.#worker.on('message', (message: Message | null) => {
      if (message === null) return;
      if (this.#samples === 0) this.#firstAt = message.at;
      else this.#longestGapMs = Math.max(this.#longestGapMs, message.at - this.#lastAt);
      this.#lastAt = message.at;
      this.#samples += 1;
      for (const change of message.changes) events.change(change);
      for (const doubled of message.doubled) events.doubled(doubled);
    });
    this.#worker.unref();
  }

  get rateHz(): number {
    const durationMs = this.#lastAt - this.#firstAt;
    return durationMs <= 0 ? 0 : ((this.#samples - 1) * 1000) / durationMs;
  }

  get longestGapMs(): number {
    return this.#longestGapMs;
  }

  /** Ends it; all that it saw has been told then. */
  async finish(): Promise<void> {
    const flag = new Int32Array(this.#stop);
    this.#worker.ref();
    const exited = once(this.#worker, 'exit');
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
    await exited;
  }
}
