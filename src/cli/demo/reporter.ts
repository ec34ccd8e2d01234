// What the demo says while it works: a line per step, and after the failure a timeline counted from
// it. With --json all of that goes to standard error, because standard output belongs to the result.

import type { EventReply } from '../../api/schemas.ts';
import type { Io } from '../io.ts';

export interface Reporter {
  /** A step of the preparation or of the end. */
  say(text: string): void;
  /** From now on times count from `killedAt` (ms since 1970). */
  failed(killedAt: number, text: string): void;
  /** A moment of the timeline. */
  moment(at: number, what: string, text: string): void;
  /** A host's event, if it belongs to the timeline. */
  event(event: EventReply): void;
}

const moments: Readonly<Record<string, string>> = {
  'master.elected': 'new master',
  'failover.detected': 'detected',
  'failover.waiting': 'waits',
  'failover.lockFree': 'lock free',
  'failover.accessible': 'accessible',
  'failover.placed': 'placed',
  'failover.started': 'started',
  'failover.failed': 'try failed',
};

export function createReporter(io: Io, json: boolean): Reporter {
  const write = (text: string): void => (json ? io.err(text) : io.out(text));
  let killedAt: number | null = null;

  const moment = (at: number, what: string, text: string): void => {
    if (killedAt === null) return;
    const seconds = ((at - killedAt) / 1000).toFixed(2).padStart(7);
    write(`${seconds} s  ${io.style('bold', what.padEnd(18))}  ${text}\n`);
  };
  return {
    say: (text) => write(`${text}\n`),
    failed(at, text) {
      killedAt = at;
      write('\n');
      moment(at, 'failure', text);
    },
    moment,
    event(event) {
      const what = moments[event.type];
      if (what === undefined || killedAt === null || event.at < killedAt) return;
      moment(event.at, what, event.text);
    },
  };
}
