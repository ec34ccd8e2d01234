// The observer's thread: looks until it is told to stop. It sleeps in `Atomics.wait` and not in a timer,
// because nothing else ever runs here.

import { parentPort, workerData } from 'node:worker_threads';
import { Sampler, type Watched } from './sampler.ts';

const sampleEveryMs = 15;

export interface ObserverData {
  readonly watched: Watched;
  /** One integer; not zero: stop. */
  readonly stop: SharedArrayBuffer;
}

const { watched, stop } = workerData as ObserverData;
const stopped = new Int32Array(stop);
const sampler = new Sampler(watched);
for (let next = performance.now(); ; ) {
  const now = Date.now();
  const { changes, doubled } = sampler.sample(now);
  parentPort?.postMessage({ at: now, changes, doubled });
  next = Math.max(next + sampleEveryMs, performance.now());
  if (Atomics.wait(stopped, 0, 0, next - performance.now()) !== 'timed-out') break;
}
parentPort?.postMessage(null);
