// Which VMs are accessible, for those who ask about all of them: kept up to date record by record and
// host by host, so that a host that comes or goes costs no look at each VM.
//
// A VM is accessible when all its *needs* are met, and a need is "so many of these stores are within
// reach": a majority of a group of voters, or one of the in-sync copies of a stripe. Equal needs are
// one, which knows its VMs; so their number grows with the ways to choose hosts and not with the VMs.
// A store that comes or goes changes some of its needs, and only the VMs of those are touched.
//
// What makes a VM accessible is said in accessibility.ts, which also gives the reasons; here is the
// same answer in another form, and accessible-vms.property.test.ts holds the two together.

import type { HostId, ObjectId, StoreId, VmId } from '../../model/ids.ts';
import { sameJson } from '../../model/json.ts';
import {
  type Component,
  type DiskRecord,
  groupsOf,
  majority,
  type NamespaceRecord,
  type ObjectRecord,
} from '../../model/record.ts';
import type { AccessScope } from '../api.ts';
import type { StoreReachable } from './accessibility.ts';
import type { Directory } from './directory.ts';

export interface IndexedVm {
  readonly vm: VmId;
  /** VMs in this order are in the order of `directory.namespaces()`. */
  readonly order: number;
  /** How many of its needs are not met, as of the last look; 0: it is accessible. */
  readonly unmet: number;
}

export interface AccessibleVms {
  /**
   * Takes in which stores are within reach now. That is a matter of the clock (a host that fell silent
   * is noticed by nobody until somebody looks), so whoever asks about VMs looks first: one comparison
   * for each store of the cluster. So nothing is told to be accessible later than accessibility.ts
   * would say, and all VMs are judged by the same state of the hosts.
   */
  look(): void;
  /** Null: there is no such VM in the directory. The same object for as long as there is. */
  get(vm: VmId): IndexedVm | null;
  /** Those that became accessible since the last call and still are, in the order of the directory; also those that
   * were so at the last call: who asked in between may have been told that they are not. */
  takeNews(): VmId[];
  /** Called when there may be news again, once until they are taken. */
  onNews(listener: () => void): void;
  /** Called when a need is met that was not: some object may have become accessible. */
  onMet(listener: () => void): void;
}

type OnStore = Pick<Component, 'host' | 'store'>;

/** A store of a host, as something that voters and copies are on. */
interface Place {
  readonly number: number;
  readonly host: HostId;
  readonly store: StoreId;
  isWithinReach: boolean;
  readonly needs: Set<Need>;
}

interface Need {
  readonly key: string;
  readonly places: readonly Place[];
  readonly atLeast: number;
  isMet: boolean;
  readonly vms: Set<Entry>;
}

interface Entry extends IndexedVm {
  needs: readonly Need[];
  unmet: number;
  /** It was in the news, and has been accessible all the time since. */
  isKnown: boolean;
  isTouched: boolean;
}

