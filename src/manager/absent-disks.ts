// Disks that a running guest does without: it does not require them, and they could not be reached when it
// was started. Which these are is noted in the VM's metadata, under the epoch of its lock, for everybody who
// shows it. Each is looked for again and again, and plugged into the guest when it can be served.
//
// What a guest has is known by its driver, not by the note: a daemon that finds a guest asks that. So the
// note may lag, and what an earlier daemon began is simply done once more.

import { asHoldfastError, isError } from '../model/errors.ts';
import type { Epoch, VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import { type DetachedDisks, detachedKey, runnerService } from '../model/vm.ts';
import type { Clock } from '../ports/clock.ts';
import type { Guest } from '../ports/guests.ts';
import type { Log } from '../ports/log.ts';
import type { OpenDisks, Storage } from '../storage/api.ts';
import type { Emit } from './event-log.ts';

interface Vm {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
}

export interface AbsentDisks {
  /** Durable before the guest is there, as whoever looks at it wants to know what it lacks. */
  noteMissing(vm: Vm, missing: OpenDisks['missing']): Promise<void>;
  /** Plugs in what the guest lacks, as it can be served, until all is there or it is over. */
  attachLater(work: {
    readonly vm: Vm;
    readonly guest: Guest;
    readonly disks: OpenDisks;
    readonly absent: readonly string[];
    /** Disks that the guest may have only almost: an earlier daemon may have died in between. */
    readonly doubtful: readonly string[];
    readonly isOver: () => boolean;
  }): void;
}

export function createAbsentDisks(options: {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly log: Log;
  readonly timings: Timings;
  readonly emit: Emit;
}): AbsentDisks {
  const { storage, clock, log, timings, emit } = options;

  async function note({ vm, epoch }: Vm, disks: readonly string[]): Promise<void> {
    const value: DetachedDisks | null = disks.length === 0 ? null : { epoch, disks };
    await storage.setMetadata(vm, runnerService, detachedKey, value, { heldAtEpoch: epoch });
  }

  return {
    async noteMissing(vm, missing) {
      if (missing.length === 0) return;
      await note(
        vm,
        missing.map((one) => one.name),
      );
      for (const { name, reason } of missing) {
        const without = `VM ${vm.name} starts without ${name}, which it does not require`;
        emit('vm.diskDetached', `${without}: ${reason}`, vm);
      }
    },

    attachLater({ vm, guest, disks, absent, doubtful, isOver }) {
      const wanted = new Set([...absent, ...doubtful]);
      /** Those that it will not get before its next start. */
      const refused: string[] = [];
      let noted: number | null = null;

      /** Whether the disk is dealt with; throws where it is to be tried again. */
      async function attach(name: string): Promise<boolean> {
        const opened = await disks.openLate(name);
        if ('reason' in opened || isOver() || guest.state !== 'running') return false;
        await guest.attachDisk({ name, socket: opened.socket });
        if (absent.includes(name) && !isOver()) {
          emit('vm.diskAttached', `VM ${vm.name} has ${name}: it was plugged in`, vm);
        }
        return true;
      }

      async function attachAll(): Promise<void> {
        for (const name of [...wanted]) {
          if (isOver() || guest.state !== 'running') return;
          try {
            if (await attach(name)) wanted.delete(name);
          } catch (error) {
            const { message } = asHoldfastError(error);
            const text = `${vm.name}: ${name} is not plugged in: ${message}`;
            if (isError(error, 'guest-failed')) {
              wanted.delete(name);
              refused.push(name);
              log.warn(`${text}; the guest gets it at its next start`, { vm: vm.vm });
            } else log.debug(text, { vm: vm.vm });
          }
        }
      }

      async function look(): Promise<void> {
        if (isOver()) return;
        await attachAll();
        const lacking = [...wanted, ...refused].filter((name) => absent.includes(name));
        if (!isOver() && noted !== lacking.length) {
          await note(vm, lacking).then(
            () => (noted = lacking.length),
            (error: unknown) => log.debug(`${vm.name}: ${String(error)}`, { vm: vm.vm }),
          );
        }
        if (wanted.size > 0 || noted !== lacking.length) later();
      }

      function later(): void {
        clock.after(timings.resyncRetryMs, () => {
          look().catch((error: unknown) => log.error(`${vm.name}: ${String(error)}`));
        });
      }

      if (wanted.size > 0) later();
    },
  };
}
