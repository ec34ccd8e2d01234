// One network between the hosts, with TCP's manners on top, because that is what the port promises: a
// session delivers its frames in order, or breaks. A lost packet is therefore a frame that comes
// late, and all behind it; a cut link is silence, until both ends give the session up, and
// what was sent on it is lost then. Links are cut and healed per direction.

import type { HostId } from '../../model/ids.ts';
import type { SessionEnd, Transport, TransportEvents } from '../../ports/transport.ts';
import type { SeededRandom } from './random.ts';
import { bytesForAMoment } from './slab.ts';
import type { Receiver, VirtualTime } from './time.ts';

export interface NetworkManners {
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  /** Probability per frame that it must be sent again. */
  loss: number;
  /** Silence after which an end gives a session up. */
  readonly giveUpMs: number;
}

const manners: NetworkManners = { minDelayMs: 0.2, maxDelayMs: 0.5, loss: 0, giveUpMs: 2000 };

/** TCP's first retransmission time-out; each further one is twice as long. */
const retransmitMs = 200;

interface Endpoint {
  readonly host: HostId;
  readonly receiver: Receiver;
  events: TransportEvents | null;
  peers: ReadonlySet<HostId>;
  readonly sessions: Map<HostId, Session>;
}

/** One direction of a session. */
interface Direction {
  /** Arrival of the last frame that is under way: keeps the order. */
  lastArrivalMs: number;
  /** Frames that ran into a cut link and are sent again when it is healed. */
  stuck: Uint8Array[];
}

class Session {
  readonly a: Endpoint;
  readonly b: Endpoint;
  readonly toA: Direction = { lastArrivalMs: 0, stuck: [] };
  readonly toB: Direction = { lastArrivalMs: 0, stuck: [] };
  isBroken = false;
  toldA = false;
  toldB = false;

  constructor(a: Endpoint, b: Endpoint) {
    this.a = a;
    this.b = b;
  }

  isBetween(a: Endpoint, b: Endpoint): boolean {
    return (this.a === a && this.b === b) || (this.a === b && this.b === a);
  }

  to(host: HostId): Direction {
    return host === this.a.host ? this.toA : this.toB;
  }
}

export class VirtualNetwork {
  readonly manners: NetworkManners;
  /** Frames that reached their receiver. */
  delivered = 0;
  readonly #time: VirtualTime;
  readonly #random: SeededRandom;
  readonly #endpoints = new Map<HostId, Endpoint>();
  /** From -> to, for links that carry nothing. */
  readonly #cut = new Map<HostId, Set<HostId>>();

  constructor(time: VirtualTime, random: SeededRandom, changed: Partial<NetworkManners> = {}) {
    this.#time = time;
    this.#random = random;
    this.manners = { ...manners, ...changed };
  }

  /** The transport of one run of a host's daemon; `receiver` is that run. */
  attach(host: HostId, receiver: Receiver): Transport {
    const endpoint: Endpoint = {
      host,
      receiver,
      events: null,
      peers: new Set(),
      sessions: new Map(),
    };
    return {
      start: (events) => {
        endpoint.events = events;
        this.#endpoints.set(host, endpoint);
      },
      setPeers: (peers) => {
        endpoint.peers = new Set(peers.keys());
        this.#connectAll(endpoint);
      },
      send: (to, chunks) => {
        const session = endpoint.sessions.get(to);
        if (session === undefined || !isTold(session, endpoint)) return false;
        let isSent = true;
        // Who is frozen in the middle of a line sends what follows when it goes on, on the same session.
        receiver.receive(() => {
          isSent = !session.isBroken && this.#send(session, endpoint, to, chunks);
        });
        return isSent;
      },
      stop: async () => {
        if (this.#endpoints.get(host) === endpoint) this.detach(host);
      },
    };
  }

  /** The daemon is gone: its kernel ends the sessions, or (loss of power) they fall silent. */
  detach(host: HostId, isSilent = false): void {
    const endpoint = this.#endpoints.get(host);
    if (endpoint === undefined) return;
    this.#endpoints.delete(host);
    for (const session of [...endpoint.sessions.values()]) {
      if (isSilent) this.#time.after(this.#giveUpMs(), () => this.#breakSession(session));
      else this.#breakSession(session, 'closed');
    }
  }

  cut(from: HostId, to: HostId): void {
    const targets = this.#cut.get(from) ?? new Set();
    this.#cut.set(from, targets.add(to));
    const session = this.#endpoints.get(from)?.sessions.get(to);
    if (session === undefined) return;
    this.#time.after(this.#giveUpMs(), () => {
      if (!this.#isOpen(from, to)) this.#breakSession(session);
    });
  }

