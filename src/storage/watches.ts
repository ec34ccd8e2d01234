// Tells who wants to know that VMs became accessible, or that a service's metadata changed. Changes
// that come together are told together.

import type { VmId } from '../model/ids.ts';
import { sameJson } from '../model/json.ts';
import type { NamespaceRecord, ObjectRecord } from '../model/record.ts';
import type { Clock } from '../ports/clock.ts';
import type { Accessibility } from './api.ts';
import type { Directory } from './directory/directory.ts';
import type { Heartbeats } from './lease/heartbeat.ts';

type Listener = (vms: readonly VmId[]) => void;

export function watchVms(options: {
  readonly clock: Clock;
  readonly directory: Directory;
  readonly heartbeats: Heartbeats;
  readonly accessibility: (record: NamespaceRecord) => Accessibility;
}): {
  onAccessible(listener: Listener): void;
  onMetadata(service: string, listener: Listener): void;
  stop(): void;
} {
  const { clock, directory } = options;
  const accessible = new Set<VmId>();
  const accessListeners: Listener[] = [];
  const metadataListeners: { service: string; listener: Listener }[] = [];
  let changed = new Map<string, Set<VmId>>();
  /** VMs with changed records; null: hosts came or went, so each VM has to be looked at. */
  let dirty: Set<VmId> | null = new Set();
  let soon = false;
  let stopped = false;

  function later(): void {
    if (soon) return;
    soon = true;
    clock.defer(() => {
      soon = false;
      if (!stopped) tell();
    });
  }

  function tell(): void {
    const became: VmId[] = [];
    const looked = dirty;
    dirty = new Set();
    const records =
      looked === null
        ? directory.namespaces()
        : [...looked].flatMap((vm) => directory.namespace(vm) ?? []);
    for (const record of records) {
      const now = options.accessibility(record).accessible;
      if (now && !accessible.has(record.vm)) {
        accessible.add(record.vm);
        became.push(record.vm);
      } else if (!now) accessible.delete(record.vm);
    }
    if (became.length > 0) for (const listener of accessListeners) listener(became);
    const services = changed;
    changed = new Map();
    for (const { service, listener } of metadataListeners) {
      const vms = services.get(service);
      if (vms !== undefined) listener([...vms]);
    }
  }

  options.heartbeats.onChange(() => {
    dirty = null;
    later();
  });
  directory.onChange((record, previous) => {
    let isNews = false;
    if (record.kind === 'namespace') {
      const before = previous?.kind === 'namespace' ? previous.metadata : {};
      for (const service of Object.keys(record.metadata)) {
        if (sameJson(before[service], record.metadata[service])) continue;
        const vms = changed.get(service) ?? new Set();
        changed.set(service, vms.add(record.vm));
        isNews = true;
      }
    }
    if (record.kind === 'tombstone' && previous?.kind === 'namespace') accessible.delete(record.vm);
    if (previous === null || !needsTheSame(previous, record)) {
      dirty?.add(record.vm);
      isNews = true;
    }
    if (isNews) later();
  });

  return {
    onAccessible: (listener) => void accessListeners.push(listener),
    onMetadata: (service, listener) => void metadataListeners.push({ service, listener }),
    stop() {
      stopped = true;
    },
  };
}

/** Whether an object is accessible exactly where it was before the change: most changes are of locks,
 * fences and metadata, and every host hears of each. */
function needsTheSame(a: ObjectRecord, b: ObjectRecord): boolean {
  if (a.voters.length !== b.voters.length || a.nextVoters !== b.nextVoters) return false;
  const isSameVoters = a.voters.every((voter, index) => {
    const other = b.voters[index];
    return voter.host === other?.host && voter.store === other.store;
  });
  if (!isSameVoters) return false;
  if (a.kind === 'namespace' && b.kind === 'namespace') {
    return sameJson(a.disks, b.disks) && sameJson(a.optional ?? [], b.optional ?? []);
  }
  // Components that do not count do not matter, and one that counts keeps its name and its place.
  return a.kind === 'disk' && b.kind === 'disk' && sameJson(a.inSync, b.inSync);
}
