// What happened, for people and for timelines. An event is a fact that some host saw; its text is a
// whole sentence that names the VM, object or host.

import type { HostId, VmId } from './ids.ts';

export type EventType =
  | 'host.up'
  | 'host.suspected'
  | 'host.failed'
  | 'host.removed'
  | 'master.elected'
  | 'master.abdicated'
  | 'vm.created'
  | 'vm.removed'
  | 'vm.started'
  | 'vm.stopped'
  | 'vm.exited'
  | 'vm.panicked'
  | 'vm.ready'
  | 'vm.silent'
  | 'vm.hung'
  | 'vm.paused'
  | 'vm.resumed'
  | 'vm.lost'
  | 'vm.protected'
  | 'vm.diskDetached'
  | 'vm.diskAttached'
  | 'failover.detected'
  | 'failover.waiting'
  | 'failover.lockFree'
  | 'failover.accessible'
  | 'failover.placed'
  | 'failover.started'
  | 'failover.failed'
  | 'failover.guestReady'
  | 'storage.copyAdded'
  | 'storage.copyLost'
  | 'storage.copyRemoved'
  | 'storage.copyRestored'
  | 'storage.damaged'
  | 'storage.deviceFailed'
  | 'storage.deviceBack'
  | 'storage.full'
  | 'storage.hostNearFull'
  | 'storage.hostFull'
  | 'storage.hostRoomAgain'
  | 'storage.policySet'
  | 'storage.rebuild'
  | 'storage.restriped'
  | 'storage.restriping'
  | 'storage.resync'
  | 'storage.badBlock'
  | 'storage.repaired'
  | 'storage.unreadable'
  | 'storage.voterReplaced';

export interface ClusterEvent {
  /** Milliseconds since 1970, by the clock of the host that saw it; for people, never for decisions. */
  readonly at: number;
  readonly host: HostId;
  readonly type: EventType;
  readonly vm?: VmId;
  readonly vmName?: string;
  readonly text: string;
}
