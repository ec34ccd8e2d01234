// How a guest ended, in words: whether it switched itself off, or QEMU broke, or somebody ended it.
// HA starts again what did not end cleanly, so "clean" needs evidence: QEMU leaves with status 0 also
// when somebody asks it to with SIGTERM, as a machine does that shuts down.

import type { GuestEvent } from '../ports/guests.ts';
import type { GuestExit } from './guard-client.ts';
import { type RunFiles, tailOf } from './run-files.ts';

type Exited = Extract<GuestEvent, { readonly type: 'exited' }>;

/** Reads the log from `logOffset` on, where this start of the guest began. */
export async function exitEvent(
  exit: GuestExit | null,
  shutdownReason: string | null,
  files: RunFiles,
  logOffset: number,
): Promise<Exited> {
  const unclean = (detail: string): Exited => ({ type: 'exited', clean: false, detail });
  if (exit === null) return unclean('its guard is gone, and it with it');
  let said = '';
  let unreadable: string | null = null;
  try {
    said = await tailOf(files.guestLog, logOffset);
  } catch (error) {
    unreadable = String(error);
  }
  const log = `(log: ${files.guestLog}${unreadable === null ? '' : `, which can not be read: ${unreadable}`})`;
  // Without QMP's word, because no daemon listened at that moment, the log tells a signal.
  const asked = shutdownReason ?? (said.includes('terminating on signal') ? said : null);
  // One that hung while it ended, and was killed, had been asked to end before.
  if ('signal' in exit && asked === null) {
    return unclean(`QEMU was ended by signal ${exit.signal} ${log}`);
  }
  if ('code' in exit && exit.code !== 0) {
    return unclean(`QEMU ended with status ${exit.code}: ${said || 'it said nothing'} ${log}`);
  }
  if (asked !== null && asked !== 'guest-shutdown') {
    return unclean(`QEMU was asked to end: ${asked} ${log}`);
  }
  if (asked === null && unreadable !== null) return unclean(`QEMU ended ${log}`);
  return { type: 'exited', clean: true, detail: 'the guest switched itself off' };
}
