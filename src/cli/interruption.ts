// Ctrl-C and its relatives as something that a command can wait for, so that it ends in order.

import { Interrupted } from './failure.ts';

export interface Interruption {
  readonly signal: AbortSignal;
  /** Rejects when interrupted. */
  readonly promise: Promise<never>;
  abort(reason: Error): void;
  /** Leaves signals to whoever else wants them. */
  release(): void;
}

/** `what` is interrupted, in its words. */
export function interruption(what: string): Interruption {
  const controller = new AbortController();
  const { signal } = controller;
  const promise = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
  promise.catch(() => undefined);
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const interrupt = (name: NodeJS.Signals): void =>
    controller.abort(new Interrupted(`${what} was interrupted by ${name}.`));
  for (const name of names) process.on(name, interrupt);
  return {
    signal,
    promise,
    abort: (reason) => controller.abort(reason),
    release() {
      for (const name of names) process.off(name, interrupt);
    },
  };
}
