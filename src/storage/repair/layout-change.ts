// Does to a disk that this host has open what its policy asks for, one step at a time, and what repair
// asks for when a host is gone: components are made on other hosts, and the open disk takes them in.

import { HoldfastError } from '../../model/errors.ts';
import type { EventType } from '../../model/events.ts';
import { componentId, type HostId, type VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import {
  type Blueprint,
  type Component,
  components,
  type DiskRecord,
  type NamespaceRecord,
} from '../../model/record.ts';
import type { Peer } from '../../peer/peer.ts';
import type { CreateComponent } from '../disk/messages.ts';
import type { OpenDisk } from '../disk/open-disk.ts';
import {
  blueprint,
  type PlacementHost,
  placeAnother,
  placeObject,
} from '../placement/placement.ts';
import { hostsOfOthers, type LayoutStep, layoutStep } from './layout-step.ts';

/** A thick component takes as long as its zeros do: a device that is slower is taken for silent. */
const createTimeoutMs = 60_000;
const leastAllocatedBytesPerMs = 10_000;

export interface LayoutChange {
  /** The next step towards the policy, if there is one and this host has the disk open. */
  step(record: DiskRecord, vm: NamespaceRecord): (() => Promise<void>) | null;
  /** Makes a component and puts it in the place of one that does not count; false where the disk is not
   * open here. */
  replaceCopy(record: DiskRecord, old: Component, place: Place): Promise<boolean>;
}

type Place = Pick<Component, 'host' | 'store'>;

export function createLayoutChange(options: {
  readonly peer: Peer;
  /** Null: it is not open here. */
  readonly openDisk: (record: DiskRecord) => OpenDisk | null;
  readonly placementHosts: () => PlacementHost[];
  readonly isGone: (host: HostId) => boolean;
  readonly isLost: (component: Component) => boolean;
  readonly emit: (
    type: EventType,
    text: string,
    vm: { readonly vm: VmId; readonly name: string },
  ) => void;
}): LayoutChange {
  const { peer } = options;

  async function make(record: DiskRecord, component: Component, isThick: boolean): Promise<void> {
    const request: CreateComponent = {
      component: component.id,
      object: record.id,
      sizeBytes: component.sizeBytes,
      store: component.store,
      mustCopyAll: true,
      ...(isThick ? { thick: true } : {}),
    };
    const allocatedMs = isThick ? component.sizeBytes / leastAllocatedBytesPerMs : 0;
    const body = request as unknown as JsonValue;
    await peer.ask(component.host, 'component.create', body, createTimeoutMs + allocatedMs);
  }

  async function makeAll(record: DiskRecord, tree: Blueprint): Promise<void> {
    const isThick = tree.thick === true;
    await Promise.all(components(tree).map((component) => make(record, component, isThick)));
  }

  async function addMirror(record: DiskRecord, disk: OpenDisk): Promise<void> {
    const [model] = record.blueprint.mirrors;
    if (model === undefined) throw new HoldfastError('internal', `${record.id} has no mirror`);
    const taken = hostsOfOthers(record.blueprint);
    const sizeBytes = model.stripes.reduce((sum, one) => sum + one.sizeBytes, 0);
    const { policy } = record;
    const wish = { ...policy, stripes: model.stripes.length };
    const { host, store, stores } = placeAnother(options.placementHosts(), taken, sizeBytes, wish);
    const mirror = record.blueprint.mirrors.length;
    const suffix = disk.newSuffix();
    const stripes = model.stripes.map((one, stripe) => ({
      id: componentId(`${record.id}.m${mirror}.s${stripe}.${suffix}`),
      host,
      store: stores[stripe] ?? store,
      sizeBytes: one.sizeBytes,
    }));
    const isThick = record.blueprint.thick === true;
    await Promise.all(stripes.map((one) => make(record, one, isThick)));
    await disk.addMirror(stripes);
  }

  async function restripe(record: DiskRecord, disk: OpenDisk): Promise<void> {
    const { policy, sizeBytes } = record;
    const present = components(record.blueprint).map(({ host }) => host);
    const placed = placeObject(policy, sizeBytes, options.placementHosts(), [...new Set(present)]);
    const tree = blueprint(record.id, policy, sizeBytes, placed.dataHosts);
    const suffix = disk.newSuffix();
    const next: Blueprint = {
      ...tree,
      mirrors: tree.mirrors.map(({ stripes }) => ({
        stripes: stripes.map((one) => ({ ...one, id: componentId(`${one.id}.${suffix}`) })),
      })),
    };
    await disk.restripe(next, () => makeAll(record, next));
  }

  async function take(record: DiskRecord, step: LayoutStep, disk: OpenDisk): Promise<void> {
    switch (step.kind) {
      case 'restripe':
        return restripe(record, disk);
      case 'giveUp':
        return disk.giveUpNext(step.next, 'its policy asks for something else');
      case 'addMirror':
        return addMirror(record, disk);
      case 'removeMirror':
        return disk.removeMirror(step.gone);
    }
  }

  function siteOf(host: HostId): string {
    return options.placementHosts().find((one) => one.host === host)?.site ?? '';
  }

  return {
    step(record) {
      const disk = options.openDisk(record);
      if (disk === null) return null;
      const { next } = record;
      const isFilling = disk.filling() !== null;
      // The directory may not know yet what this very host has done.
      if (next === undefined && isFilling) return null;
      // It was given up, and the record could not be reached then.
      if (next !== undefined && !isFilling) return () => disk.giveUpNext(next, 'nobody fills it');
      const { isGone, isLost } = options;
      const step = layoutStep(record, { self: peer.self, isGone, isLost, siteOf });
      return step === null ? null : () => take(record, step, disk);
    },
    async replaceCopy(record, old, { host, store }) {
      const disk = options.openDisk(record);
      if (disk === null) return false;
      const [inTree = old.id] = /^.*\.m\d+\.s\d+/.exec(old.id) ?? [];
      const id = componentId(`${inTree}.${disk.newSuffix()}`);
      const added: Component = { id, host, store, sizeBytes: old.sizeBytes };
      await make(record, added, record.blueprint.thick === true);
      await disk.replaceCopy(old.id, added);
      return true;
    },
  };
}
