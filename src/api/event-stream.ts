// Events as a stream of server-sent events (WHATWG HTML, section 9.2): first the last events that
// this host saw, then each new one. A reader that does not read is cut off rather than buffered
// without end; it comes back and gets the last events again. Comments keep the stream visibly alive.

import type { ServerResponse } from 'node:http';
import type { Manager } from '../manager/api.ts';
import type { EventReply } from './schemas.ts';

const heartbeatMs = 5000;
const maxUnsentBytes = 4 * 1024 * 1024;

export interface EventStreams {
  serve(response: ServerResponse): void;
  /** Ends all streams properly, so that readers see an end and not a reset. */
  close(): void;
}

export function createEventStreams(
  manager: Pick<Manager, 'events' | 'onEvent'>,
  options: { readonly heartbeatMs?: number } = {},
): EventStreams {
  const open = new Set<() => void>();
  let closed = false;

  function serve(response: ServerResponse): void {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      connection: 'close',
    });
    if (closed) {
      response.end();
      return;
    }
    const send = (event: EventReply): void => {
      if (response.writableLength > maxUnsentBytes) {
        finish();
        response.destroy();
        return;
      }
      response.write(`data: ${JSON.stringify(event)}\n\n`);
    };
    // The listener is there before the past is read, and both happen in one turn of the event loop:
    // no event is missed and none comes twice.
    const unsubscribe = manager.onEvent(send);
    const beat = setInterval(() => response.write(':\n\n'), options.heartbeatMs ?? heartbeatMs);
    const finish = (): void => {
      unsubscribe();
      clearInterval(beat);
      open.delete(end);
    };
    const end = (): void => {
      finish();
      response.end();
    };
    open.add(end);
    response.on('close', finish);
    response.on('error', finish);
    for (const event of manager.events()) send(event);
    // Tells the reader where the past ends, and sends the headers even if there was none.
    response.write(': live\n\n');
  }

  return {
    serve,
    close() {
      closed = true;
      for (const end of [...open]) end();
    },
  };
}
