// Hands seeds out to threads until there are no more, time is up, or enough has been found; then what was
// found is shrunk, one finding per thread.

import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import type { Finding } from './explore-seed.ts';
import type { WorkerMessage, WorkerReply, WorkerTask } from './explore-worker.ts';

export interface PoolOptions {
  readonly seeds: Iterable<number>;
  readonly jobs: number;
  /** By `performance.now()`. */
  readonly untilMs: number;
  readonly stopAfter: number;
  readonly closed: AbortSignal;
  /** Look for violated invariants only. */
  readonly isStoryOnly: boolean;
  /** Runs that shrinking one finding may take; 0: it is not shrunk. */
  readonly shrinkRuns: number;
  readonly onProgress: (progress: Progress) => void;
  readonly onFound: (finding: Finding) => void;
}

export interface Progress {
  readonly seeds: number;
  readonly simulatedMs: number;
  readonly events: number;
  readonly faults: number;
  readonly found: number;
}

export type Shrunk = Extract<WorkerReply, { readonly task: 'shrink' }>;

export interface PoolResult extends Progress {
  readonly findings: readonly Finding[];
  readonly shrunk: ReadonlyMap<number, Shrunk>;
}

export async function explorePool(options: PoolOptions): Promise<PoolResult> {
  const seeds = options.seeds[Symbol.iterator]();
  const findings: Finding[] = [];
  const shrunk = new Map<number, Shrunk>();
  const sum = { seeds: 0, simulatedMs: 0, events: 0, faults: 0, found: 0 };
  let toShrink: Finding[] = [];

  const isOver = () =>
    options.closed.aborted ||
    findings.length >= options.stopAfter ||
    performance.now() >= options.untilMs;

  function nextTask(): WorkerTask | null {
    if (!isOver()) {
      const { done, value } = seeds.next();
      if (done !== true) return { task: 'explore', seed: value, isStoryOnly: options.isStoryOnly };
    }
    const finding = toShrink.shift();
    if (finding === undefined || options.shrinkRuns === 0 || options.closed.aborted) return null;
    return { task: 'shrink', seed: finding.seed, maxRuns: options.shrinkRuns };
  }

  function take(reply: WorkerReply): void {
    if (reply.task === 'shrink') {
      shrunk.set(reply.seed, reply);
      return;
    }
    sum.seeds += 1;
    sum.simulatedMs += reply.simulatedMs;
    sum.events += reply.events;
    sum.faults += reply.faults;
    if (reply.found !== null && findings.length < options.stopAfter) {
      findings.push(reply.found);
      sum.found += 1;
      toShrink.push(reply.found);
      options.onFound(reply.found);
    }
    options.onProgress(sum);
  }

  const threads: Promise<void>[] = [];
  try {
    for (let job = 0; job < options.jobs; job += 1) {
      // One after the other: while one begins, it uses a switch of the whole process.
      const worker = await startWorker();
      const thread = work(worker, nextTask, take);
      thread.catch(() => undefined); // told when all are awaited
      threads.push(thread);
    }
  } finally {
    await Promise.all(threads);
    toShrink = [];
  }
  return { ...sum, findings, shrunk };
}

/** Nearly all that a run makes is garbage a moment later: a larger young generation copies less of it. */
const youngGenerationMb = 96;

async function startWorker(): Promise<Worker> {
  // Every processor has a thread of its own to do: who helps one with its garbage keeps another waiting.
  setFlagsFromString('--no-parallel-scavenge');
  const program = new URL(
    `./explore-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`,
    import.meta.url,
  );
  const worker = new Worker(program, {
    resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMb },
  });
  await heard(worker, 'ready');
  return worker;
}

/** One thread, from its first task to its last. */
async function work(
  worker: Worker,
  next: () => WorkerTask | null,
  take: (reply: WorkerReply) => void,
): Promise<void> {
  try {
    for (let task = next(); task !== null; task = next()) {
      worker.postMessage(task);
      take(await heard(worker, task.task));
    }
  } finally {
    await worker.terminate();
  }
}

/** The next message of the thread, which must be of that kind; rejects if the thread ends first. */
function heard<Kind extends WorkerMessage['task']>(
  worker: Worker,
  kind: Kind,
): Promise<Extract<WorkerMessage, { readonly task: Kind }>> {
  return new Promise((resolve, reject) => {
    const exited = () => reject(new Error('a thread of the exploration has ended'));
    worker.once('error', reject);
    worker.once('exit', exited);
    worker.once('message', (message: WorkerMessage) => {
      worker.off('error', reject);
      worker.off('exit', exited);
      if (message.task === kind) {
        resolve(message as Extract<WorkerMessage, { readonly task: Kind }>);
      } else reject(new Error(`a thread of the exploration says ${message.task}, not ${kind}`));
    });
  });
}
