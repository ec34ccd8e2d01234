// The daemon's life around the host: the API answers from the moment the host is there until a signal
// says stop; then the API goes first, so that nobody is answered half, and the host after it. The
// guests stay under their guards: stopping the daemon is how it is upgraded.

import { type ApiServer, type HostCommands, serveApi } from '../api/server.ts';
import type { Manager } from '../manager/api.ts';
import type { Log } from '../ports/log.ts';

export interface Served {
  readonly manager: Manager;
  readonly hostCommands: HostCommands;
  readonly log: Log;
  readonly socketPath: string;
  /** Stops the host and leaves the guests alone. */
  stop(): Promise<void>;
}

const signals = ['SIGTERM', 'SIGINT'] as const;

/** Resolves when the daemon was told to stop and has stopped. */
export async function serveUntilStopped(host: Served): Promise<void> {
  const { log } = host;
  // First of all: a signal during the start must not end the process half-way.
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    for (const name of signals) process.once(name, resolve);
  });
  let api: ApiServer | null = null;
  try {
    api = await serveApi(host);
    log.info('ready', { socket: host.socketPath });
    const name = await stopped;
    log.info('stopping; the guests go on', { signal: name });
  } finally {
    await api?.close();
    await host.stop();
  }
}
