// A thread that explores: it runs the seeds that it is given, one after the other, and shrinks those that
// fail. Each run is in a turn of the event loop of its own, outside of all promises.

import { parentPort } from 'node:worker_threads';
import { inOwnTurn, settlePromises } from '../../platform/promises.ts';
import { planOf } from '../../simulator/explore/plan.ts';
import { type Finding, findingOf, runSeed, shrinkFound } from './explore-seed.ts';

export type WorkerTask =
  | { readonly task: 'explore'; readonly seed: number; readonly isStoryOnly: boolean }
  | { readonly task: 'shrink'; readonly seed: number; readonly maxRuns: number };

/** What a thread says: at first that it is ready. */
export type WorkerMessage = { readonly task: 'ready' } | WorkerReply;

export type WorkerReply =
  | {
      readonly task: 'explore';
      readonly seed: number;
      readonly simulatedMs: number;
      readonly events: number;
      readonly faults: number;
      readonly found: Finding | null;
    }
  | {
      readonly task: 'shrink';
      readonly seed: number;
      /** The scenario file's text. */
      readonly text: string;
      readonly faults: number;
      readonly replays: boolean;
    };

const post = (message: WorkerMessage) => parentPort?.postMessage(message);

const settle = settlePromises();

// Most errors are answers of one host to another, and nobody reads where they were made. A replay of the
// seed, which is no thread, says it.
Error.stackTraceLimit = 0;

parentPort?.on('message', (message: WorkerTask) => {
  const work = message.task === 'explore' ? explored(message) : shrunk(message);
  work.then(post, (error: unknown) => {
    // A run that throws is a mistake of the simulator; the thread ends with it.
    setImmediate(() => {
      throw new Error(`seed ${message.seed}: ${String(error)}`, { cause: error });
    });
  });
});

async function explored(asked: { seed: number; isStoryOnly: boolean }): Promise<WorkerReply> {
  const { seed, isStoryOnly } = asked;
  const run = await inOwnTurn(() => runSeed(planOf(seed), settle, null, isStoryOnly));
  const { simulatedMs, events, done } = run;
  return { task: 'explore', seed, simulatedMs, events, faults: done.length, found: findingOf(run) };
}

async function shrunk({ seed, maxRuns }: { seed: number; maxRuns: number }): Promise<WorkerReply> {
  const result = await inOwnTurn(() => shrinkFound(planOf(seed), settle, maxRuns));
  return { task: 'shrink', seed, ...result };
}

post({ task: 'ready' });
