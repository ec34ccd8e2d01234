// What the strategies of all hosts of one simulated cluster have in common: the counters that a
// comparison prints, and what keeps one fact from being counted by each host that sees it.

import type { createHa, HaOptions } from '../../ha/ha.ts';

export type { HaOptions };
export type CreateHa = typeof createHa;
export type RunningHa = ReturnType<CreateHa>;

export interface StrategyCounters {
  /** Updates of a VM's protection (not attempts) that could not be written at first, because the
   * file was out of reach or the writer had not the role. */
  protectionUpdatesRefused: number;
  /** Newer updates that an older one replaced when two segments were merged, and switch-offs that a
   * host had not been able to write when it was stopped. */
  protectionUpdatesLost: number;
  /** VMs for which two segments said different things, neither having seen the other. */
  protectionConflicts: number;
  /** Answers about one VM's accessibility that the storage layer gave to HA. */
  accessibilityQueries: number;
  /** Steps (open, read, close) of looking through the files of single VMs. */
  enumerationReads: number;
  /** The longest time from an election until the new master's GET was complete. */
  masterKnowsMs: number;
  /** Elections after which the GET was never complete while that master lasted, or is not yet. */
  mastersThatDoNotKnow: number;
}

export interface Shared {
  readonly counters: StrategyCounters;
  /** True only the first time in this cluster. */
  isNew(fact: string): boolean;
}

export function createShared(): Shared {
  const facts = new Set<string>();
  return {
    counters: {
      protectionUpdatesRefused: 0,
      protectionUpdatesLost: 0,
      protectionConflicts: 0,
      accessibilityQueries: 0,
      enumerationReads: 0,
      masterKnowsMs: 0,
      mastersThatDoNotKnow: 0,
    },
    isNew(fact) {
      if (facts.has(fact)) return false;
      facts.add(fact);
      return true;
    },
  };
}

/** The module with some of its methods replaced. */
export function changed(ha: RunningHa, changes: Partial<Omit<RunningHa, 'state'>>): RunningHa {
  return {
    get state() {
      return ha.state;
    },
    master: () => ha.master(),
    term: () => ha.term(),
    hosts: () => ha.hosts(),
    protectionStatus: (vm) => ha.protectionStatus(vm),
    poweredOn: (vm, epoch) => ha.poweredOn(vm, epoch),
    poweredOff: (vm, epoch) => ha.poweredOff(vm, epoch),
    place: (vm) => ha.place(vm),
    waiting: () => ha.waiting(),
    recoveries: () => ha.recoveries(),
    start: () => ha.start(),
    stop: () => ha.stop(),
    ...changes,
  };
}
