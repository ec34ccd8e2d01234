// The finisher: what a voter accepted must not hang in the air because its proposer died. It keeps a
// due time for each register here that is not known to be committed, and then runs a change that
// keeps the record. An empty register gets a tombstone, so that a creation that was broken off can
// not be completed any more. See docs/protocols/register.md, "Finishing".

import { type HostId, type ObjectId, revision, vmId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import { type Tombstone, type Voter, votingOf } from '../../model/record.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Random } from '../../ports/random.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Outcome } from './outcome.ts';
import type { Proposer } from './proposer.ts';

/** How long a register may stay empty: far longer than a creation takes with all its retries. */
const emptyBoundMs = 60_000;

const maxRunning = 16;
const sweepMs = 100;
const backOffMs = { least: 1000, most: 30_000 };

interface Open {
  dueAtMs: number;
  failures: number;
  running: boolean;
}

export interface Finisher {
  /** A register came to be open (accepted but not known to be committed, or empty), or ceased to be. */
  noticed(object: ObjectId, open: boolean): void;
  /** The host may have died with changes half-way: its registers are due now. */
  lost(host: HostId): void;
  readonly openCount: number;
  start(): void;
  stop(): void;
}

export function createFinisher(options: {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly timings: Timings;
  readonly proposer: Proposer;
  readonly state: (object: ObjectId) => AcceptorState | null;
}): Finisher {
  const { clock, log, timings, proposer, state } = options;
  const random = options.random.stream('register-finisher');
  const open = new Map<ObjectId, Open>();
  let running = 0;
  let timer: Timer | null = null;
  let active = false;

  function schedule(): void {
    if (timer !== null || !active || open.size === 0) return;
    timer = clock.after(sweepMs, () => {
      timer = null;
      sweep();
      schedule();
    });
  }

  function sweep(): void {
    const nowMs = clock.now();
    for (const [object, entry] of open) {
      if (running >= maxRunning) return;
      if (!entry.running && entry.dueAtMs <= nowMs) finish(object, entry);
    }
  }

  function finish(object: ObjectId, entry: Open): void {
    const found = state(object);
    if (found === null || found.committed) return void open.delete(object);
    const voting = found.accepted === null ? found.voting : votingOf(found.accepted.record);
    entry.running = true;
    running += 1;
    log.debug('finishing a register', { object, empty: found.accepted === null });
    proposer.change(
      { object, voting, create: found.accepted === null },
      (current) => ({ write: current ?? tombstone(object, voting.voters) }),
      // What was accepted here may be newer than what the others know as committed, and never have
      // been chosen: then only a newer ballot ends it.
      { renew: entry.failures > 0 },
      (outcome) => {
        running -= 1;
        entry.running = false;
        finished(object, entry, outcome);
      },
    );
  }

  /** Success takes the entry away by itself: this voter learns, and `noticed` is called. Otherwise
   * the next attempt comes ever later. */
  function finished(object: ObjectId, entry: Open, outcome: Outcome): void {
    if (open.get(object) !== entry) return;
    entry.failures += 1;
    const bound = Math.min(backOffMs.most, backOffMs.least * 2 ** Math.min(entry.failures - 1, 10));
    const waitMs = outcome.status === 'failed' ? (outcome.remainingMs ?? 0) : 0;
    entry.dueAtMs = clock.now() + Math.max(waitMs, bound) * (1 + random.next() / 4);
    if (outcome.status !== 'failed') return;
    log.debug('a register could not be finished', { object, reason: outcome.error.message });
  }

  return {
    noticed(object, isOpen) {
      if (!isOpen) return void open.delete(object);
      const isEmpty = state(object)?.accepted === null;
      const afterMs = isEmpty ? emptyBoundMs : timings.finishAfterMs * (1 + random.next());
      const dueAtMs = clock.now() + afterMs;
      const entry = open.get(object);
      if (entry === undefined) open.set(object, { dueAtMs, failures: 0, running: false });
      // A register that others are changing is not stuck; one that is being finished keeps its pace.
      else if (entry.failures === 0 && !entry.running) entry.dueAtMs = dueAtMs;
      schedule();
    },
    lost(host) {
      const nowMs = clock.now();
      for (const [object, entry] of open) {
        if (entry.failures > 0 || state(object)?.accepted?.ballot.host !== host) continue;
        entry.dueAtMs = Math.min(
          entry.dueAtMs,
          nowMs + (random.next() * timings.finishAfterMs) / 5,
        );
      }
    },
    get openCount() {
      return open.size;
    },
    start() {
      active = true;
      schedule();
    },
    stop() {
      active = false;
      timer?.cancel();
      open.clear();
    },
  };
}

function tombstone(object: ObjectId, voters: readonly Voter[]): Tombstone {
  const policy = { failuresToTolerate: Math.floor((voters.length - 1) / 2), stripes: 1 };
  // Which VM it was meant for is not known: nothing was ever accepted.
  return { kind: 'tombstone', id: object, vm: vmId(''), revision: revision(1), policy, voters };
}