export function createAccessibleVms(
  directory: Directory,
  reachable: StoreReachable,
  scope: AccessScope = 'vm',
): AccessibleVms {
  const vms = new Map<VmId, Entry>();
  const needs = new Map<string, Need>();
  const places = new Map<HostId, Map<StoreId, Place>>();
  const listeners: (() => void)[] = [];
  const metListeners: (() => void)[] = [];
  /** VMs that became accessible or inaccessible since the news were taken. */
  let touched: Entry[] = [];
  let nextOrder = 0;
  let nextPlace = 0;

  function placeOf({ host, store }: OnStore): Place {
    let ofHost = places.get(host);
    if (ofHost === undefined) places.set(host, (ofHost = new Map()));
    let place = ofHost.get(store);
    if (place === undefined) {
      const isWithinReach = reachable(host, store);
      place = { number: nextPlace++, host, store, isWithinReach, needs: new Set() };
      ofHost.set(store, place);
    }
    return place;
  }

  function needOf(on: readonly OnStore[], atLeast: number): Need {
    const its = on.map(placeOf).sort(byNumber);
    let key = `${atLeast}`;
    for (const { number } of its) key += `,${number}`;
    let need = needs.get(key);
    if (need === undefined) {
      need = { key, places: its, atLeast, isMet: false, vms: new Set() };
      need.isMet = isMet(need);
      needs.set(key, need);
      for (const place of its) place.needs.add(need);
    }
    return need;
  }

  function needsOf(record: NamespaceRecord): Need[] {
    const found: Need[] = [];
    const add = (on: readonly OnStore[], atLeast: number) => {
      const need = needOf(on, atLeast);
      if (!found.includes(need)) found.push(need);
    };
    const addVoters = (object: ObjectRecord) => {
      for (const group of groupsOf(object)) add(group, majority(group.length));
    };
    addVoters(record);
    if (scope === 'namespace') return found;
    for (const object of requiredDisks(record)) {
      const disk = directory.disk(object);
      if (disk === null) {
        add([], 1); // what is not known can not be reached
        continue;
      }
      addVoters(disk);
      for (const copies of copiesInSync(disk)) add(copies, 1);
    }
    return found;
  }

  function leave(need: Need, entry: Entry): void {
    need.vms.delete(entry);
    if (need.vms.size > 0) return;
    needs.delete(need.key);
    for (const place of need.places) {
      place.needs.delete(need);
      if (place.needs.size > 0) continue;
      const ofHost = places.get(place.host);
      ofHost?.delete(place.store);
      if (ofHost?.size === 0) places.delete(place.host);
    }
  }

  function setUnmet(entry: Entry, unmet: number): void {
    const isOther = (unmet === 0) !== (entry.unmet === 0);
    entry.unmet = unmet;
    if (unmet > 0) entry.isKnown = false;
    if (!isOther || entry.isTouched) return;
    entry.isTouched = true;
    touched.push(entry);
    if (touched.length === 1) for (const listener of listeners) listener();
  }

  function reindex(vm: VmId): void {
    const record = directory.namespace(vm);
    let entry = vms.get(vm);
    if (record === null) {
      if (entry === undefined) return;
      vms.delete(vm);
      for (const need of entry.needs) leave(need, entry);
      setUnmet(entry, 1);
      return;
    }
    if (entry === undefined) {
      const order = nextOrder++;
      entry = { vm, order, needs: [], unmet: 1, isKnown: false, isTouched: false };
      vms.set(vm, entry);
    }
    const before = entry.needs;
    const now = needsOf(record);
    for (const need of now) need.vms.add(entry);
    for (const need of before) if (!now.includes(need)) leave(need, entry);
    entry.needs = now;
    setUnmet(entry, now.filter((need) => !need.isMet).length);
    if (now.some((need) => need.isMet)) tellMet();
    for (const need of now) lookAt(need.places);
  }

  function lookAt(some: readonly Place[]): void {
    const moved: Place[] = [];
    for (const place of some) {
      if (reachable(place.host, place.store) === place.isWithinReach) continue;
      place.isWithinReach = !place.isWithinReach;
      moved.push(place);
    }
    let isSomeMet = false;
    for (const { needs: its } of moved) {
      for (const need of its) {
        if (isMet(need) === need.isMet) continue;
        need.isMet = !need.isMet;
        isSomeMet ||= need.isMet;
        const step = need.isMet ? -1 : 1;
        for (const entry of need.vms) setUnmet(entry, entry.unmet + step);
      }
    }
    if (isSomeMet) tellMet();
  }

  function tellMet(): void {
    for (const listener of metListeners) listener();
  }

  for (const { vm } of directory.namespaces()) reindex(vm);
  directory.onChange((record, previous) => {
    if (previous === null || !needsTheSame(previous, record)) reindex(record.vm);
  });

  return {
    look() {
      lookAt([...places.values()].flatMap((ofHost) => [...ofHost.values()]));
    },
    get: (vm) => vms.get(vm) ?? null,
    takeNews() {
      const looked = touched;
      touched = [];
      const became: Entry[] = [];
      for (const entry of looked) {
        entry.isTouched = false;
        if (entry.unmet > 0 || entry.isKnown) continue;
        entry.isKnown = true;
        became.push(entry);
      }
      return became.sort(byOrder).map(({ vm }) => vm);
    },
    onNews(listener) {
      listeners.push(listener);
      if (touched.length > 0) listener();
    },
    onMet: (listener) => void metListeners.push(listener),
  };
}

const byNumber = (a: Place, b: Place) => a.number - b.number;
const byOrder = (a: Entry, b: Entry) => a.order - b.order;

function isMet({ places, atLeast }: Need): boolean {
  let count = 0;
  for (const place of places) if (place.isWithinReach) count += 1;
  return count >= atLeast;
}

function requiredDisks({ disks, optional = [] }: NamespaceRecord): ObjectId[] {
  return disks.filter((object) => !optional.includes(object));
}

/** For each stripe its copies that count. */
function copiesInSync({ blueprint, inSync }: DiskRecord): Component[][] {
  const stripes = blueprint.mirrors[0]?.stripes ?? [];
  return stripes.map((_, stripe) =>
    blueprint.mirrors
      .flatMap((mirror) => mirror.stripes[stripe] ?? [])
      .filter((component) => inSync.includes(component.id)),
  );
}

/** Most changes are of locks, fences and metadata, and every host hears of each. */
function needsTheSame(a: ObjectRecord, b: ObjectRecord): boolean {
  if (!onSameStores(a.voters, b.voters)) return false;
  if (!onSameStores(a.nextVoters ?? [], b.nextVoters ?? [])) return false;
  if ((a.nextVoters === undefined) !== (b.nextVoters === undefined)) return false;
  if (a.kind === 'namespace' && b.kind === 'namespace') {
    return sameJson(a.disks, b.disks) && sameJson(a.optional, b.optional);
  }
  if (a.kind !== 'disk' || b.kind !== 'disk') return a.kind === b.kind;
  return sameJson(a.inSync, b.inSync) && sameJson(a.blueprint as never, b.blueprint as never);
}

function onSameStores(a: readonly OnStore[], b: readonly OnStore[]): boolean {
  if (a === b) return true;
  return (
    a.length === b.length &&
    a.every(({ host, store }, index) => host === b[index]?.host && store === b[index].store)
  );
}
