// The last events that this host saw, and who wants to hear of new ones.

import type { ClusterEvent, EventType } from '../model/events.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';

const kept = 2000;

export type Emit = (
  type: EventType,
  text: string,
  vm?: { readonly vm: VmId; readonly name: string },
) => void;

export interface EventLog {
  readonly emit: Emit;
  /** An event that another room has put together itself. */
  add(event: ClusterEvent): void;
  all(): readonly ClusterEvent[];
  /** Calls back on new events until the returned function is called. */
  onEvent(listener: (event: ClusterEvent) => void): () => void;
}

export function createEventLog(self: HostId, clock: Clock, log: Log): EventLog {
  const events: ClusterEvent[] = [];
  const listeners = new Set<(event: ClusterEvent) => void>();

  function add(event: ClusterEvent): void {
    events.push(event);
    if (events.length > kept) events.shift();
    log.info(event.text, { event: event.type, vm: event.vmName });
    for (const listener of listeners) listener(event);
  }

  return {
    add,
    emit(type, text, vm) {
      const about = vm === undefined ? {} : { vm: vm.vm, vmName: vm.name };
      add({ at: clock.wallTime(), host: self, type, ...about, text });
    },
    all: () => events,
    onEvent(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
