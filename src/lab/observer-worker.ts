// The observer's thread: looks until it is told to stop. It sleeps in `Atomics.wait` and not in a timer,
// because nothing else ever runs here.

import { parentPort, workerData } from 'node:worker_threads';
import { Sampler, type Watched } from './sampler.ts';

const sampleEveryMs = 15;
/** Of hundreds of processes a look takes long: it leaves the processors to those that are looked at. */
const restPerLook = 4;

export interface ObserverData {
  readonly watched: Watched;
  /** One integer; not zero: stop. */
  readonly stop: SharedArrayBuffer;
}

const { watched, stop } = workerData as ObserverData;
const stopped = new Int32Array(stop);
const sampler = new Sampler(watched);
for (;;) {
  const begunMs = performance.now();
  const now = Date.now();
  const { changes, doubled } = sampler.sample(now);
  parentPort?.postMessage({ at: now, changes, doubled });
  const tookMs = performance.now() - begunMs;
  const restMs = Math.max(sampleEveryMs - tookMs, restPerLook * tookMs);
  if (Atomics.wait(stopped, 0, 0, restMs) !== 'timed-out') break;
}
parentPort?.postMessage(null);
