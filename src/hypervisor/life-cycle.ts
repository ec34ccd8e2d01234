// The life of a guest on one host as a table. A VM that is not in it is off here; whether it runs on
// another host is not this room's to know.

import type { GuestState } from '../model/vm.ts';
import type { Log } from '../ports/log.ts';

export const guestStates: Readonly<
  Record<GuestState, { readonly means: string; readonly next: readonly GuestState[] }>
> = {
  starting: {
    means: 'lock, disks and process are on their way; nothing runs for certain',
    next: ['running', 'stopping'],
  },
  running: {
    means: 'its process runs, under a valid lease as far as this host knows',
    next: ['paused', 'stopping'],
  },
  paused: {
    means: 'its process stands still and does no I/O; it goes on when its lease is valid again',
    next: ['running', 'stopping'],
  },
  stopping: {
    means: 'it is switching itself off or is being ended; it never runs again under this epoch',
    next: [],
  },
};

/** The state of one guest, with the only way to change it. */
export class LifeCycle {
  readonly #name: string;
  readonly #log: Log;
  readonly #onChange: () => void;
  #state: GuestState;

  constructor(name: string, state: GuestState, log: Log, onChange: () => void) {
    this.#name = name;
    this.#state = state;
    this.#log = log;
    this.#onChange = onChange;
  }

  get state(): GuestState {
    return this.#state;
  }

  is(...states: readonly GuestState[]): boolean {
    return states.includes(this.#state);
  }

  /** False, and nothing happens, where the table has no such step: what comes too late is no error. */
  become(next: GuestState, reason: string): boolean {
    if (next === this.#state) return true;
    if (!guestStates[this.#state].next.includes(next)) {
      this.#log.debug(`${this.#name}: ${this.#state} stays, not ${next} (${reason})`);
      return false;
    }
    this.#log.info(`${this.#name}: ${this.#state} -> ${next} (${reason})`);
    this.#state = next;
    this.#onChange();
    return true;
  }
}
