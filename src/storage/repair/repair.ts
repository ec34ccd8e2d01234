// Repair: what a host that does not come back has left, and what an object lacks of its policy. For each
// object some host is responsible at any time: the holder of its VM's lock, or, while nobody runs the VM,
// the first of its voters that is reached. It makes the tree of the disks that it has open, and the
// voters of its objects, as their policies say; it replaces voters whose hosts are gone (away for
// `repairDelay`, back with another store, or no member any more) and, of the open disks, the copies there.
//
// To be wrong about who is responsible or gone does no harm: each step is a change of the object's record.

import type { EventType } from '../../model/events.ts';
import type { HostId, ObjectId, VmId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import {
  type Component,
  components,
  type DiskRecord,
  type NamespaceRecord,
  nextJoined,
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
import type { LayoutChange } from './layout-change.ts';
import { isLaidOut } from './layout-step.ts';
import { isSamePolicy, type PolicyChange } from './policy-change.ts';
import { type VoterChange, withReplaced } from './voter-change.ts';
import { isVotedFor, wantedVoters } from './wanted-voters.ts';

/** So many objects are repaired at once by one host. */
const maxRunning = 4;

interface Step {
  readonly what: 'policy' | 'copy' | 'voter' | 'voters';
  readonly run: () => Promise<void>;
}

/** Of an object. */
interface Trouble {
  /** Since a step was done last. */
  failures: number;
  /** What was told last of each. */
  readonly told: Map<Step['what'], string>;
}

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
  readonly layoutChange: LayoutChange;
  readonly policyChange: PolicyChange;
  readonly emit: (
    type: EventType,
    text: string,
    vm: { readonly vm: VmId; readonly name: string },
  ) => void;
}): Repair {
  const { self, clock, log, directory, holder, absence, voterChange } = options;
  const running = new Set<ObjectId>();
  /** Objects that are not as their policies say, or whose voters are being changed. */
  const unfinished = new Set<ObjectId>();
  const troubles = new Map<ObjectId, Trouble>();
  let timer: Timer | null = null;

  function notice(record: ObjectRecord, previous: ObjectRecord | null): void {
    const mayFollow = askedToFollow(record, previous);
    if (record.kind === 'tombstone' || isFinished(record)) unfinished.delete(record.id);
    else unfinished.add(record.id);
    if (mayFollow !== null && !options.policyChange.isFollowing(mayFollow))
      unfinished.add(mayFollow.id);
  }

  /** The namespace object of a disk with another policy; and whoever knows one of the two only now can not tell
   * whether it has followed. To look at each of its changes would cost more than they do. */
  function askedToFollow(
    record: ObjectRecord,
    previous: ObjectRecord | null,
  ): NamespaceRecord | null {
    if (record.kind === 'namespace') {
      return previous === null || unfinished.has(record.id) ? record : null;
    }
    if (record.kind !== 'disk') return null;
    const isAsBefore = previous !== null && isSamePolicy(record.policy, previous.policy);
    return isAsBefore ? null : directory.namespace(record.vm);
  }

  function isFinished(record: NamespaceRecord | DiskRecord): boolean {
    if (record.nextVoters !== undefined) return false;
    if (record.kind === 'namespace') {
      return isVotedFor({ ...record, data: [] }) && options.policyChange.isAsTolerant(record);
    }
    return isLaidOut(record) && isVotedFor({ ...record, data: components(record.blueprint) });
  }

  for (const { record } of directory.entries()) notice(record, null);
  directory.onChange(notice);

  function look(): void {
    timer = clock.after(options.timings.repairIntervalMs, look);
    // With nobody gone there is nothing to do but to go on, and no object is looked at.
    if (absence.isAnyoneGone()) for (const { record } of directory.entries()) consider(record);
    else for (const object of unfinished) consider(directory.get(object)?.record);
  }

  function consider(record: ObjectRecord | undefined): void {
    if (record === undefined || record.kind === 'tombstone') return;
    if (running.size >= maxRunning || running.has(record.id)) return;
    const vm = record.kind === 'namespace' ? record : directory.namespace(record.vm);
    if (vm === null || vm.lifecycle !== 'ready' || !isMine(vm)) return;
    const steps = possibleSteps(record, vm);
    // What has failed must not keep back what can be done: they are tried in turn.
    const step = steps[(troubles.get(record.id)?.failures ?? 0) % Math.max(1, steps.length)];
    if (step === undefined) {
      if (isFinished(record)) unfinished.delete(record.id);
      return void troubles.delete(record.id);
    }
    running.add(record.id);
    step
      .run()
      .then(
        () => succeeded(record, step),
        (error: unknown) => failed(record, vm, step, error),
      )
      .finally(() => running.delete(record.id));
  }

  function isMine(vm: NamespaceRecord): boolean {
    if (vm.lock.holder !== null) return vm.lock.holder === self && holder.isHeld(vm.vm);
    return votersOf(vm).find(({ host }) => options.isReachable(host))?.host === self;
  }

  /** The first is to be done, if it can be. */
  function possibleSteps(record: NamespaceRecord | DiskRecord, vm: NamespaceRecord): Step[] {
    if (record.nextVoters !== undefined) return [{ what: 'voters', run: () => end(record, vm) }];
    if (record.kind === 'namespace' && !options.policyChange.isFollowing(record)) {
      return [{ what: 'policy', run: () => options.policyChange.follow(record) }];
    }
    const steps: Step[] = [];
    if (record.kind === 'disk' && vm.lock.holder === self) {
      const towards = options.layoutChange.step(record, vm);
      if (towards !== null) steps.push({ what: 'policy', run: towards });
      const lost = lostComponent(record);
      if (lost !== null) {
        steps.push({ what: 'copy', run: () => replaceComponent(record, vm, lost) });
      }
    }
    const isSettled = steps.length === 0;
    const leaving = goneVoter(record);
    if (leaving !== undefined) {
      if (isCopyFirst(record, vm)) return steps;
      steps.push({ what: 'voter', run: () => replaceVoter(record, vm, leaving) });
    }
    // The objects of a VM share their voters; those of its disks are where the data goes.
    const isLast = record.kind === 'disk' || !vm.disks.some((disk) => unfinished.has(disk));
    if (isSettled && isLast && hasWrongVoters(record)) {
      steps.push({ what: 'voters', run: () => changeVoters(record, vm) });
    }
    return steps;
  }

  async function end(record: NamespaceRecord | DiskRecord, vm: NamespaceRecord): Promise<void> {
    if (await voterChange.end(record)) log.info(`${nameOf(record, vm)} has new voters`);
  }

  /** Of a disk only once its tree is as it shall be: votes go where data went. */
  function hasWrongVoters(record: NamespaceRecord | DiskRecord): boolean {
    if (record.kind === 'namespace') return !isVotedFor({ ...record, data: [] });
    return isLaidOut(record) && !isVotedFor({ ...record, data: dataOf(record) });
  }

  /** Where there is data that can be had: a host that is gone is no voter for the data that it had. */
  function dataOf(record: DiskRecord): Component[] {
    return components(record.blueprint).filter(({ host, store }) => !absence.isGone(host, store));
  }

  async function changeVoters(
    record: NamespaceRecord | DiskRecord,
    vm: NamespaceRecord,
  ): Promise<void> {
    const objects = [vm.id, ...vm.disks].filter((object) => object !== record.id);
    const preferred = objects.flatMap((object) => directory.get(object)?.record.voters ?? []);
    const next = wantedVoters({
      policy: record.policy,
      voters: record.voters,
      joined: nextJoined(record),
      data: record.kind === 'disk' ? dataOf(record) : [],
      preferred: new Set(preferred.map(({ host }) => host)),
      isReachable: options.isReachable,
      hosts: options.placementHosts(),
    });
    await voterChange.begin(record, next);
    const hosts = next.map(({ host }) => host).join(', ');
    log.info(`${nameOf(record, vm)} gets the voters that its policy asks for: ${hosts}`);
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
    const place = placeFor(record, lost);
    if (!(await options.layoutChange.replaceCopy(record, lost, place))) return;
    const what = place.host === lost.host ? `a device of ${lost.host}` : lost.host;
    const where = place.host === lost.host ? 'another one' : place.host;
    options.emit(
      'storage.rebuild',
      `The copy of ${name} on ${what}, which is gone, is made anew on ${where}`,
      vm,
    );
  }

  /** A copy on what is gone will be made anew somewhere, and the vote is to go there, too. */
  function isCopyFirst(record: NamespaceRecord | DiskRecord, vm: NamespaceRecord): boolean {
    if (record.kind !== 'disk' || vm.lock.holder === null) return false;
    const isOnGone = components(record.blueprint).some(({ host, store }) =>
      absence.isGone(host, store),
    );
    return isOnGone && movedCopy(record) === undefined;
  }

  /** One whose host is back with another store before one that needs another host, which there may not be. */
  function goneVoter(record: ObjectRecord): Voter | undefined {
    const gone = record.voters.filter(({ host, store }) => absence.isGone(host, store));
    return gone.find(({ host }) => voterAt(host) !== null) ?? gone[0];
  }

  /** Where a copy of the data went that is to vote. */
  function movedCopy(record: NamespaceRecord | DiskRecord): Component | undefined {
    if (record.kind !== 'disk') return undefined;
    return components(record.blueprint).find(
      ({ host, store }) => !absence.isGone(host, store) && !isVoter(record, host),
    );
  }

  async function replaceVoter(
    record: NamespaceRecord | DiskRecord,
    vm: NamespaceRecord,
    leaving: Voter,
  ): Promise<void> {
    const { host, store } =
      voterAt(movedCopy(record)?.host) ?? voterAt(leaving.host) ?? pick(record, null);
    await voterChange.begin(record, withReplaced(record, leaving, { host, store }));
    const by = host === leaving.host ? 'the store that it has now' : host;
    options.emit(
      'storage.voterReplaced',
      `${nameOf(record, vm)}: the voter ${leaving.host}, which is gone, is replaced by ${by}`,
      vm,
    );
  }

  function isVoter(record: ObjectRecord, host: HostId): boolean {
    return record.voters.some((voter) => voter.host === host);
  }

  /** As a voter it is named by its main device, whichever its copy is on. Null where that can not be used. */
  function voterAt(host: HostId | undefined): Pick<Voter, 'host' | 'store'> | null {
    const found = options.placementHosts().find((one) => one.host === host);
    return found === undefined || absence.isGone(found.host, found.store) ? null : found;
  }

  /** All stripes of a copy lie on one host: if one of them is there, or has been moved already, the others
   * go there too, to whichever device has room. So does what was on a device that failed alone, or has been replaced.
   * Never to a host that has another copy: one failure would take both. */
  function placeFor(record: DiskRecord, lost: Component): Pick<Component, 'host' | 'store'> {
    const { mirrors } = record.blueprint;
    const mirror = mirrors.find(({ stripes }) => stripes.includes(lost));
    const others = mirrors.filter((one) => one !== mirror).flatMap(({ stripes }) => stripes);
    const isFree = ({ host }: Pick<Component, 'host'>) => others.every((one) => one.host !== host);
    const moved = mirror?.stripes.find(
      (one) => isFree(one) && !absence.isGone(one.host, one.store),
    );
    const canStay = isFree(lost) && voterAt(lost.host) !== null;
    const host = moved?.host ?? (canStay ? lost.host : undefined);
    const hosts = options.placementHosts().filter((one) => one.host === host);
    try {
      const wish = { ...record.policy, stripes: 1 };
      return placeAnother(hosts, new Set(), lost.sizeBytes, wish);
    } catch {
      return moved ?? pick(record, lost.sizeBytes);
    }
  }

  /** A host that has nothing of the object yet; see `placeAnother`. */
  function pick(
    record: NamespaceRecord | DiskRecord,
    copyBytes: number | null,
  ): Pick<Voter, 'host' | 'store'> {
    const places = record.kind === 'disk' ? components(record.blueprint) : [];
    const taken = new Set([...record.voters, ...places].map(({ host }) => host));
    const wish = { ...record.policy, stripes: 1 };
    return placeAnother(options.placementHosts(), taken, copyBytes, wish);
  }

  function succeeded(record: ObjectRecord, { what }: Step): void {
    const trouble = troubles.get(record.id);
    if (trouble === undefined) return;
    trouble.failures = 0;
    trouble.told.delete(what);
  }

  function failed(record: ObjectRecord, vm: NamespaceRecord, { what }: Step, error: unknown): void {
    const trouble = troubles.get(record.id) ?? { failures: 0, told: new Map() };
    troubles.set(record.id, trouble);
    trouble.failures += 1;
    const text = error instanceof Error ? error.message : String(error);
    // It is tried again each time that it is looked at: told once.
    if (trouble.told.get(what) === text) return;
    trouble.told.set(what, text);
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
