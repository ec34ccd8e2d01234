// The daemon's life around the host: the API answers from the moment the host is there until a signal
// says stop; then the API goes first, so that nobody is answered half, and the host after it. The
// guests stay under their guards: stopping the daemon is how it is upgraded.

import { type ApiServer, type HostCommands, serveApi } from '../api/server.ts';
import type { Manager } from '../manager/api.ts';
import type { Log } from '../ports/log.ts';

export interface Served {
  /** Resolves when the host wants to begin anew. */
  readonly restart: Promise<string>;
  readonly manager: Manager;
  readonly hostCommands: HostCommands;
  readonly log: Log;
  readonly socketPath: string;
  /** Stops the host and leaves the guests alone. */
  stop(): Promise<void>;
}

const signals = ['SIGTERM', 'SIGINT'] as const;

/** Resolves when the daemon was told to stop, or the host wants to begin anew, and it has stopped. */
export async function serveUntilStopped(host: Served): Promise<'stopped' | 'again'> {
  const { log } = host;
  let tell: (name: NodeJS.Signals) => void = () => {};
  // First of all: a signal during the start must not end the process half-way.
  const signal = new Promise<NodeJS.Signals>((resolve) => {
    tell = resolve;
    for (const name of signals) process.once(name, tell);
  });
  let api: ApiServer | null = null;
  try {
    api = await serveApi(host);
    log.info('ready', { socket: host.socketPath });
    return await Promise.race([
      signal.then((name) => {
        log.info('stopping; the guests go on', { signal: name });
        return 'stopped' as const;
      }),
      host.restart.then((reason) => {
        log.warn('beginning anew; the guests go on', { reason });
        return 'again' as const;
      }),
    ]);
  } finally {
    await api?.close();
    await host.stop();
    for (const name of signals) process.removeListener(name, tell);
  }
}
