// Runs the sampler in a thread of its own, so that nothing that the demo does can slow it down.

import { Worker } from 'node:worker_threads';
import type { ObserverData } from './observer-worker.ts';
import type { Observation } from './sampler.ts';

export interface Observer {
  /** Ends the observation. */
  finish(): Promise<Observation>;
}

export function observe(folder: string, vms: readonly string[]): Observer {
  const stop = new SharedArrayBuffer(4);
  const data: ObserverData = { folder, vms, stop };
  const program = new URL(
    `./observer-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`,
    import.meta.url,
  );
  const worker = new Worker(program, { workerData: data });
  const result = new Promise<Observation>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', () => reject(new Error('the observer ended without a result')));
  });
  // Where the demo fails first, nobody asks for the result any more, and nobody waits for the thread.
  result.catch(() => undefined);
  worker.unref();
  return {
    finish() {
      const flag = new Int32Array(stop);
      worker.ref();
      Atomics.store(flag, 0, 1);
      Atomics.notify(flag, 0);
      return result;
    },
  };
}
