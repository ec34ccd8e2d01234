// The beat of the storage network: one message per interval to every host, this one included. It
// carries the leases, tells who is reachable, and what each host's store and directory look like.

import type { HostId, Incarnation } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Timings } from '../../model/limits.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import { offerTheSame, type StoreReport } from '../devices/report.ts';
import type { LeaseHolder } from './holder.ts';
import type { Heartbeat, HeartbeatAckBody } from './messages.ts';
import type { LeaseVoter } from './voter.ts';

/** What is known of another host from its heartbeats. */
export interface HeardHost {
  lastHeardAtMs: number;
  /** Since when it has been heard without a break. */
  sinceMs: number;
  store: StoreReport;
  digest: string;
}

export interface Heartbeats {
  start(): void;
  stop(): void;
  /** To these hosts, in addition to the regular beat. */
  beatNow(hosts: readonly HostId[]): void;
  /** Heard from of late, and connected. */
  isReachable(host: HostId): boolean;
  heardSince(host: HostId): number | null;
  heard(host: HostId): HeardHost | null;
  /** A host became reachable or unreachable, or its store changed its state. */
  onChange(listener: () => void): void;
}

export function createHeartbeats(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly timings: Timings;
  readonly incarnation: Incarnation;
  readonly members: () => readonly HostId[];
  readonly holder: LeaseHolder;
  readonly voter: () => LeaseVoter;
  readonly store: () => StoreReport;
  readonly digest: () => string;
  /** Makes a longer lease than any before durable, before it is granted. */
  readonly allowLease: (leaseMs: number) => void;
  readonly onDigest: (host: HostId, digest: string) => void;
}): Heartbeats {
  const { peer, clock, timings, holder } = options;
  const hosts = new Map<HostId, HeardHost>();
  const sentAt = new Map<number, number>();
  const listeners: (() => void)[] = [];
  let sequence = 0;
  let timer: Timer | null = null;
  /** Hosts that a heartbeat goes to soon; null: there is no such thing. */
  let soon: Set<HostId> | null = null;
  /** The stores of the reachable hosts, as of the last look. */
  const reachableBefore = new Map<HostId, StoreReport>();

  function beat(): void {
    timer?.cancel();
    timer = clock.after(timings.heartbeatIntervalMs, beat);
    send(new Set([peer.self, ...options.members()]));
  }

  function send(receivers: ReadonlySet<HostId>): void {
    sequence += 1;
    sentAt.set(sequence, clock.now());
    for (const [old, at] of sentAt) {
      if (clock.now() - at > timings.leaseDurationMs) sentAt.delete(old);
    }
    const heartbeat: Heartbeat = {
      incarnation: options.incarnation,
      sequence,
      leaseDurationMs: timings.leaseDurationMs,
      lapsed: holder.lapsedIn(sequence),
      store: options.store(),
      digest: options.digest(),
    };
    peer.sendAll(receivers, 'storage.heartbeat', heartbeat as unknown as JsonValue);
    noticeChanges();
  }

  function isReachable(host: HostId): boolean {
    if (host === peer.self) return true;
    const heard = hosts.get(host);
    return (
      heard !== undefined &&
      peer.isConnected(host) &&
      clock.now() - heard.lastHeardAtMs < timings.suspectAfterMs
    );
  }

  function noticeChanges(): void {
    let isNews = false;
    for (const [host, { store }] of hosts) {
      const before = reachableBefore.get(host);
      if (!isReachable(host)) {
        if (reachableBefore.delete(host)) isNews = true;
      } else if (before === undefined || !offerTheSame(before, store)) {
        reachableBefore.set(host, store);
        isNews = true;
      }
    }
    if (!isNews) return;
    for (const listener of listeners) listener();
  }

  peer.on('storage.heartbeat', (from, body) => {
    const heartbeat = body as unknown as Heartbeat;
    const now = clock.now();
    const known = hosts.get(from);
    const unbroken = known !== undefined && now - known.lastHeardAtMs < timings.suspectAfterMs;
    const { store, digest } = heartbeat;
    if (known === undefined) hosts.set(from, { lastHeardAtMs: now, sinceMs: now, store, digest });
    else {
      known.lastHeardAtMs = now;
      if (!unbroken) known.sinceMs = now;
      known.store = store;
      known.digest = digest;
    }
    options.allowLease(heartbeat.leaseDurationMs);
    const number = options.voter().heard(from, heartbeat);
    if (number !== null) {
      const ack: HeartbeatAckBody = [heartbeat.incarnation, heartbeat.sequence, number];
      peer.send(from, 'storage.heartbeatAck', ack);
    }
    options.onDigest(from, heartbeat.digest);
    if (!unbroken) {
      // It was out of reach, be it between two looks: who asked meanwhile was told so.
      reachableBefore.delete(from);
      noticeChanges();
    }
  });

  peer.on('storage.heartbeatAck', (from, body) => {
    const [incarnation, sequence, number] = body as unknown as HeartbeatAckBody;
    const sent = sentAt.get(sequence);
    if (incarnation !== options.incarnation || sent === undefined) return;
    holder.acknowledged(from, { incarnation, sequence, number }, sent);
  });

  peer.onSession((host, up) => {
    if (up) beatNow([host]);
    else noticeChanges();
  });

  function beatNow(hosts: readonly HostId[]): void {
    if (timer === null) return;
    if (soon === null) {
      soon = new Set();
      clock.defer(() => {
        const receivers = soon;
        soon = null;
        if (timer !== null && receivers !== null) send(receivers);
      });
    }
    for (const host of hosts) soon.add(host);
  }

  return {
    start: beat,
    stop() {
      timer?.cancel();
      timer = null;
    },
    beatNow,
    isReachable,
    heardSince: (host) => (isReachable(host) ? (hosts.get(host)?.sinceMs ?? null) : null),
    heard: (host) => hosts.get(host) ?? null,
    onChange: (listener) => void listeners.push(listener),
  };
}
