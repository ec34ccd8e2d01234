// The reader's side of a disk that is being served: what it holds is the connection, and letting go of
// that ends the service.

import { type IncomingMessage, request } from 'node:http';
import { createInterface } from 'node:readline';
import { errorCatalogue } from '../model/errors.ts';
import type { ServeEndReply, ServeReply, ServeRequestBody } from './disk-schemas.ts';
import type { ErrorReply } from './schemas.ts';

/** A stream shows a sign of life every 5 s; a host that was frozen does not. */
const silenceMs = 15_000;
/** Taking the lock may have to wait for the lease of a host that failed. */
const beginMs = 60_000;

export interface ServeOptions {
  readonly signal: AbortSignal;
  readonly onServing: (reply: ServeReply) => void;
}

/** Resolves with null when `signal` ended it, else with why it ended. */
export async function followService(
  socketPath: string,
  path: string,
  body: ServeRequestBody,
  { signal, onServing }: ServeOptions,
): Promise<ErrorReply | null> {
  const broken = (why: string): ErrorReply => ({
    code: 'unreachable',
    message: `The host at ${socketPath} is gone (${why}): the disk is served no longer.`,
    todo: errorCatalogue.unreachable,
  });
  try {
    const response = await post(socketPath, path, body, signal);
    const silence = setTimeout(() => response.destroy(new Error('it fell silent')), silenceMs);
    response.on('data', () => silence.refresh());
    const isServing = response.statusCode === 200;
    try {
      let begun = false;
      for await (const line of createInterface({ input: response })) {
        if (line === '') continue;
        const value = JSON.parse(line) as ServeReply | ServeEndReply | ErrorReply;
        if (!isServing) return value as ErrorReply;
        if ('ended' in value) return value.ended;
        if (!begun) onServing(value as ServeReply);
        begun = true;
      }
    } finally {
      clearTimeout(silence);
      response.destroy();
    }
    return signal.aborted ? null : broken('it hung up');
  } catch (error) {
    if (signal.aborted) return null;
    return broken(error instanceof Error ? error.message : String(error));
  }
}

function post(
  socketPath: string,
  path: string,
  body: ServeRequestBody,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body);
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
    };
    const call = request({ socketPath, path, method: 'POST', agent: false, headers, signal });
    const timer = setTimeout(() => call.destroy(new Error('no answer')), beginMs);
    call.once('response', (response) => {
      clearTimeout(timer);
      resolve(response);
    });
    call.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    call.end(text);
  });
}
