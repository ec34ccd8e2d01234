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
  /** Digests that differed when last seen: a difference counts only when it stays for a beat,
   * because announcements are usually just on their way. */
  const suspicious = new Map<HostId, string>();
  const comparing = new Map<HostId, number>();

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
        take(answer.newer);
        const entries = fitting(answer.wanted.flatMap((object) => directory.get(object) ?? []));
        if (entries.length > 0) {
          peer.send(host, 'directory.announce', entries as unknown as JsonValue);
        }
      },
    );
  }

  return {
    announce(entry) {
      const others = peer.connected().filter((host) => host !== peer.self);
      peer.sendAll(others, 'directory.announce', [entry] as unknown as JsonValue);
    },
    onDigest(host, digest) {
      if (host === peer.self || digest === directory.digest()) {
        suspicious.delete(host);
        return;
      }
      if (suspicious.get(host) === undefined) suspicious.set(host, digest);
      else compareWith(host);
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
