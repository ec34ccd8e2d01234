// Messages between this host and the others on one network: one-way messages, and requests with a
// reply or a time-out. There is one instance per network. A host may also address itself: such a
// message takes the same way without leaving the host, so that no room needs a special case.
//
// Delivery is at most once. A request whose session breaks fails at once with `unreachable`; whether
// the other host carried it out is then unknown. An answer goes over the session that brought the request, or
// nowhere: behind a later one may be a new daemon, whose requests bear the same numbers.

import { asHoldfastError, type ErrorCode, errorCatalogue, HoldfastError } from '../model/errors.ts';
import type { HostId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { SessionEnd, Transport } from '../ports/transport.ts';
import { Deadlines, type Due } from './deadlines.ts';
import { decodeFrame, encodeForMany, encodeFrame, type Frame, noPayload } from './frame.ts';
import { Pending } from './pending.ts';

export type Done = (error: HoldfastError | null, body: JsonValue, payload: Uint8Array) => void;

/** Answers a request: exactly once, now or later. A handler of one-way messages ignores it. */
export interface Reply {
  ok(body: JsonValue, payload?: Uint8Array): void;
  fail(error: HoldfastError): void;
}

/** `body` has the shape that the sender of this type gives it; a throw is answered as a failure. */
export type Handler = (from: HostId, body: JsonValue, payload: Uint8Array, reply: Reply) => void;

export interface Peer {
  readonly self: HostId;
  /** Whether a session with the host stands; always true for this host itself. */
  isConnected(host: HostId): boolean;
  /** All hosts with a session, this one included. */
  connected(): HostId[];
  send(to: HostId, type: string, body: JsonValue, payload?: Uint8Array): void;
  /** `send` of the same to several hosts: it is put into bytes once. */
  sendAll(to: Iterable<HostId>, type: string, body: JsonValue): void;
  request(
    to: HostId,
    type: string,
    body: JsonValue,
    payload: Uint8Array,
    timeoutMs: number,
    done: Done,
  ): void;
  /** `request` for code that awaits. */
  ask(to: HostId, type: string, body: JsonValue, timeoutMs: number): Promise<JsonValue>;
  /** Sets the only handler of a message type. */
  on(type: string, handler: Handler): void;
  /** `end`: how, where it is down. */
  onSession(listener: (host: HostId, up: boolean, end: SessionEnd | null) => void): void;
}

/** For fewer than so many it costs more to share what is decoded than to decode it for each. */
const manyHosts = 12;

/** To a one-way message. */
const noReply: Reply = { ok: () => {}, fail: () => {} };

interface Asked extends Due {
  readonly requestId: number;
  readonly to: HostId;
  readonly type: string;
  readonly timeoutMs: number;
  readonly done: Done;
}

export function createPeer(options: {
  readonly self: HostId;
  readonly network: string;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly log: Log;
}): Peer & { start(): void; stop(): Promise<void> } {
  const { self, transport, clock, log } = options;
  const handlers = new Map<string, Handler>();
  const listeners: ((host: HostId, up: boolean, end: SessionEnd | null) => void)[] = [];
  const sessions = new Set<HostId>();
  /** How many sessions there have been with each host. */
  const sessionCounts = new Map<HostId, number>();
  const sessionOf = (host: HostId): number => sessionCounts.get(host) ?? 0;
  const pending = new Pending<Asked>();
  const deadlines = new Deadlines<Asked>(clock, ({ requestId, to, type, timeoutMs }) => {
    const text = `${to} did not answer "${type}" within ${timeoutMs} ms`;
    settle(requestId, new HoldfastError('timeout', text), null, noPayload);
  });
  let stopped = false;

  function transmit(to: HostId, frame: Frame): boolean {
    if (stopped) return false;
    if (to === self) {
      clock.defer(() => {
        if (!stopped) receive(self, frame);
      });
      return true;
    }
    return transport.send(to, encodeFrame(frame));
  }

  function settle(
    requestId: number,
    error: HoldfastError | null,
    body: JsonValue,
    payload: Uint8Array,
  ) {
    const request = pending.take(requestId);
    if (request === null) return; // timed out before
    deadlines.remove(request, request.timeoutMs);
    request.done(error, body, payload);
  }

  function receive(from: HostId, frame: Frame): void {
    if (frame.kind === 'reply' || frame.kind === 'failure') {
      if (pending.get(frame.requestId)?.to !== from) return;
      const error = frame.kind === 'failure' ? decodeError(frame.body) : null;
      settle(frame.requestId, error, frame.body, frame.payload);
      return;
    }
    const reply = frame.kind === 'oneWay' ? noReply : replyTo(from, frame);
    const handler = handlers.get(frame.type);
    if (handler === undefined) {
      reply.fail(new HoldfastError('bad-request', `${self} knows no message "${frame.type}"`));
      return;
    }
    try {
      handler(from, frame.body, frame.payload, reply);
    } catch (error) {
      log.error(`${frame.type} from ${from} failed: ${String(error)}`, {
        network: options.network,
      });
      reply.fail(asHoldfastError(error, 'bad-request'));
    }
  }

  function replyTo(to: HostId, request: Frame): Reply {
    const session = sessionOf(to);
    let answered = false;
    const answer = (kind: 'reply' | 'failure', body: JsonValue, payload: Uint8Array) => {
      if (answered) return;
      answered = true;
      if (sessionOf(to) !== session) return; // who asked has been told that nobody answers
      transmit(to, { kind, requestId: request.requestId, type: request.type, body, payload });
    };
    return {
      ok: (body, payload = noPayload) => answer('reply', body, payload),
      fail: (error) => answer('failure', { code: error.code, message: error.message }, noPayload),
    };
  }

  const peer: Peer = {
    self,
    isConnected: (host) => host === self || sessions.has(host),
    connected: () => [self, ...sessions],
    send(to, type, body, payload = noPayload) {
      transmit(to, { kind: 'oneWay', requestId: 0, type, body, payload });
    },
    sendAll(to, type, body) {
      const frame: Frame = { kind: 'oneWay', requestId: 0, type, body, payload: noPayload };
      let chunks: Uint8Array[] | null = null;
      const hosts = [...to];
      const encode = hosts.length > manyHosts ? encodeForMany : encodeFrame;
      for (const host of hosts) {
        if (host === self || stopped) transmit(host, frame);
        else transport.send(host, (chunks ??= encode(frame)));
      }
    },
    request(to, type, body, payload, timeoutMs, done) {
      const requestId = pending.nextId();
      const request: Asked = {
        requestId,
        to,
        type,
        timeoutMs,
        done,
        dueMs: 0,
        previous: null,
        next: null,
      };
      if (!stopped) deadlines.add(request, timeoutMs);
      pending.add(request);
      if (!transmit(to, { kind: 'request', requestId, type, body, payload })) {
        clock.defer(() => settle(requestId, unreachable(to, options.network), null, noPayload));
      }
    },
    ask: (to, type, body, timeoutMs) =>
      new Promise((resolve, reject) => {
        peer.request(to, type, body, noPayload, timeoutMs, (error, answer) =>
          error === null ? resolve(answer) : reject(error),
        );
      }),
    on(type, handler) {
      if (handlers.has(type)) throw new Error(`message "${type}" has a handler already`);
      handlers.set(type, handler);
    },
    onSession: (listener) => void listeners.push(listener),
  };

  return Object.assign(peer, {
    start() {
      transport.start({
        up(host) {
          sessions.add(host);
          sessionCounts.set(host, sessionOf(host) + 1);
          for (const listener of listeners) listener(host, true, null);
        },
        down(host, end) {
          sessions.delete(host);
          for (const request of pending.all()) {
            if (request.to === host) {
              settle(request.requestId, unreachable(host, options.network), null, noPayload);
            }
          }
          for (const listener of listeners) listener(host, false, end);
        },
        frame(from, bytes) {
          let frame: Frame;
          try {
            frame = decodeFrame(bytes);
          } catch (error) {
            log.warn(`dropped a frame from ${from}: ${String(error)}`, {
              network: options.network,
            });
            return;
          }
          const asked = frame.type === '' ? pending.get(frame.requestId)?.type : frame.type;
          try {
            receive(from, frame);
          } catch (error) {
            // What one answer breaks must not take the daemon, and with it every VM, along.
            log.error(`an answer of ${from} to "${asked}" failed: ${String(error)}`, {
              network: options.network,
            });
          }
        },
      });
    },
    async stop() {
      stopped = true;
      deadlines.stop();
      pending.clear();
      await transport.stop();
    },
  });
}

function unreachable(host: HostId, network: string): HoldfastError {
  return new HoldfastError('unreachable', `${host} can not be reached on the ${network} network`);
}

function decodeError(body: JsonValue): HoldfastError {
  const { code, message } = body as { code: string; message: string };
  const known: ErrorCode = code in errorCatalogue ? (code as ErrorCode) : 'bad-request';
  return new HoldfastError(known, message);
}
