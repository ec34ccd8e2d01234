// What a host notices of one of its guests, and tells: that it is heard, that it falls silent, that it hangs. The
// heartbeat is one witness, what it asks of its disks the other (../hypervisor/hang-watch.ts).

import { HangWatch } from '../hypervisor/hang-watch.ts';
import { GuestHeartbeat } from '../hypervisor/heartbeat.ts';
import type { VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import type { PathDisk } from '../model/path-disk.ts';
import type { Clock } from '../ports/clock.ts';
import type { DiskActivity, Guest, GuestDriver } from '../ports/guests.ts';
import type { OpenDisks } from '../storage/api.ts';
import type { Emit } from './event-log.ts';

export interface GuestWatch {
  readonly heartbeat: GuestHeartbeat;
  readonly hang: HangWatch;
}

export function watchGuest(options: {
  readonly vm: { readonly vm: VmId; readonly name: string };
  readonly clock: Clock;
  readonly timings: Timings;
  readonly isRunning: () => boolean;
  readonly activity: () => Promise<DiskActivity | null>;
  readonly emit: Emit;
  /** It is told otherwise than before. */
  readonly changed: () => void;
}): GuestWatch {
  const { vm, clock, timings, isRunning, activity, emit, changed } = options;
  const hang = new HangWatch({
    ...{ clock, activity, hungAfterMs: timings.guestHungAfterMs },
    changed(hangs) {
      if (hangs) {
        const text = `The guest of VM ${vm.name} hangs: it is not heard, and asks nothing of its disks`;
        emit('vm.hung', text, vm);
      }
      changed();
    },
  });
  const heartbeat = new GuestHeartbeat({
    ...{ clock, isRunning, silentAfterMs: timings.guestSilentAfterMs },
    events: {
      heard(afterSilence) {
        const again = afterSilence ? ' again' : '';
        emit('vm.ready', `The guest of VM ${vm.name} reports${again}`, vm);
        hang.end();
        changed();
      },
      silent(forMs) {
        const seconds = Math.round(forMs / 1000);
        emit('vm.silent', `The guest of VM ${vm.name} has not been heard for ${seconds} s`, vm);
        hang.begin();
        changed();
      },
    },
  });
  return { heartbeat, hang };
}

/** What a guest has asked of its disks; null: that can not be told now. Where it has none, there is nothing but its
 * silence, and that is not enough. */
export async function activityOf(
  guest: Guest,
  disks: OpenDisks,
  paths: readonly PathDisk[],
  guests: Pick<GuestDriver, 'pathProblem'>,
): Promise<DiskActivity | null> {
  if (disks.disks.length + paths.length === 0) return null;
  const served = disks.activity();
  if (paths.length === 0) return served;
  for (const { path } of paths) if ((await guests.pathProblem(path)) !== null) return null;
  const own = await guest.pathActivity();
  if (own === null) return null;
  return { requests: served.requests + own.requests, inFlight: served.inFlight + own.inFlight };
}
