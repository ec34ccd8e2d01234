// What others see of VMs, objects and hosts: put together from the directory, the heartbeats and the
// disks that are open here, at the moment of the question.

import { mainDeviceName } from '../model/device.ts';
import { HoldfastError } from '../model/errors.ts';
import type { HostId, ObjectId, StoreId, VmId } from '../model/ids.ts';
import {
  type Blueprint,
  type Component,
  components,
  type DiskRecord,
  type Lock,
  type NamespaceRecord,
  votersOf,
} from '../model/record.ts';
import type { VmSpec } from '../model/vm.ts';
import type {
  Accessibility,
  AccessScope,
  ComponentState,
  ComponentView,
  DeviceView,
  ObjectView,
  StorageHostView,
  VmView,
  VoteView,
} from './api.ts';
import { complianceProblems } from './compliance.ts';
import {
  classOf,
  type DeviceReport,
  devicesOf,
  deviceWith,
  nameOf,
  type StoreReport,
} from './devices/report.ts';
import {
  dataHosts,
  accessible as isAccessible,
  objectAccessibility,
  type StoreReachable,
  vmAccessibility,
} from './directory/accessibility.ts';
import type { AccessibleVms } from './directory/accessible-vms.ts';
import type { Directory } from './directory/directory.ts';
import { type Fill, fillOf, usualThresholds } from './fill.ts';
import type { Heartbeats } from './lease/heartbeat.ts';
import type { PlacementDevice, PlacementHost } from './placement/placement.ts';
import type { StoreUsage } from './placement/usage.ts';
import { detachedDisks } from './required.ts';
import type { ObjectResync } from './resync-news.ts';

export interface StoreMember {
  readonly host: HostId;
  readonly kind: 'full' | 'witness';
  readonly site?: string | null;
}

/** From so many VMs on a look at the stores of all hosts is less than one at the records of each VM. */
const manyVms = 16;

export interface Views {
  vm(record: NamespaceRecord): VmView;
  vms(): VmView[];
  objects(record: NamespaceRecord): ObjectView[];
  object(object: ObjectId): ObjectView | null;
  /** To be asked about each of these VMs, at once. */
  accessibilityAmong(
    records: readonly NamespaceRecord[],
  ): (record: NamespaceRecord) => Accessibility;
  /** Of these VMs, or of all. */
  accessibility(vms?: readonly VmId[], scope?: AccessScope): Map<VmId, Accessibility>;
  hosts(): StorageHostView[];
  /** Hosts that could take components now. */
  placementHosts(): PlacementHost[];
  /** The record in the directory; throws `unknown-vm`. */
  known(vm: VmId): NamespaceRecord;
}

/** The host answers, and has a device that is this store, and it works. */
export function storesWithinReach(heartbeats: Heartbeats): StoreReachable {
  return (host, store) => {
    const heard = heartbeats.heard(host);
    return (
      heard !== null &&
      heartbeats.isReachable(host) &&
      deviceWith(heard.store, store)?.problem === null
    );
  };
}

