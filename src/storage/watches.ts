// Tells who wants to know that VMs became accessible, or that a service's metadata changed. Changes
// that come together are told together.

import type { VmId } from '../model/ids.ts';
import { sameJson } from '../model/json.ts';
import type { Clock } from '../ports/clock.ts';
import type { AccessibleVms } from './directory/accessible-vms.ts';
import type { Directory } from './directory/directory.ts';
import type { Heartbeats } from './lease/heartbeat.ts';

type Listener = (vms: readonly VmId[]) => void;

export function watchVms(options: {
  readonly clock: Clock;
  readonly directory: Directory;
  readonly heartbeats: Heartbeats;
  /** Must hear of changes of the directory first. */
  readonly accessibleVms: AccessibleVms;
}): {
  onAccessible(listener: Listener): void;
  onMetadata(service: string, listener: Listener): void;
  stop(): void;
} {
  const { clock, directory, accessibleVms } = options;
  const accessListeners: Listener[] = [];
  const metadataListeners: { service: string; listener: Listener }[] = [];
  let changed = new Map<string, Set<VmId>>();
  let hostsChanged = false;
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
    if (hostsChanged) accessibleVms.look();
    hostsChanged = false;
    const became = accessibleVms.takeNews();
    if (became.length > 0) for (const listener of accessListeners) listener(became);
    const services = changed;
    changed = new Map();
    for (const { service, listener } of metadataListeners) {
      const vms = services.get(service);
      if (vms !== undefined) listener([...vms]);
    }
  }

  options.heartbeats.onChange(() => {
    hostsChanged = true;
    later();
  });
  accessibleVms.onNews(later);
  directory.onChange((record, previous) => {
    let isNews = false;
    if (record.kind !== 'namespace') return;
    const before = previous?.kind === 'namespace' ? previous.metadata : {};
    for (const service of Object.keys(record.metadata)) {
      if (sameJson(before[service], record.metadata[service])) continue;
      const vms = changed.get(service) ?? new Set();
      changed.set(service, vms.add(record.vm));
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
