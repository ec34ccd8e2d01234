// When a VM leaves the wait list: the third flow chart of the source. Each reason has the event that
// ends it, and a time at which the VM is looked at though no event came.

import type { Entry, Wait } from './failover-entry.ts';
import type { LockView, World } from './failover-world.ts';
import { haLimits } from './limits.ts';
import { isWorthTrying, type Room } from './rooms.ts';

export function nextLookMs(entry: Entry, wait: Wait, nowMs: number): number {
  if (wait.notBeforeMs > nowMs) return wait.notBeforeMs;
  if (wait.reason !== 'lock') return nowMs + haLimits.slowLookMs;
  const lookMs = entry.held ? haLimits.heldLookMs : haLimits.lockLookMs;
  return Math.max(nowMs + 1, Math.min(entry.askAtMs, nowMs + lookMs));
}

/** Why the VM need not wait any longer, or null. `notice`: something became accessible. */
export function reasonToLeave(
  entry: Entry,
  world: World,
  rooms: readonly Room[],
  notice: boolean,
  nowMs: number,
): string | null {
  const { wait } = entry;
  if (wait === null || nowMs < wait.notBeforeMs) return null;
  const isDue = nowMs >= wait.lookAtMs;
  if (isDue) wait.lookAtMs = nextLookMs(entry, wait, nowMs);
  switch (wait.reason) {
    case 'storage': {
      if (!isDue && !notice) return null;
      const access = world.accessibility([entry.vm]).get(entry.vm);
      return access?.accessible === true ? 'storage accessible' : null;
    }
    case 'capacity':
      if (isDue) entry.tried.clear();
      return rooms.some((room) => isWorthTrying(entry, room)) ? 'there is more room' : null;
    case 'lock':
      if (!isDue && !notice) return null;
      if (lockText(world.lock(entry.vm)) !== entry.lockSeen) return 'its lock changed';
      return nowMs >= entry.askAtMs ? 'the time is over' : null;
    case 'retry':
      return 'the pause is over';
    case 'dependency': {
      const isLong = nowMs - (entry.heldBackAtMs ?? nowMs) >= haLimits.dependencyMs;
      if (isLong) return 'it has waited long enough';
      return world.unmet(entry.candidate) === null ? 'what it starts after runs' : null;
    }
  }
}

/** What of a lock in the directory makes it worth while to ask its voters again. */
export function lockText(lock: LockView | null): string {
  return lock === null ? '' : `${lock.holder ?? ''}/${lock.epoch}/${lock.holderIs}`;
}
