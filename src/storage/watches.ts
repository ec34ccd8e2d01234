// Tells who wants to know that VMs became accessible, or that a service's metadata changed. Changes
// that come together are told together; who asked for it is told once in an interval.

import type { VmId } from '../model/ids.ts';
import { sameJson } from '../model/json.ts';
import type { Metadata } from '../model/record.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Notice } from './api.ts';
import type { AccessibleVms } from './directory/accessible-vms.ts';
import type { Directory } from './directory/directory.ts';
import type { Heartbeats } from './lease/heartbeat.ts';

type Listener = (vms: readonly VmId[]) => void;

export interface Watches {
  onAccessible(listener: Listener, notice?: Notice): void;
  onMetadata(service: string, listener: Listener): void;
  stop(): void;
}

export function watchVms(options: {
  readonly clock: Clock;
  readonly directory: Directory;
  readonly heartbeats: Heartbeats;
  /** Must hear of changes of the directory first. */
  readonly accessibleVms: AccessibleVms;
  /** The same of namespace objects alone; it is made when somebody asks for it. */
  readonly accessibleNamespaces: () => AccessibleVms;
}): Watches {
  const { clock, directory } = options;
  /** Those that are listened to, and who listens. */
  const indexes = new Map<AccessibleVms, Listener[]>();
  const someListeners: Listener[] = [];
  const metadataListeners: { service: string; listener: Listener }[] = [];
  const timers = new Set<Timer>();
  let changed = new Map<string, Set<VmId>>();
  let hostsChanged = false;
  let someMet = false;
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
    if (hostsChanged) for (const index of indexes.keys()) index.look();
    hostsChanged = false;
    for (const [index, listeners] of indexes) {
      const became = index.takeNews();
      if (became.length > 0) for (const listener of listeners) listener(became);
    }
    if (someMet) for (const listener of someListeners) listener([]);
    someMet = false;
    const services = changed;
    changed = new Map();
    for (const { service, listener } of metadataListeners) {
      const vms = services.get(service);
      if (vms !== undefined) listener([...vms]);
    }
  }

  function listenersOf(index: AccessibleVms): Listener[] {
    let listeners = indexes.get(index);
    if (listeners === undefined) {
      indexes.set(index, (listeners = []));
      index.onNews(later);
    }
    return listeners;
  }

  /** A listener that gathers, and tells the other what it has gathered. */
  function gathering(listener: Listener, everyMs: number): Listener {
    let gathered: Set<VmId> | null = null;
    const again = (): void => {
      const timer = clock.after(everyMs, () => {
        timers.delete(timer);
        again();
        const vms = gathered;
        gathered = null;
        if (vms !== null) listener([...vms]);
      });
      timers.add(timer);
    };
    again();
    return (vms) => {
      gathered ??= new Set();
      for (const vm of vms) gathered.add(vm);
    };
  }

  listenersOf(options.accessibleVms);
  options.accessibleVms.onMet(() => {
    if (someListeners.length === 0) return;
    someMet = true;
    later();
  });
  options.heartbeats.onChange(() => {
    hostsChanged = true;
    later();
  });
  directory.onChange((record, previous) => {
    let isNews = false;
    if (record.kind !== 'namespace') return;
    const before = previous?.kind === 'namespace' ? previous.metadata : {};
    for (const { service } of metadataListeners) {
      const now = ofService(record.metadata, service);
      if (now === undefined || sameJson(ofService(before, service), now)) continue;
      const vms = changed.get(service) ?? new Set();
      changed.set(service, vms.add(record.vm));
      isNews = true;
    }
    if (isNews) later();
  });

  return {
    onAccessible(listener, { form = 'vm', everyMs } = {}) {
      const told = everyMs === undefined ? listener : gathering(listener, everyMs);
      if (form === 'some') {
        someListeners.push(told);
        return;
      }
      const index = form === 'vm' ? options.accessibleVms : options.accessibleNamespaces();
      listenersOf(index).push(told);
    },
    onMetadata: (service, listener) => void metadataListeners.push({ service, listener }),
    stop() {
      stopped = true;
      for (const timer of timers) timer.cancel();
    },
  };
}

function ofService(metadata: Metadata, service: string): Metadata[string] | undefined {
  return Object.hasOwn(metadata, service) ? metadata[service] : undefined;
}
