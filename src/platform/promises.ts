// Runs all promise reactions that are due, from ordinary code. JavaScript has no call for that: they run
// when the stack is empty. Waiting for that after each of a million events of virtual time costs more
// than the events, so V8's own function is used, which its engineers' tests use for the same end
// (docs/decisions/0007). It does nothing while a promise reaction is already running: call what uses it
// from a turn of the event loop of its own (`inOwnTurn`).

import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';

let checkpoint: (() => void) | null = null;

/** Throws where this JavaScript engine has no such function. */
export function settlePromises(): () => void {
  if (checkpoint !== null) return checkpoint;
  setFlagsFromString('--allow-natives-syntax');
  try {
    checkpoint = runInThisContext('() => %PerformMicrotaskCheckpoint()') as () => void;
    checkpoint(); // compiled now, while the syntax is allowed
  } finally {
    setFlagsFromString('--no-allow-natives-syntax');
  }
  return checkpoint;
}

/** Runs the work in a turn of the event loop of its own, outside of all promises. */
export function inOwnTurn<T>(work: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error);
      }
    });
  });
}
