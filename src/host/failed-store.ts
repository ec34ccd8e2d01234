// A store whose device failed it is not used any more: what of the last writes is on the disk is for the
// next start to find out. Where the reason may pass (no space, an error of the device), that start must
// not wait for somebody who notices: it is asked for once the device takes writes again.

import type { HoldfastError } from '../model/errors.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { LocalDisk } from '../ports/disk.ts';
import { tryDevice } from '../ports/disk-calls.ts';
import type { Log } from '../ports/log.ts';

const lookEveryMs = 5000;
/** A device that fails again and again must not make the host do nothing but start. */
const leastUptimeMs = 15_000;

export function watchFailedStore(options: {
  readonly clock: Clock;
  readonly disk: LocalDisk;
  readonly log: Log;
  /** Why the store is not used, or null. */
  readonly failure: () => HoldfastError | null;
  readonly restart: (reason: string) => void;
}): { stop(): void } {
  const { clock, disk, log } = options;
  const startedAtMs = clock.now();
  let timer: Timer = clock.after(lookEveryMs, look);
  let stopped = false;

  function look(): void {
    timer = clock.after(lookEveryMs, look);
    const failure = options.failure();
    if (failure?.code !== 'disk-full' && failure?.code !== 'disk-error') return;
    if (clock.now() - startedAtMs < leastUptimeMs) return;
    timer.cancel();
    tryDevice(disk).then(
      () => {
        if (!stopped) options.restart(`its store had failed (${failure.message}) and works again`);
      },
      (error: unknown) => {
        log.debug(`the device of the store does not work yet: ${String(error)}`);
        if (!stopped) timer = clock.after(lookEveryMs, look);
      },
    );
  }

  return {
    stop() {
      stopped = true;
      timer.cancel();
    },
  };
}
