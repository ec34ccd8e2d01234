// Tells who wants to know that VMs became accessible, or that a service's metadata changed. Changes
// that come together are told together.

import type { VmId } from '../model/ids.ts';
import type { NamespaceRecord } from '../model/record.ts';
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
    if (record.kind === 'namespace') {
      const before = previous?.kind === 'namespace' ? previous.metadata : {};
      for (const service of Object.keys(record.metadata)) {
        if (JSON.stringify(before[service]) === JSON.stringify(record.metadata[service])) continue;
        const vms = changed.get(service) ?? new Set();
        changed.set(service, vms.add(record.vm));
      }
    }
    if (record.kind === 'tombstone' && previous?.kind === 'namespace') accessible.delete(record.vm);
    dirty?.add(record.vm);
    later();
  });

  return {
    onAccessible: (listener) => void accessListeners.push(listener),
    onMetadata: (service, listener) => void metadataListeners.push({ service, listener }),
    stop() {
      stopped = true;
    },
  };
}
