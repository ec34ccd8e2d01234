// What the story of a run is made of: the log of the hosts, where each decision is told once, by the
// room that takes it. Events say much of the same for users, so of them only those are told that no
// room writes a line about.

import type { EventType } from '../../model/events.ts';
import type { LogFields } from '../../ports/log.ts';

const toldAsEvents: ReadonlySet<unknown> = new Set<EventType>([
  'vm.ready',
  'vm.silent',
  'vm.panicked',
  'storage.copyLost',
  'storage.copyRestored',
  'storage.damaged',
  'storage.full',
]);

export function isTold(room: string, fields: LogFields | undefined): boolean {
  return room !== 'events' || toldAsEvents.has(fields?.['event']);
}
