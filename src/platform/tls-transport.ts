// One network between the hosts, over TLS 1.3 with certificates of the cluster's authority on both
// sides. Of a pair, the host with the smaller name dials and the other accepts, so that there is one
// session and no tie to break. Whoever has no certificate of a host gets no further than the
// handshake.
//
// With TLS 1.3 a client has finished its handshake before the server has looked at its certificate.
// So the accepting side speaks first: a session is up for the dialler when it has read that hello,
// and for the other side when it has read the answer. Frames flow only then; a dial that was given up
// carried none, and so the newest session with a host may always replace the older one.

import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect, createSecureContext, createServer, type TLSSocket } from 'node:tls';
import { HoldfastError } from '../model/errors.ts';
import type { HostId } from '../model/ids.ts';
import { limits } from '../model/limits.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';
import type { SessionEnd, Transport, TransportEvents } from '../ports/transport.ts';
import { formatAddress, parseAddress } from './address.ts';
import { FrameReader, FrameWriter } from './frame-stream.ts';
import { readIdentity, type TlsCredentials } from './identity.ts';
import { type JoinHandler, serveJoin } from './join-channel.ts';

export interface TlsTransportOptions {
  readonly self: HostId;
  /** `storage` or `HA`, for the log. */
  readonly network: string;
  /** `ADDRESS:PORT`; port 0 takes a free one. */
  readonly address: string;
  readonly credentials: TlsCredentials;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Answers whoever comes with a join token; without it they are turned away. */
  readonly onJoin?: JoinHandler;
  /** A session that is silent for so long is broken; the rooms above send heartbeats. */
  readonly idleTimeoutMs?: number;
}

export interface TlsTransport extends Transport {
  /** Binds the address and resolves to it, with the port that it got. To be called before `start`,
   * until which nobody is served. Rejects with `conflict` where the address is in use. */
  listen(): Promise<string>;
}

interface Session {
  readonly host: HostId;
  readonly socket: TLSSocket;
  readonly writer: FrameWriter;
  state: 'opening' | 'up' | 'broken';
  heardAt: number;
  timer: Timer | null;
}

/** A host that this one dials. */
interface Route {
  readonly host: HostId;
  readonly address: string;
  failures: number;
  session: Session | null;
  redial: Timer | null;
}

const hello = Buffer.from('holdfast transport 2');
const defaultIdleTimeoutMs = 2000;
const connectTimeoutMs = 1500;
/** The kernel of a host that can be reached answers at once, however busy its daemon is. The system would
 * repeat a lost SYN after a second only: guests wait for as long when the network comes back. */
const reachTimeoutMs = 400;
const minRedialMs = 100;
const maxRedialMs = 400;
/** A peer that answers but reads slowly must not fill this host's memory. */
const maxQueuedBytes = 4 * limits.maxFrameBytes;
const maxConnections = 1024;
/** Of warnings about strangers, which anybody can cause. */
const refusalLogIntervalMs = 1000;

