// What an open disk offers to those who use it and to repair, and what it needs.

import type { ComponentId, Epoch, HostId, ObjectId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import type { Blueprint, Component, DiskRecord } from '../../model/record.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { BlockDevice } from './block-device.ts';
import type { Gate } from './mirror.ts';
import type { Progress } from './progress.ts';

/** Changes the disk's record; rejects if the change is refused or its outcome is not known. */
export type ChangeDisk = (
  object: ObjectId,
  change: (record: DiskRecord) => DiskRecord,
) => Promise<DiskRecord>;

export type DiskEvent =
  | 'copyLost'
  | 'copyRestored'
  | 'resync'
  | 'full'
  | 'repaired'
  | 'unreadable'
  | 'copyAdded'
  | 'copyRemoved'
  | 'restriping'
  | 'restriped';

export interface DiskOptions {
  readonly object: ObjectId;
  /** For people: `web-1/disk0`. */
  readonly name: string;
  readonly epoch: Epoch;
  readonly guestRuns: boolean;
  /** Writes that were acknowledged, and not flushed, are gone. No request is answered any more: who has made
   * them is to be ended, and the disk closed. */
  readonly onWritesLost: () => void;
  /** Somebody else has opened the disk. */
  readonly onFenced: () => void;
  readonly onEvent: (type: DiskEvent, text: string) => void;
  readonly gate: Gate;
  readonly change: ChangeDisk;
  /** Heard of lately: worth to be waited for. */
  readonly isReachable: (host: HostId) => boolean;
  readonly peer: Peer;
  readonly clock: Clock;
  readonly timings: Timings;
  readonly log: Log;
  readonly probe: Probe;
}

export interface OpenDisk extends BlockDevice {
  readonly object: ObjectId;
  /** A block of this component was found to be bad. */
  verify(component: ComponentId, offset: number): void;
  /** What is being brought up to date, or filled, now; null: nothing is. */
  resync(): DiskResync | null;
  /** Puts a component that exists and holds nothing yet in the place of one that does not count. Rejects
   * with `conflict` if it counts or is being brought back, and as a change of the record does. */
  replaceCopy(old: ComponentId, added: Component): Promise<void>;
  /** Ends a name of a component that has no name yet: none is given twice, whoever opens the disk. */
  newSuffix(): string;
  /** One more mirror, of components that exist and hold nothing yet. Rejects as `replaceCopy` does. */
  addMirror(stripes: readonly Component[]): Promise<void>;
  /** Does without a mirror. Rejects with `conflict` if another one is not as good. */
  removeMirror(gone: ReadonlySet<ComponentId>): Promise<void>;
  /** Fills another tree, whose components `make` makes once the record names them, and has it take the
   * place of the present one. Resolves when it is being filled; rejects where that can not be. */
  restripe(next: Blueprint, make: () => Promise<void>): Promise<void>;
  /** Gives up the tree that the record names to be filled, unless the record can count it already. Rejects as a
   * change of the record does where nobody fills it. */
  giveUpNext(next: Blueprint, reason: string): Promise<void>;
  /** Some regions may differ, or are not durable on all copies; or they are, and it was not noted yet. */
  readonly isDirty: boolean;
  /** What is being filled; null: nothing is. */
  filling(): Filling | null;
  /** Waits for what is in flight, if the lease lets it, and stops. */
  close(): Promise<void>;
}

export interface DiskResync extends Progress {
  readonly components: readonly ComponentId[];
}

export interface Filling {
  readonly next: Blueprint;
  readonly regionsLeft: number;
}