export function createViews(options: {
  readonly self: HostId;
  readonly directory: Directory;
  readonly heartbeats: Heartbeats;
  readonly reachable: StoreReachable;
  readonly accessibleVms: AccessibleVms;
  readonly members: () => readonly StoreMember[];
  readonly usage: (store: StoreId) => StoreUsage;
  /** What of the object is being brought up to date, by whichever host. */
  readonly resyncOf: (object: ObjectId) => ObjectResync | null;
}): Views {
  const { self, directory, heartbeats, reachable, accessibleVms } = options;

  const specs = new WeakMap<NamespaceRecord, VmSpec>();

  function specOf(record: NamespaceRecord): VmSpec {
    let spec = specs.get(record);
    if (spec === undefined) {
      spec = JSON.parse(record.files['vm.json'] ?? '{}') as VmSpec;
      specs.set(record, spec);
    }
    return spec;
  }

  function accessibility(record: NamespaceRecord): Accessibility {
    const answer = vmAccessibility(directory, record, reachable);
    // Who is told that it is not counts on being told when it is again: the index must have seen it, too.
    const isUnseen = !answer.accessible && accessibleVms.get(record.vm)?.unmet === 0;
    if (isUnseen) accessibleVms.look();
    return answer;
  }

  function accessibilityAmong(records: readonly NamespaceRecord[]): typeof accessibility {
    if (records.length < manyVms) return accessibility;
    accessibleVms.look();
    return (record) =>
      accessibleVms.get(record.vm)?.unmet === 0 ? isAccessible : accessibility(record);
  }

  function vmView(record: NamespaceRecord, accessible: Accessibility): VmView {
    return {
      vm: record.vm,
      name: record.name,
      spec: specOf(record),
      lifecycle: record.lifecycle,
      ...lockView(record.lock),
      accessible,
      dataHosts: dataHosts(disksOf(record)),
      revision: record.revision,
      detached: detachedDisks(record),
    };
  }

  function lockView(lock: Lock): Pick<VmView, 'lock' | 'repairedBy'> {
    if (lock.use !== 'repair') return { lock, repairedBy: null };
    return { lock: { holder: null, epoch: lock.epoch }, repairedBy: lock.holder };
  }

  function disksOf(record: NamespaceRecord): DiskRecord[] {
    return record.disks.flatMap((object) => directory.disk(object) ?? []);
  }

  /** Null: within reach. `degraded` will not come back by itself. */
  function troubleOf(host: HostId, store: StoreId): 'absent' | 'degraded' | null {
    if (reachable(host, store)) return null;
    return heartbeats.isReachable(host) && heartbeats.heard(host) !== null ? 'degraded' : 'absent';
  }

  function stateOf(record: DiskRecord, component: Component): ComponentState {
    const trouble = troubleOf(component.host, component.store);
    if (trouble !== null) return trouble;
    if (record.inSync.includes(component.id)) return 'active';
    const isResynced = options.resyncOf(record.id)?.components.includes(component.id) === true;
    return isResynced ? 'resyncing' : 'stale';
  }

  /** Null where there is no choice. */
  function deviceName({ host, store }: Component): string | null {
    const report = heartbeats.heard(host)?.store;
    if (report?.devices === undefined) return null;
    const device = deviceWith(report, store);
    return device === null ? `${store}, which ${host} does not have now` : nameOf(device);
  }

  function deviceView(device: DeviceReport, report: StoreReport): DeviceView {
    return {
      store: device.id,
      name: nameOf(device),
      class: classOf(device),
      problem: device.problem,
      totalBytes: device.totalBytes,
      freeBytes: device.freeBytes,
      fill: fillOf(device, report.thresholds),
      latencyMs: device.latencyMs ?? null,
      components: device.id === null ? 0 : options.usage(device.id).components,
    };
  }

  function storageHostView({ host, site = null }: StoreMember): StorageHostView {
    const report = heartbeats.heard(host)?.store;
    const devices =
      report === undefined ? [] : devicesOf(report).map((one) => deviceView(one, report));
    const problem = report?.problem ?? null;
    const sum = (of: (device: DeviceView) => number) =>
      devices.reduce((total, device) => total + of(device), 0);
    return {
      host,
      reachable: heartbeats.isReachable(host),
      store: report === undefined ? 'unknown' : problem === null ? 'ok' : 'failed',
      ...(problem === null ? {} : { problem }),
      site,
      fill: fillOfAll(devices),
      totalBytes: sum(({ totalBytes }) => totalBytes),
      freeBytes: sum(({ freeBytes }) => freeBytes),
      components: sum(({ components }) => components),
      devices,
    };
  }

  function placementHost({ host, kind, site = null }: StoreMember): PlacementHost | null {
    const store = heartbeats.heard(host)?.store;
    if (store === undefined || store.id === null || store.problem !== null) return null;
    if (!heartbeats.isReachable(host)) return null;
    const { fullAtPercent } = store.thresholds ?? usualThresholds;
    const devices = devicesOf(store).flatMap((device): PlacementDevice[] => {
      const { id, problem, freeBytes, totalBytes } = device;
      if (id === null || problem !== null) return [];
      const space = { freeBytes, totalBytes, fullAtPercent };
      return [
        { store: id, name: nameOf(device), class: classOf(device), ...space, ...options.usage(id) },
      ];
    });
    const { freeBytes, totalBytes } = store;
    const space = { freeBytes, totalBytes, fullAtPercent };
    return { host, kind, site, store: store.id, ...space, ...options.usage(store.id), devices };
  }

  function componentViews(
    tree: Blueprint,
    state: (component: Component) => ComponentState,
  ): ComponentView[] {
    return tree.mirrors.flatMap(({ stripes }, mirror) =>
      stripes.map((component, stripe) => ({
        component: component.id,
        host: component.host,
        mirror,
        stripe,
        state: state(component),
        device: deviceName(component),
      })),
    );
  }

  function treesOf(record: DiskRecord): Pick<ObjectView, 'components' | 'next'> {
    const filled = ({ host, store }: Component) => troubleOf(host, store) ?? 'resyncing';
    return {
      components: componentViews(record.blueprint, (one) => stateOf(record, one)),
      next: record.next === undefined ? [] : componentViews(record.next, filled),
    };
  }

  function resyncView(object: ObjectId): ObjectView['resync'] {
    const found = options.resyncOf(object);
    if (found === null) return null;
    const { bytesDone, bytesLeft, bytesPerSecond, secondsLeft } = found;
    return { bytesDone, bytesLeft, bytesPerSecond, secondsLeft };
  }

  function voteViews(record: NamespaceRecord | DiskRecord): VoteView[] {
    const withData = new Set(
      record.kind === 'disk' ? components(record.blueprint).map((one) => one.host) : [],
    );
    return votersOf(record).map(({ host, store }) => ({
      host,
      role: withData.has(host) ? 'data' : 'witness',
      state: troubleOf(host, store) ?? 'reachable',
    }));
  }

  function objectView(record: NamespaceRecord | DiskRecord): ObjectView {
    const accessible = objectAccessibility(record, reachable);
    const view = {
      object: record.id,
      vm: record.vm,
      kind: record.kind,
      name: record.name,
      sizeBytes: record.kind === 'disk' ? record.sizeBytes : 0,
      policy: record.policy,
      accessible,
      voters: record.voters.map((one) => one.host),
      ...(record.kind === 'disk' ? treesOf(record) : { components: [], next: [] }),
      votes: voteViews(record),
      inSync: record.kind === 'disk' ? record.inSync : [],
      resync: record.kind === 'disk' ? resyncView(record.id) : null,
    };
    const isThick = record.kind !== 'disk' || record.blueprint.thick === true;
    return { ...view, problems: complianceProblems(view, isThick) };
  }

  function accessibilityOfAll(
    vms: readonly VmId[] = directory.namespaces().map(({ vm }) => vm),
    scope: AccessScope = 'vm',
  ): Map<VmId, Accessibility> {
    const known = vms.flatMap((vm) => directory.namespace(vm) ?? []);
    const accessibilityOf =
      scope === 'vm'
        ? accessibilityAmong(known)
        : (record: NamespaceRecord) => objectAccessibility(record, reachable);
    return new Map(
      vms.map((vm) => {
        const record = directory.namespace(vm);
        const text = `VM ${vm} is not known here`;
        if (record !== null) return [vm, accessibilityOf(record)];
        return [vm, { accessible: false, object: null, hosts: [], text }];
      }),
    );
  }

  return {
    accessibilityAmong,
    accessibility: accessibilityOfAll,
    vm: (record) => vmView(record, accessibility(record)),
    vms() {
      const records = directory.namespaces();
      const accessibilityOf = accessibilityAmong(records);
      return records.map((record) => vmView(record, accessibilityOf(record)));
    },
    objects: (record) => [record, ...disksOf(record)].map(objectView),
    object(object) {
      const record = directory.get(object)?.record;
      return record === undefined || record.kind === 'tombstone' ? null : objectView(record);
    },
    hosts: () => options.members().map(storageHostView),
    placementHosts: () => options.members().flatMap((member) => placementHost(member) ?? []),
    known(vm) {
      const record = directory.namespace(vm);
      if (record === null)
        throw new HoldfastError('unknown-vm', `VM ${vm} is not known on ${self}`);
      return record;
    },
  };
}

/** Of a host: it is full when none of its devices has room, and told of before. */
function fillOfAll(devices: readonly DeviceView[]): Fill {
  const used = devices.filter(({ problem, name }) => problem === null || name === mainDeviceName);
  if (used.length > 0 && used.every(({ fill }) => fill === 'full')) return 'full';
  return used.every(({ fill }) => fill === 'ok') ? 'ok' : 'nearFull';
}
