// How directories become equal: each commit is announced to all hosts at once, and where two hosts'
// digests (in their heartbeats) still differ, they exchange what the other lacks.

import { type Ballot, compareBallots } from '../../model/ballot.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Timings } from '../../model/limits.ts';
import { noPayload } from '../../peer/frame.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Directory, DirectoryEntry } from './directory.ts';

/** Keep a message well below the bound of a frame; what is left out follows with the next digest. */
const maxEntriesPerMessage = 500;
const maxCharactersPerMessage = 4 * 1024 * 1024;

interface CompareAnswer {
  readonly newer: readonly DirectoryEntry[];
  readonly wanted: readonly ObjectId[];
}

/** Two digests that differ, and when they were first seen like this, and when they began to differ. */
interface Difference {
  readonly theirs: string;
  readonly ours: string;
  readonly seenAtMs: number;
  readonly firstSeenAtMs: number;
}

export interface DirectorySync {
  announce(entry: DirectoryEntry): void;
  /** A host's heartbeat carried this digest of its directory. */
  onDigest(host: HostId, digest: string): void;
}

export function createDirectorySync(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly log: Log;
  readonly timings: Timings;
  readonly directory: Directory;
}): DirectorySync {
  const { peer, clock, directory, timings } = options;
  const suspicious = new Map<HostId, Difference>();
  const comparing = new Map<HostId, number>();
  /** Hosts with a new session or much to catch up with: they are compared with in any case. */
  const fresh = new Set<HostId>();
  let comparedInMotionAtMs = Number.NEGATIVE_INFINITY;

  peer.onSession((host, up) => {
    if (up) fresh.add(host);
    else fresh.delete(host);
  });

  function take(entries: readonly DirectoryEntry[]): void {
    for (const entry of entries) directory.update(entry);
  }

  peer.on('directory.announce', (_from, body) => take(body as unknown as DirectoryEntry[]));

  peer.on('directory.compare', (_from, body, _payload, reply) => {
    const theirs = new Map(body as unknown as [ObjectId, Ballot][]);
    const newer: DirectoryEntry[] = [];
    for (const entry of directory.entries()) {
      const ballot = theirs.get(entry.record.id) ?? null;
      if (compareBallots(entry.ballot, ballot) > 0) newer.push(entry);
    }
    const wanted = [...theirs]
      .filter(
        ([object, ballot]) => compareBallots(ballot, directory.get(object)?.ballot ?? null) > 0,
      )
      .map(([object]) => object);
    const answer: CompareAnswer = {
      newer: fitting(newer),
      wanted: wanted.slice(0, maxEntriesPerMessage),
    };
    reply.ok(answer as unknown as JsonValue);
  });

  function compareWith(host: HostId): void {
    const lastAt = comparing.get(host) ?? Number.NEGATIVE_INFINITY;
    if (clock.now() - lastAt < timings.heartbeatIntervalMs) return;
    comparing.set(host, clock.now());
    const summary = directory.summary() as unknown as JsonValue;
    peer.request(
      host,
      'directory.compare',
      summary,
      noPayload,
      timings.directorySyncMs,
      (error, body) => {
        if (error !== null) return; // the next heartbeat tries again
        const answer = body as unknown as CompareAnswer;
        const isCut =
          answer.newer.length >= maxEntriesPerMessage ||
          answer.wanted.length >= maxEntriesPerMessage;
        if (isCut) fresh.add(host);
        else fresh.delete(host);
        take(answer.newer);
        const entries = fitting(answer.wanted.flatMap((object) => directory.get(object) ?? []));
        if (entries.length > 0) {
          peer.send(host, 'directory.announce', entries as unknown as JsonValue);
        }
      },
    );
  }

  /**
   * A difference counts only when it stays for a beat: announcements are usually just on their way.
   * While either side keeps changing there is always one, which says nothing, and to compare costs
   * time in proportion to the directory; so it is done with one host in each interval then. (With 64
   * hosts and 20,000 objects comparing was nine tenths of all work while VMs were made.)
   */
  function isWorthComparing(host: HostId, theirs: string): boolean {
    const nowMs = clock.now();
    const ours = directory.digest();
    const before = suspicious.get(host);
    const isSame = before?.theirs === theirs && before.ours === ours;
    if (before === undefined || !isSame) {
      const { firstSeenAtMs } = before ?? { firstSeenAtMs: nowMs };
      suspicious.set(host, { theirs, ours, seenAtMs: nowMs, firstSeenAtMs });
    }
    if (before === undefined) return false;
    if (isSame && nowMs - before.seenAtMs >= timings.heartbeatIntervalMs / 2) return true;
    if (fresh.has(host)) return nowMs - before.firstSeenAtMs >= timings.heartbeatIntervalMs / 2;
    if (nowMs - before.firstSeenAtMs < timings.directorySyncMs) return false;
    if (nowMs - comparedInMotionAtMs < timings.directorySyncMs) return false;
    comparedInMotionAtMs = nowMs;
    return true;
  }

  return {
    announce(entry) {
      const others = peer.connected().filter((host) => host !== peer.self);
      peer.sendAll(others, 'directory.announce', [entry] as unknown as JsonValue);
    },
    onDigest(host, digest) {
      if (host === peer.self || digest === directory.digest()) {
        suspicious.delete(host);
        fresh.delete(host);
        return;
      }
      if (isWorthComparing(host, digest)) compareWith(host);
    },
  };
}

/** As many of the first entries as one message takes; one at least. */
function fitting(entries: readonly DirectoryEntry[]): DirectoryEntry[] {
  let characters = 0;
  const first: DirectoryEntry[] = [];
  for (const entry of entries.slice(0, maxEntriesPerMessage)) {
    characters += JSON.stringify(entry).length;
    if (first.length > 0 && characters > maxCharactersPerMessage) break;
    first.push(entry);
  }
  return first;
}
