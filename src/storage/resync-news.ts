// Which objects are being brought up to date, and how far that is: known to the host that has the disk open, and
// told by it to all others, so that any host can be asked. It is for people; nothing is decided by it.

import type { HostId, ObjectId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Progress } from './disk/progress.ts';

/** Between two tellings; short pieces of work are not told of at all. */
const intervalMs = 1000;
/** What was not told again for so long is over, or nobody knows. */
const staleAfterMs = 3 * intervalMs;

export interface ObjectResync extends Progress {
  readonly object: ObjectId;
  readonly components: readonly string[];
}

export interface ResyncNews {
  of(object: ObjectId): ObjectResync | null;
  start(): void;
  stop(): void;
}

export function createResyncNews(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  /** What this host itself is doing. */
  readonly own: () => readonly ObjectResync[];
}): ResyncNews {
  const { peer, clock } = options;
  const told = new Map<HostId, { atMs: number; readonly all: readonly ObjectResync[] }>();
  let timer: Timer | null = null;
  let hadSome = false;

  peer.on('storage.resync', (from, body) => {
    const all = body as unknown as readonly ObjectResync[];
    if (all.length === 0) told.delete(from);
    else told.set(from, { atMs: clock.now(), all });
  });

  function tell(): void {
    timer = clock.after(intervalMs, tell);
    const all = options.own();
    // The end is told once.
    if (all.length === 0 && !hadSome) return;
    hadSome = all.length > 0;
    const others = peer.connected().filter((host) => host !== peer.self);
    peer.sendAll(others, 'storage.resync', all as unknown as JsonValue);
  }

  return {
    of(object) {
      const own = options.own().find((one) => one.object === object);
      if (own !== undefined) return own;
      for (const { atMs, all } of told.values()) {
        const found = all.find((one) => one.object === object);
        if (found !== undefined && clock.now() - atMs < staleAfterMs) return found;
      }
      return null;
    },
    start: tell,
    stop: () => timer?.cancel(),
  };
}
