// The observer's thread: samples until it is told to stop, then says what it saw. It sleeps in
// `Atomics.wait` and not in a timer, because nothing else ever runs here.

import { parentPort, workerData } from 'node:worker_threads';
import { Sampler, sampleEveryMs } from './sampler.ts';

export interface ObserverData {
  readonly folder: string;
  readonly vms: readonly string[];
  /** One integer; not zero: stop. */
  readonly stop: SharedArrayBuffer;
}

const { folder, vms, stop } = workerData as ObserverData;
const stopped = new Int32Array(stop);
const sampler = new Sampler(folder, vms);
for (let next = performance.now(); ; ) {
  sampler.sample(performance.now());
  next = Math.max(next + sampleEveryMs, performance.now());
  if (Atomics.wait(stopped, 0, 0, next - performance.now()) !== 'timed-out') break;
}
parentPort?.postMessage(sampler.observation());
