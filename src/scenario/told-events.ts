// Which events the story of a run tells. It is made of the hosts' logs, where each decision is told once, by the room
// that takes it; events say much of the same for users, so only those are told that no room writes a line about.

import type { EventType } from '../model/events.ts';

export const toldEvents: ReadonlySet<unknown> = new Set<EventType>([
  'vm.ready',
  'vm.silent',
  'vm.hung',
  'vm.panicked',
  'vm.diskDetached',
  'vm.diskAttached',
  'storage.copyAdded',
  'storage.copyLost',
  'storage.copyRemoved',
  'storage.copyRestored',
  'storage.rebuild',
  'storage.restriped',
  'storage.restriping',
  'storage.voterReplaced',
  'storage.damaged',
  'storage.full',
  'storage.badBlock',
  'storage.repaired',
  'storage.unreadable',
]);
