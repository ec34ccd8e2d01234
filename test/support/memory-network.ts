// One network between hosts, in memory. By default it keeps the contract of `Transport`: a session
// delivers in order or breaks. `faults` make it worse than the contract (lost, doubled and overtaking
// frames), for protocols that must stand even that. Links are cut and healed per direction.

import type { HostId } from '../../src/model/ids.ts';
import type { Clock } from '../../src/ports/clock.ts';
import type { SessionEnd, Transport, TransportEvents } from '../../src/ports/transport.ts';
import type { SeededRandom } from './seeded-random.ts';

export interface NetworkFaults {
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  /** Probabilities per frame. */
  readonly loss: number;
  readonly duplicate: number;
  /** Whether frames of one session may overtake each other. */
  readonly reorder: boolean;
  /** Time until both ends notice that a link was cut; until then frames vanish silently. */
  readonly detectMs: number;
}

interface Endpoint {
  readonly events: TransportEvents;
  peers: ReadonlySet<HostId>;
}

interface Session {
  /** Earliest arrival of the next frame, per sender: keeps the order. */
  readonly arrivals: Map<HostId, number>;
  /** Ends that were told that the session is up. */
  readonly told: Set<HostId>;
  broken: boolean;
}

export class MemoryNetwork {
  faults: NetworkFaults = {
    minDelayMs: 0.2,
    maxDelayMs: 0.5,
    loss: 0,
    duplicate: 0,
    reorder: false,
    detectMs: 0,
  };
  /** Frames that reached their receiver. */
  delivered = 0;
  readonly #clock: Clock;
  readonly #random: SeededRandom;
  readonly #endpoints = new Map<HostId, Endpoint>();
  readonly #sessions = new Map<string, Session>();
  readonly #cut = new Set<string>();

  constructor(clock: Clock, random: SeededRandom, faults: Partial<NetworkFaults> = {}) {
    this.#clock = clock;
    this.#random = random;
    this.faults = { ...this.faults, ...faults };
  }

  /** The transport of one run of a host; a host that restarts attaches again. */
  attach(host: HostId): Transport {
    let endpoint: Endpoint | null = null;
    return {
      start: (events) => {
        endpoint = { events, peers: new Set() };
        this.#endpoints.set(host, endpoint);
      },
      setPeers: (peers) => {
        if (endpoint !== null) endpoint.peers = new Set(peers.keys());
        this.#connect();
      },
      send: (to, chunks) => {
        if (endpoint === null || this.#endpoints.get(host) !== endpoint) return false;
        return this.#send(host, to, concatenate(chunks));
      },
      stop: async () => {
        if (endpoint !== null && this.#endpoints.get(host) === endpoint) this.detach(host);
      },
    };
  }

  /** The host is gone at once (crash): it hears nothing more, its peers see the session end. */
  detach(host: HostId): void {
    this.#endpoints.delete(host);
    for (const [key, session] of [...this.#sessions]) {
      const [a, b] = ends(key);
      if (a === host || b === host) this.#breakSession(key, session, 'closed');
    }
  }

  /** Loses all frames from `from` to `to`, and, unless `oneWay`, those of the other direction. */
  cut(from: HostId, to: HostId, oneWay = false): void {
    this.#cut.add(`${from}>${to}`);
    if (!oneWay) this.#cut.add(`${to}>${from}`);
    this.#clock.after(this.faults.detectMs, () => {
      const key = sessionKey(from, to);
      const session = this.#sessions.get(key);
      if (session !== undefined && !this.#isOpen(from, to)) this.#breakSession(key, session);
    });
  }

  heal(a: HostId, b: HostId): void {
    this.#cut.delete(`${a}>${b}`);
    this.#cut.delete(`${b}>${a}`);
    this.#connect();
  }

  /** Cuts all links between hosts of different groups and heals those within a group. */
  partition(...groups: readonly (readonly HostId[])[]): void {
    const groupOf = new Map(groups.flatMap((group, index) => group.map((host) => [host, index])));
    const hosts = [...groupOf.keys()];
    for (const a of hosts) {
      for (const b of hosts) {
        if (a >= b) continue;
        if (groupOf.get(a) === groupOf.get(b)) this.heal(a, b);
        else this.cut(a, b);
      }
    }
  }

  get isSplit(): boolean {
    return this.#cut.size > 0;
  }

  healAll(): void {
    this.#cut.clear();
    this.#connect();
  }

  #isOpen(a: HostId, b: HostId): boolean {
    return !this.#cut.has(`${a}>${b}`) && !this.#cut.has(`${b}>${a}`);
  }

  #connect(): void {
    for (const [a, endpointA] of this.#endpoints) {
      for (const [b, endpointB] of this.#endpoints) {
        const key = sessionKey(a, b);
        if (a >= b || this.#sessions.has(key) || !this.#isOpen(a, b)) continue;
        if (!endpointA.peers.has(b) || !endpointB.peers.has(a)) continue;
        const session = { arrivals: new Map(), told: new Set<HostId>(), broken: false };
        this.#sessions.set(key, session);
        this.#notify(session, a, endpointA, () => endpointA.events.up(b));
        this.#notify(session, b, endpointB, () => endpointB.events.up(a));
      }
    }
  }

  #notify(session: Session, host: HostId, endpoint: Endpoint, event: () => void): void {
    this.#clock.defer(() => {
      if (session.broken || this.#endpoints.get(host) !== endpoint) return;
      session.told.add(host);
      event();
    });
  }

  #breakSession(key: string, session: Session, end: SessionEnd = 'silent'): void {
    session.broken = true;
    this.#sessions.delete(key);
    const [a, b] = ends(key);
    for (const [host, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const endpoint = this.#endpoints.get(host);
      if (endpoint === undefined || !session.told.has(host)) continue;
      this.#clock.defer(() => {
        if (this.#endpoints.get(host) === endpoint) endpoint.events.down(other, end);
      });
    }
    this.#clock.defer(() => this.#connect());
  }

  #send(from: HostId, to: HostId, frame: Uint8Array): boolean {
    const session = this.#sessions.get(sessionKey(from, to));
    if (session === undefined) return false;
    const { loss, duplicate } = this.faults;
    const copies = this.#random.chance(loss) ? 0 : this.#random.chance(duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) this.#deliver(session, from, to, frame.slice());
    return true;
  }

  #deliver(session: Session, from: HostId, to: HostId, frame: Uint8Array): void {
    const { minDelayMs, maxDelayMs, reorder } = this.faults;
    let atMs = this.#clock.now() + minDelayMs + this.#random.next() * (maxDelayMs - minDelayMs);
    if (!reorder) {
      atMs = Math.max(atMs, (session.arrivals.get(from) ?? 0) + 0.001);
      session.arrivals.set(from, atMs);
    }
    this.#clock.after(atMs - this.#clock.now(), () => {
      if (session.broken || this.#cut.has(`${from}>${to}`)) return;
      this.delivered += 1;
      this.#endpoints.get(to)?.events.frame(from, frame);
    });
  }
}

function sessionKey(a: HostId, b: HostId): string {
  return a < b ? `${a}|${b}` : `${b}|${a}`;
}

function ends(key: string): [HostId, HostId] {
  return key.split('|') as [HostId, HostId];
}

function concatenate(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.length;
  }
  return whole;
}
