// Repair: what a host that does not come back has left. For each object some host is responsible at any
// time: the holder of its VM's lock, or, while nobody runs the VM, the first of its voters that
// is reached. It replaces voters whose hosts are gone (away for `repairDelay`, back with another store,
// or no member any more) and, of the disks that it has open, the copies there.
//
// To be wrong about who is responsible or gone does no harm: each step is a change of the object's record.

import type { EventType } from '../../model/events.ts';
import type { ComponentId, HostId, ObjectId, VmId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import {
  type Component,
  components,
  type DiskRecord,
  type NamespaceRecord,
  type ObjectRecord,
  type Voter,
  votersOf,
} from '../../model/record.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Directory } from '../directory/directory.ts';
import type { LeaseHolder } from '../lease/holder.ts';
import { type PlacementHost, placeAnother } from '../placement/placement.ts';
import type { Absence } from './absence.ts';
import { type VoterChange, withReplaced } from './voter-change.ts';

/** So many objects are repaired at once by one host. */
const maxRunning = 4;

export interface Repair {
  start(): void;
  stop(): void;
}

export function createRepair(options: {
  readonly self: HostId;
  readonly clock: Clock;
  readonly log: Log;
  readonly timings: Timings;
  readonly directory: Directory;
  readonly holder: LeaseHolder;
  readonly absence: Absence;
  readonly voterChange: VoterChange;
  readonly isReachable: (host: HostId) => boolean;
  readonly placementHosts: () => PlacementHost[];
  /** Puts a new component, which gets all data, in the place of one that does not count; false if this
   * host does not have the disk open. */
  readonly replaceCopy: (disk: DiskRecord, old: ComponentId, added: Component) => Promise<boolean>;
  readonly emit: (
    type: EventType,
    text: string,
    vm: { readonly vm: VmId; readonly name: string },
  ) => void;
}): Repair {
  const { self, clock, log, directory, holder, absence, voterChange } = options;
  const running = new Set<ObjectId>();
  /** Objects whose voters are being changed. */
  const joint = new Set<ObjectId>();
  /** What was told last of an object. */
  const troubles = new Map<ObjectId, string>();
  let timer: Timer | null = null;

  function notice(record: ObjectRecord): void {
    if (record.nextVoters === undefined || record.kind === 'tombstone') joint.delete(record.id);
    else joint.add(record.id);
  }
  for (const { record } of directory.entries()) notice(record);
  directory.onChange(notice);

  function look(): void {
    timer = clock.after(options.timings.repairIntervalMs, look);
    // With nobody gone there is nothing to do but to go on, and no object is looked at.
    if (absence.isAnyoneGone()) for (const { record } of directory.entries()) consider(record);
    else for (const object of joint) consider(directory.get(object)?.record);
  }

  function consider(record: ObjectRecord | undefined): void {
    if (record === undefined || record.kind === 'tombstone') return;
    if (running.size >= maxRunning || running.has(record.id)) return;
    const vm = record.kind === 'namespace' ? record : directory.namespace(record.vm);
    if (vm === null || vm.lifecycle !== 'ready' || !isMine(vm)) return;
    const step = nextStep(record, vm);
    if (step === null) return void troubles.delete(record.id);
    running.add(record.id);
    step()
      .catch((error: unknown) => tell(record, vm, error))
      .finally(() => running.delete(record.id));
  }

  function isMine(vm: NamespaceRecord): boolean {
    if (vm.lock.holder !== null) return vm.lock.holder === self && holder.isHeld(vm.vm);
    return votersOf(vm).find(({ host }) => options.isReachable(host))?.host === self;
  }

  function nextStep(
    record: NamespaceRecord | DiskRecord,
    vm: NamespaceRecord,
  ): (() => Promise<void>) | null {
    if (record.nextVoters !== undefined) {
      return async () => {
        if (await voterChange.end(record)) log.info(`${nameOf(record, vm)} has new voters`);
      };
    }
    const lost = record.kind === 'disk' ? lostComponent(record) : null;
    if (lost !== null && record.kind === 'disk' && vm.lock.holder === self) {
      return () => replaceComponent(record, vm, lost);
    }
    const leaving = record.voters.find(({ host, store }) => absence.isGone(host, store));
    return leaving === undefined ? null : () => replaceVoter(record, vm, leaving);
  }

  /** A component that the record does not count, on a host that is gone. */
  function lostComponent(record: DiskRecord): Component | null {
    return (
      components(record.blueprint).find(
        ({ id, host, store }) => !record.inSync.includes(id) && absence.isGone(host, store),
      ) ?? null
    );
  }

  async function replaceComponent(
    record: DiskRecord,
    vm: NamespaceRecord,
    lost: Component,
  ): Promise<void> {
    const name = nameOf(record, vm);
    const index = record.blueprint.mirrors.findIndex(({ stripes }) => stripes.includes(lost));
    // All stripes of a copy lie on one host: if one of them has been moved already, there.
    const moved = record.blueprint.mirrors[index]?.stripes.find(
      ({ host, store }) => !absence.isGone(host, store),
    );
    const place = moved ?? pick(record, lost.sizeBytes);
    const added: Component = {
      id: nextComponentId(record, lost),
      host: place.host,
      store: place.store,
      sizeBytes: lost.sizeBytes,
    };
    if (!(await options.replaceCopy(record, lost.id, added))) return;
    options.emit(
      'storage.rebuild',
      `The copy of ${name} on ${lost.host}, which is gone, is made anew on ${added.host}`,
      vm,
    );
  }

  async function replaceVoter(
    record: NamespaceRecord | DiskRecord,
    vm: NamespaceRecord,
    leaving: Voter,
  ): Promise<void> {
    // Where a copy of the data went its vote goes too.
    const copy =
      record.kind === 'disk'
        ? components(record.blueprint).find(
            ({ host, store }) => !absence.isGone(host, store) && !isVoter(record, host),
          )
        : undefined;
    const holdsData =
      record.kind === 'disk' &&
      components(record.blueprint).some(({ host, store }) => absence.isGone(host, store));
    if (copy === undefined && holdsData && vm.lock.holder !== null) return; // its copy goes first
    const { host, store } = copy ?? pick(record, null);
    await voterChange.begin(record, withReplaced(record.voters, leaving, { host, store }));
    options.emit(
      'storage.voterReplaced',
      `${nameOf(record, vm)}: the voter ${leaving.host}, which is gone, is replaced by ${host}`,
      vm,
    );
  }

  function isVoter(record: ObjectRecord, host: HostId): boolean {
    return record.voters.some((voter) => voter.host === host);
  }

  /** A host that has nothing of the object yet; see `placeAnother`. */
  function pick(record: NamespaceRecord | DiskRecord, copyBytes: number | null): PlacementHost {
    const places = record.kind === 'disk' ? components(record.blueprint) : [];
    const taken = new Set([...record.voters, ...places].map(({ host }) => host));
    return placeAnother(options.placementHosts(), taken, copyBytes);
  }

  function tell(record: ObjectRecord, vm: NamespaceRecord, error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    // It is tried again each time that it is looked at: told once.
    if (troubles.get(record.id) === text) return;
    troubles.set(record.id, text);
    log.warn(`${nameOf(record, vm)} is not repaired yet: ${text}`, { object: record.id });
  }

  return {
    start: look,
    stop: () => timer?.cancel(),
  };
}

function nameOf(record: ObjectRecord, vm: NamespaceRecord): string {
  return record.kind === 'disk' ? `${vm.name}/${record.name}` : vm.name;
}

/** `OBJECT.m1.s0` was the first in its place, `OBJECT.m1.s0.r2` is the next: no name comes twice. */
function nextComponentId(record: DiskRecord, lost: Component): ComponentId {
  const [, place = lost.id, count = '1'] = /^(.*\.m\d+\.s\d+)(?:\.r(\d+))?$/.exec(lost.id) ?? [];
  // The revision keeps apart what two hosts may both try to put there.
  return `${place}.r${Math.max(Number(count) + 1, record.revision + 1)}` as ComponentId;
}