  heal(from: HostId, to: HostId): void {
    if (this.#cut.get(from)?.delete(to) !== true) return;
    const session = this.#endpoints.get(from)?.sessions.get(to);
    if (session !== undefined) this.#sendAgain(session, from, to);
    else this.#connectSoon(from, to);
  }

  healAll(): void {
    for (const [from, targets] of this.#cut) for (const to of [...targets]) this.heal(from, to);
  }

  isCut(from: HostId, to: HostId): boolean {
    return this.#cut.size > 0 && this.#cut.get(from)?.has(to) === true;
  }

  get isWhole(): boolean {
    return [...this.#cut.values()].every((targets) => targets.size === 0);
  }

  #isOpen(a: HostId, b: HostId): boolean {
    return !this.isCut(a, b) && !this.isCut(b, a);
  }

  #giveUpMs(): number {
    return this.manners.giveUpMs * (0.75 + this.#random.next() / 2);
  }

  #connectAll(endpoint: Endpoint): void {
    if (this.#endpoints.get(endpoint.host) !== endpoint) return;
    for (const other of endpoint.peers) this.#connect(endpoint.host, other);
  }

  /** Seeking a session again takes a moment, and no longer than a pause between two attempts. */
  #connectSoon(a: HostId, b: HostId): void {
    this.#time.after(this.#random.next() * retransmitMs, () => this.#connect(a, b));
  }

  #connect(hostA: HostId, hostB: HostId): void {
    const a = this.#endpoints.get(hostA);
    const b = this.#endpoints.get(hostB);
    if (a === undefined || b === undefined || a === b) return;
    if (!a.peers.has(hostB) || !b.peers.has(hostA) || !this.#isOpen(hostA, hostB)) return;
    // What one of them still has with an earlier run of the other is over when the new run calls.
    for (const old of [a.sessions.get(hostB), b.sessions.get(hostA)]) {
      if (old === undefined) continue;
      if (old.isBetween(a, b)) return;
      this.#breakSession(old);
    }
    const session = new Session(a, b);
    a.sessions.set(hostB, session);
    b.sessions.set(hostA, session);
    this.#tellUp(a, session, () => {
      session.toldA = true;
      a.events?.up(hostB);
    });
    this.#tellUp(b, session, () => {
      session.toldB = true;
      b.events?.up(hostA);
    });
  }

  #tellUp(endpoint: Endpoint, session: Session, tell: () => void): void {
    this.#time.after(
      0,
      () => {
        if (!session.isBroken) tell();
      },
      endpoint.receiver,
    );
  }

  #breakSession(session: Session, end: SessionEnd = 'silent'): void {
    if (session.isBroken) return;
    session.isBroken = true;
    const { a, b } = session;
    if (a.sessions.get(b.host) === session) a.sessions.delete(b.host);
    if (b.sessions.get(a.host) === session) b.sessions.delete(a.host);
    this.#time.after(0, () => session.toldA && a.events?.down(b.host, end), a.receiver);
    this.#time.after(0, () => session.toldB && b.events?.down(a.host, end), b.receiver);
    this.#connectSoon(a.host, b.host);
  }

  #send(session: Session, from: Endpoint, to: HostId, chunks: readonly Uint8Array[]): boolean {
    const frame = chunks.length === 1 ? (chunks[0] as Uint8Array) : concatenate(chunks);
    const delayMs = this.#delayMs();
    if (delayMs > this.manners.giveUpMs) this.#breakSession(session);
    else this.#deliver(session, from.host, to, frame, delayMs);
    return true;
  }

  #delayMs(): number {
    const { minDelayMs, maxDelayMs, loss } = this.manners;
    let delayMs = minDelayMs + this.#random.next() * (maxDelayMs - minDelayMs);
    let waitMs = retransmitMs;
    while (loss > 0 && this.#random.next() < loss) {
      delayMs += waitMs;
      waitMs *= 2;
    }
    return delayMs;
  }

  #deliver(session: Session, from: HostId, to: HostId, frame: Uint8Array, delayMs: number): void {
    const direction = session.to(to);
    const atMs = Math.max(this.#time.now() + delayMs, direction.lastArrivalMs);
    direction.lastArrivalMs = atMs;
    const receiver = to === session.a.host ? session.a : session.b;
    let hasArrived = false;
    // One function for both its arrival and its being read: there are more frames than anything else.
    const proceed = (): void => {
      if (hasArrived) {
        // A frame that waited while its receiver was frozen is there to be read even if the session has
        // broken meanwhile; but a new session ends the old one for good.
        if (session.isBroken && receiver.sessions.has(from)) return;
        this.delivered += 1;
        receiver.events?.frame(from, frame);
        return;
      }
      if (session.isBroken) return;
      if (this.isCut(from, to) || direction.stuck.length > 0) {
        direction.stuck.push(frame);
        return;
      }
      hasArrived = true;
      receiver.receiver.receive(proceed);
    };
    this.#time.at(atMs, proceed);
  }

  #sendAgain(session: Session, from: HostId, to: HostId): void {
    this.#time.after(this.#random.next() * retransmitMs, () => {
      if (session.isBroken || this.isCut(from, to)) return;
      const direction = session.to(to);
      const frames = direction.stuck;
      direction.stuck = [];
      for (const frame of frames) this.#deliver(session, from, to, frame, 0);
    });
  }
}

/** The process knows of the session. */
function isTold(session: Session, endpoint: Endpoint): boolean {
  return endpoint === session.a ? session.toldA : session.toldB;
}

function concatenate(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = bytesForAMoment(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}
