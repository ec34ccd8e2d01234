// Waiting for something to become true, with an end: what was still missing is then part of the error.

import { setTimeout as delay } from 'node:timers/promises';
import { ApiError } from '../api/client.ts';
import { HoldfastError } from '../model/errors.ts';

export interface WaitOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly everyMs?: number;
}

/** Asks until the answer is null; a string says what is missing. A host that does not answer (yet) is
 * something missing, any other error ends the waiting. */
export async function waitUntil(
  what: string,
  missing: () => Promise<string | null>,
  { timeoutMs, signal, everyMs = 100 }: WaitOptions,
): Promise<void> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    signal.throwIfAborted();
    const lacks = await missing().catch((error: unknown) => {
      if (error instanceof ApiError && transient.has(error.code)) return error.message;
      throw error;
    });
    if (lacks === null) return;
    if (performance.now() > until) {
      throw new HoldfastError('timeout', `${what}: not within ${timeoutMs / 1000} s (${lacks}).`);
    }
    await delay(everyMs, undefined, { signal });
  }
}

const transient = new Set(['unreachable', 'outcome-unknown', 'timeout', 'no-master', 'stopped']);
