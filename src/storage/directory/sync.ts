// How directories become equal: each commit is announced to all hosts at once, and where two hosts'
// digests (in their heartbeats) still differ, one asks the other which objects differ, bucket by
// bucket, sends what it has newer, and fetches what the other has newer, round by round until all is said.

import { type Ballot, compareBallots } from '../../model/ballot.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Timings } from '../../model/limits.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import { bucketCount, type Directory, type DirectoryEntry } from './directory.ts';

/** What one message says at most: a host that has everything to learn goes on beating between two. */
const maxObjectsPerComparison = 2000;
const maxEntriesPerMessage = 500;
const maxCharactersPerMessage = 4 * 1024 * 1024;

/** Of the first buckets that differ, what the asked host has in them. */
interface CompareAnswer {
  readonly buckets: readonly number[];
  readonly ballots: readonly (readonly [ObjectId, Ballot])[];
}

/** Two digests that differ, and when they were first seen like this, and when they began to differ. */
interface Difference {
  readonly theirs: string;
  readonly ours: string;
  readonly seenAtMs: number;
  readonly firstSeenAtMs: number;
}

export interface DirectorySync {
  /** `told`: hosts that hear of it in another way. */
  announce(entry: DirectoryEntry, told: readonly HostId[]): void;
  /** The host is known to have something newer of these objects. */
  want(host: HostId, objects: readonly ObjectId[]): void;
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
  const log = options.log.child('directory');
  const suspicious = new Map<HostId, Difference>();
  const comparing = new Set<HostId>();
  /** When a host last asked this one: then it sends and fetches, and there is no need to do it twice. */
  const askedAtMs = new Map<HostId, number>();
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

  peer.on('directory.compare', (from, _body, payload, reply) => {
    askedAtMs.set(from, clock.now());
    const theirs = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const ours = directory.bucketDigests();
    const buckets: number[] = [];
    const ballots: [ObjectId, Ballot][] = [];
    for (let bucket = 0; bucket < bucketCount; bucket += 1) {
      if (theirs.getUint32(bucket * 4, true) === ours[bucket]) continue;
      if (ballots.length >= maxObjectsPerComparison) break;
      buckets.push(bucket);
      for (const { record, ballot } of directory.bucket(bucket)) ballots.push([record.id, ballot]);
    }
    const answer: CompareAnswer = { buckets, ballots };
    reply.ok(answer as unknown as JsonValue);
  });

  peer.on('directory.fetch', (_from, body, _payload, reply) => {
    const wanted = body as unknown as ObjectId[];
    const known = wanted.flatMap((object) => directory.get(object) ?? []);
    reply.ok(fitting(known) as unknown as JsonValue);
  });

  /** Goes on until both have the same; a host that does not answer is asked again at its next beats. */
  async function catchUp(host: HostId): Promise<void> {
    for (;;) {
      const { buckets, ballots } = await compare(host);
      if (buckets.length === 0) return;
      const theirs = new Map(ballots);
      const isNewer = (mine: Ballot | null, other: Ballot | null | undefined) =>
        compareBallots(mine, other ?? null) > 0;
      const newer: DirectoryEntry[] = [];
      for (const bucket of buckets) {
        for (const entry of directory.bucket(bucket)) {
          if (isNewer(entry.ballot, theirs.get(entry.record.id))) newer.push(entry);
        }
        if (newer.length > maxEntriesPerMessage) break;
      }
      const wanted = ballots
        .filter(([object, ballot]) => isNewer(ballot, directory.get(object)?.ballot))
        .map(([object]) => object);
      // What does not fit differs still in the next round.
      const told = fitting(newer);
      if (told.length > 0) peer.send(host, 'directory.announce', told as unknown as JsonValue);
      const learned = await fetch(host, wanted.slice(0, maxEntriesPerMessage));
      take(learned);
      if (told.length === newer.length && learned.length === wanted.length) {
        if (ballots.length < maxObjectsPerComparison) return;
      }
    }
  }

  function compare(host: HostId): Promise<CompareAnswer> {
    const digests = new Uint8Array(bucketCount * 4);
    const view = new DataView(digests.buffer);
    for (const [bucket, digest] of directory.bucketDigests().entries()) {
      view.setUint32(bucket * 4, digest, true);
    }
    return new Promise((resolve, reject) => {
      peer.request(
        host,
        'directory.compare',
        null,
        digests,
        timings.directorySyncMs,
        (error, body) =>
          error === null ? resolve(body as unknown as CompareAnswer) : reject(error),
      );
    });
  }

  async function fetch(host: HostId, objects: readonly ObjectId[]): Promise<DirectoryEntry[]> {
    if (objects.length === 0) return [];
    const wanted = objects as unknown as JsonValue;
    const entries = await peer.ask(host, 'directory.fetch', wanted, timings.directorySyncMs);
    return entries as unknown as DirectoryEntry[];
  }

  function compareWith(host: HostId): void {
    if (comparing.has(host)) return;
    const sinceMs = clock.now() - (askedAtMs.get(host) ?? Number.NEGATIVE_INFINITY);
    if (sinceMs < timings.heartbeatIntervalMs) return;
    comparing.add(host);
    catchUp(host)
      .then(
        () => fresh.delete(host),
        (error: unknown) => log.debug(`directories not compared: ${String(error)}`, { host }),
      )
      .finally(() => comparing.delete(host));
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
    announce(entry, told) {
      const others = peer.connected().filter((host) => host !== peer.self && !told.includes(host));
      if (others.length === 0) return;
      peer.sendAll(others, 'directory.announce', [entry] as unknown as JsonValue);
    },
    want(host, objects) {
      fetch(host, objects.slice(0, maxEntriesPerMessage)).then(take, (error: unknown) =>
        log.debug(`records not fetched: ${String(error)}`, { host }),
      );
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
