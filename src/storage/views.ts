// What others see of VMs, objects and hosts: put together from the directory, the heartbeats and the
// disks that are open here, at the moment of the question.

import { HoldfastError } from '../model/errors.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Component, DiskRecord, NamespaceRecord } from '../model/record.ts';
import type { VmSpec } from '../model/vm.ts';
import type {
  Accessibility,
  ComponentState,
  ComponentView,
  ObjectView,
  StorageHostView,
  VmView,
} from './api.ts';
import {
  dataHosts,
  objectAccessibility,
  type StoreReachable,
  vmAccessibility,
} from './directory/accessibility.ts';
import type { Directory } from './directory/directory.ts';
import type { Heartbeats } from './lease/heartbeat.ts';
import type { PlacementHost } from './placement/placement.ts';

export interface Views {
  vm(record: NamespaceRecord): VmView;
  objects(record: NamespaceRecord): ObjectView[];
  accessibility(record: NamespaceRecord): Accessibility;
  hosts(): StorageHostView[];
  /** Hosts that could take components now. */
  placementHosts(): PlacementHost[];
  /** The record in the directory; throws `unknown-vm`. */
  known(vm: VmId): NamespaceRecord;
}

export function createViews(options: {
  readonly self: HostId;
  readonly directory: Directory;
  readonly heartbeats: Heartbeats;
  readonly members: () => readonly { readonly host: HostId; readonly kind: 'full' | 'witness' }[];
  /** The component is being brought up to date by this host. */
  readonly isResyncing: (vm: VmId, component: Component) => boolean;
}): Views {
  const { self, directory, heartbeats } = options;

  const reachable: StoreReachable = (host, store) => {
    const heard = heartbeats.heard(host);
    return (
      heard !== null &&
      heartbeats.isReachable(host) &&
      heard.store.problem === null &&
      heard.store.id === store
    );
  };

  const specs = new WeakMap<NamespaceRecord, VmSpec>();

  function specOf(record: NamespaceRecord): VmSpec {
    let spec = specs.get(record);
    if (spec === undefined) {
      spec = JSON.parse(record.files['vm.json'] ?? '{}') as VmSpec;
      specs.set(record, spec);
    }
    return spec;
  }

  const accessibility = (record: NamespaceRecord) => vmAccessibility(directory, record, reachable);

  function disksOf(record: NamespaceRecord): DiskRecord[] {
    return record.disks.flatMap((object) => directory.disk(object) ?? []);
  }

  function stateOf(record: DiskRecord, component: Component): ComponentState {
    if (!reachable(component.host, component.store)) return 'absent';
    if (record.inSync.includes(component.id)) return 'active';
    return options.isResyncing(record.vm, component) ? 'resyncing' : 'stale';
  }

  function componentViews(record: DiskRecord): ComponentView[] {
    return record.blueprint.mirrors.flatMap(({ stripes }, mirror) =>
      stripes.map((component, stripe) => ({
        component: component.id,
        host: component.host,
        mirror,
        stripe,
        state: stateOf(record, component),
      })),
    );
  }

  function objectView(record: NamespaceRecord | DiskRecord): ObjectView {
    return {
      object: record.id,
      vm: record.vm,
      kind: record.kind,
      name: record.name,
      sizeBytes: record.kind === 'disk' ? record.sizeBytes : 0,
      policy: record.policy,
      accessible: objectAccessibility(record, reachable),
      voters: record.voters.map((one) => one.host),
      components: record.kind === 'disk' ? componentViews(record) : [],
    };
  }

  return {
    accessibility,
    vm: (record) => ({
      vm: record.vm,
      name: record.name,
      spec: specOf(record),
      lifecycle: record.lifecycle,
      lock: record.lock,
      accessible: accessibility(record),
      dataHosts: dataHosts(disksOf(record)),
    }),
    objects: (record) => [record, ...disksOf(record)].map(objectView),
    hosts: () =>
      options.members().map(({ host }) => {
        const heard = heartbeats.heard(host);
        const problem = heard?.store.problem ?? null;
        return {
          host,
          reachable: heartbeats.isReachable(host),
          store: heard === null ? 'unknown' : problem === null ? 'ok' : 'failed',
          ...(problem === null ? {} : { problem }),
          totalBytes: heard?.store.totalBytes ?? 0,
          freeBytes: heard?.store.freeBytes ?? 0,
        };
      }),
    placementHosts: () =>
      options.members().flatMap(({ host, kind }) => {
        const store = heartbeats.heard(host)?.store;
        if (store === undefined || store.id === null || store.problem !== null) return [];
        if (!heartbeats.isReachable(host)) return [];
        return [{ host, kind, store: store.id, freeBytes: store.freeBytes }];
      }),
    known(vm) {
      const record = directory.namespace(vm);
      if (record === null)
        throw new HoldfastError('unknown-vm', `VM ${vm} is not known on ${self}`);
      return record;
    },
  };
}
