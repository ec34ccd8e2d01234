// Follows the events of one host that answers. When the stream breaks, the next host's is taken; each
// stream begins with the past, so what was already handed out is left away. Events carry no number,
// because each host sees its own: two are the same if they say the same.

import { type IncomingMessage, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { EventReply } from './schemas.ts';

const retryMs = 200;
/** A stream shows a sign of life every 5 s; a host that was frozen does not. */
const silenceMs = 15_000;
const rememberedEvents = 10_000;

export interface FollowOptions {
  readonly signal?: AbortSignal;
  /** Called whenever the stream was lost; it is sought again until `signal` says stop. */
  readonly onLost?: (reason: string) => void;
}

export async function* readEvents(
  sockets: readonly string[],
  { signal, onLost }: FollowOptions,
): AsyncGenerator<EventReply, void, void> {
  const seen = new Set<string>();
  while (!signal?.aborted) {
    for (const socket of sockets) {
      let open = false;
      try {
        for await (const line of streamLines(socket, signal)) {
          open = true;
          if (!line.startsWith('data: ') || seen.has(line)) continue;
          seen.add(line);
          if (seen.size > rememberedEvents) seen.delete(seen.values().next().value as string);
          yield JSON.parse(line.slice('data: '.length)) as EventReply;
        }
        if (!signal?.aborted) onLost?.(`${socket}: the host ended the stream`);
      } catch (error) {
        if (signal?.aborted) return;
        if (!open) continue; // it was not lost, it never was there
        onLost?.(`${socket}: ${error instanceof Error ? error.message : String(error)}`);
      }
      if (signal?.aborted) return;
    }
    await delay(retryMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  }
}

async function* streamLines(
  socketPath: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<string, void, void> {
  const response = await openStream(socketPath, signal);
  response.setEncoding('utf8');
  const silence = setTimeout(() => response.destroy(new Error('the host fell silent')), silenceMs);
  try {
    let rest = '';
    for await (const part of response as AsyncIterable<string>) {
      silence.refresh();
      const lines = (rest + part).split('\n');
      rest = lines.pop() as string;
      yield* lines;
    }
  } finally {
    clearTimeout(silence);
    response.destroy();
  }
}

function openStream(socketPath: string, signal: AbortSignal | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const call = request({
      socketPath,
      path: '/v1/events',
      agent: false,
      ...(signal === undefined ? {} : { signal }),
    });
    const timer = setTimeout(() => call.destroy(new Error('no answer')), silenceMs);
    call.once('response', (response) => {
      clearTimeout(timer);
      if (response.statusCode === 200) return resolve(response);
      response.destroy();
      reject(new Error(`the host answered ${response.statusCode}`));
    });
    call.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    call.end();
  });
}