export function createTlsTransport(options: TlsTransportOptions): TlsTransport {
  const { self, network, credentials, clock, random } = options;
  const log = options.log.child('transport');
  const idleTimeoutMs = options.idleTimeoutMs ?? defaultIdleTimeoutMs;
  const { ca, certificate: cert, key } = credentials;
  const tls = {
    ca,
    cert,
    key,
    minVersion: 'TLSv1.3',
    // No session is ever resumed: each one proves its certificate anew.
    secureOptions: constants.SSL_OP_NO_TICKET,
  } as const;
  const clientContext = createSecureContext(tls);
  const server = createServer({
    ...tls,
    requestCert: true,
    rejectUnauthorized: true,
    handshakeTimeout: connectTimeoutMs,
  });
  server.maxConnections = maxConnections;

  let events: TransportEvents | null = null;
  let stopped = false;
  let refusalLoggedAt = Number.NEGATIVE_INFINITY;
  let peers: ReadonlyMap<HostId, string> = new Map();
  const routes = new Map<HostId, Route>();
  /** The sessions that are up. */
  const sessions = new Map<HostId, Session>();
  /** Every connection, also in its handshake. */
  const sockets = new Set<Socket>();

  server.on('connection', (socket: Socket) => {
    if (events === null || stopped) return void socket.destroy();
    track(socket);
  });
  server.on('tlsClientError', (error, socket) => {
    if (!stopped) refuse(socket, error.message);
  });
  server.on('secureConnection', accept);

  function track(socket: Socket): void {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  }

  function refuse(socket: TLSSocket, why: string): void {
    if (clock.now() - refusalLoggedAt >= refusalLogIntervalMs) {
      refusalLoggedAt = clock.now();
      log.warn(`refused a connection from ${socket.remoteAddress ?? 'a stranger'}: ${why}`, {
        network,
      });
    }
    socket.destroy();
  }

  function accept(socket: TLSSocket): void {
    if (events === null || stopped) return void socket.destroy();
    socket.on('error', () => {}); // `close` follows
    const identity = socket.authorized ? readIdentity(socket.getPeerCertificate()) : null;
    if (identity === null) return refuse(socket, 'its certificate is not one of a host');
    if (identity.role === 'join') {
      if (options.onJoin === undefined) return refuse(socket, 'nobody can join here');
      return serveJoin(socket, identity, options.onJoin, log);
    }
    if (identity.name >= self)
      return refuse(socket, `${identity.name} is to be dialled, not to dial`);
    const session = open(identity.name, socket);
    session.writer.write([hello]);
  }

  function dial(route: Route): void {
    const target = parseAddress(route.address);
    if (target === null) return log.error(`${route.address} is not an address`, { network });
    const socket = connect({
      ...target,
      secureContext: clientContext,
      minVersion: 'TLSv1.3',
      servername: route.host,
      checkServerIdentity: (_, certificate) => {
        const identity = readIdentity(certificate);
        if (identity?.role === 'host' && identity.name === route.host) return undefined;
        return new Error(`the certificate at ${route.address} is not that of ${route.host}`);
      },
    });
    track(socket);
    const session = open(route.host, socket);
    const unreached = clock.after(reachTimeoutMs, () => breakUp(session, 'it does not answer'));
    socket.once('connect', () => unreached.cancel());
    socket.once('close', () => unreached.cancel());
    route.session = session;
  }

  function open(host: HostId, socket: TLSSocket): Session {
    const session: Session = {
      host,
      socket,
      writer: new FrameWriter(socket),
      state: 'opening',
      heardAt: clock.now(),
      timer: clock.after(connectTimeoutMs, () => breakUp(session, 'the handshake takes too long')),
    };
    const reader = new FrameReader(limits.maxFrameBytes);
    const onFrame = (frame: Uint8Array) => {
      receive(session, frame);
      return session.state !== 'broken';
    };
    let failure = 'it closed the connection';
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => {
      if (session.state === 'broken') return;
      session.heardAt = clock.now();
      failure = 'it closed the connection';
      if (!reader.push(bytes, onFrame)) breakUp(session, 'a frame is too long');
    });
    socket.on('secureConnect', () => {
      failure = 'it does not accept the certificate of this host'; // unless its hello arrives
    });
    let end: SessionEnd = 'closed';
    socket.on('error', (error: NodeJS.ErrnoException) => {
      failure = error.message;
      if (error.code !== 'ECONNRESET') end = 'silent';
    });
    socket.on('close', () => breakUp(session, failure, end));
    return session;
  }

  function receive(session: Session, frame: Uint8Array): void {
    if (session.state === 'up') return events?.frame(session.host, frame);
    if (!hello.equals(frame)) return breakUp(session, 'the peer speaks another protocol');
    if (routes.get(session.host)?.session === session) session.writer.write([hello]);
    const older = sessions.get(session.host);
    if (older !== undefined) breakUp(older, 'a newer session replaces it');
    if (stopped || (session.state as Session['state']) === 'broken') return;
    session.state = 'up';
    sessions.set(session.host, session);
    const route = routes.get(session.host);
    if (route !== undefined) route.failures = 0;
    session.timer?.cancel();
    session.timer = clock.after(idleTimeoutMs, () => checkIdle(session));
    log.info(`session with ${session.host} is up`, { network, host: session.host });
    events?.up(session.host);
  }

  function checkIdle(session: Session): void {
    const idleMs = clock.now() - session.heardAt;
    if (idleMs < idleTimeoutMs) {
      session.timer = clock.after(idleTimeoutMs - idleMs, () => checkIdle(session));
      return;
    }
    // If it was this host that stood still, what the peer sent waits to be read in this very turn.
    clock.defer(() => {
      if (session.state !== 'up') return;
      if (clock.now() - session.heardAt < idleTimeoutMs) return checkIdle(session);
      breakUp(session, `nothing was heard for ${Math.round(idleMs)} ms`);
    });
  }

  /** Ends a session, once, and seeks the next one where it is this host's turn to dial. */
  function breakUp(session: Session, reason: string, end: SessionEnd = 'silent'): void {
    if (session.state === 'broken') return;
    const wasUp = session.state === 'up';
    session.state = 'broken';
    session.timer?.cancel();
    session.socket.destroy();
    const { host } = session;
    const route = routes.get(host);
    if (route?.session === session) {
      route.session = null;
      if (!stopped) redial(route, wasUp, reason);
    }
    if (sessions.get(host) !== session) return;
    sessions.delete(host);
    if (stopped) return;
    log.warn(`session with ${host} is down: ${reason}`, { network, host });
    events?.down(host, end);
  }

  function redial(route: Route, wasUp: boolean, reason: string): void {
    const { host } = route;
    if (!wasUp) {
      const message = `${host} at ${route.address} can not be reached: ${reason}`;
      if (route.failures === 0) log.warn(message, { network, host });
      else log.debug(message, { network, host });
    }
    const backOffMs = Math.min(maxRedialMs, minRedialMs * 2 ** Math.min(route.failures, 10));
    route.failures += 1;
    route.redial = clock.after(backOffMs * (0.5 + random.next() / 2), () => dial(route));
  }

  function forget(host: HostId, reason: string): void {
    const route = routes.get(host);
    routes.delete(host);
    route?.redial?.cancel();
    if (route?.session) breakUp(route.session, reason);
    const session = sessions.get(host);
    if (session !== undefined) breakUp(session, reason);
  }

  /** Makes the dialled routes those that the peers ask for. */
  function reconcile(): void {
    for (const [host, address] of peers) {
      if (self >= host || routes.has(host)) continue;
      const route: Route = { host, address, failures: 0, session: null, redial: null };
      routes.set(host, route);
      dial(route);
    }
  }

  return {
    listen() {
      const target = parseAddress(options.address);
      return new Promise((resolve, reject) => {
        const failed = (cause: NodeJS.ErrnoException) => {
          const code = cause.code === 'EADDRINUSE' ? 'conflict' : 'bad-request';
          const message = `The ${network} address ${options.address} can not be served`;
          reject(new HoldfastError(code, `${message}: ${cause.message}`, { cause }));
        };
        if (target === null) return failed(new Error('it is not ADDRESS:PORT'));
        server.once('error', failed);
        server.listen({ host: target.host, port: target.port }, () => {
          server.off('error', failed);
          server.on('error', (error) => log.error(`listener: ${error.message}`, { network }));
          const bound = server.address();
          const port = bound !== null && typeof bound === 'object' ? bound.port : target.port;
          resolve(formatAddress({ host: target.host, port }));
        });
      });
    },

    start(receiver) {
      events = receiver;
      reconcile();
    },

    setPeers(next) {
      const previous = peers;
      peers = new Map(next);
      for (const [host, address] of previous) {
        if (peers.get(host) !== address) forget(host, 'the cluster has other members now');
      }
      if (events !== null && !stopped) reconcile();
    },

    send(to, chunks) {
      const session = sessions.get(to);
      if (session === undefined || session.socket.destroyed) return false;
      if (session.socket.writableLength + session.writer.pendingBytes > maxQueuedBytes) {
        // Not at once: who sends does not expect to be called back from within.
        clock.defer(() => breakUp(session, 'the peer reads too slowly'));
        return false;
      }
      session.writer.write(chunks);
      return true;
    },

    async stop() {
      stopped = true;
      for (const host of [...routes.keys(), ...sessions.keys()]) forget(host, 'this host stops');
      for (const socket of sockets) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}
