// How the storage layer says that something became accessible. The product names the VMs, at once.
//
// `object`: it only says that some object changed; the whole list has to be queried each time.
// `interval`: it gathers what became accessible and says it once a minute, and HA waits for that. The
// product would look by itself every ten seconds, should a notice have been lost; here that look gets
// the answer of the last notice, for otherwise it would hide what is to be measured.

import type { VmId } from '../../model/ids.ts';
import type { Accessibility, Storage } from '../../storage/api.ts';

export const noticeIntervalMs = 60_000;

export function notifyOfObjects(storage: Storage): Storage {
  return {
    ...storage,
    watchAccessibility(listener) {
      const queryAll = () => {
        const all = [...storage.accessibility(storage.vms().map(({ vm }) => vm))];
        listener(all.filter(([, { accessible }]) => accessible).map(([vm]) => vm));
      };
      storage.watchAccessibility(queryAll, { form: 'some' });
    },
  };
}

export function notifyByInterval(storage: Storage): Storage {
  const listeners: ((vms: readonly VmId[]) => void)[] = [];
  /** What HA was last told of VMs that it knows as inaccessible. */
  const told = new Map<VmId, Accessibility>();

  storage.watchAccessibility(
    (vms) => {
      told.clear();
      for (const listener of listeners) listener(vms);
    },
    { everyMs: noticeIntervalMs },
  );
  return {
    ...storage,
    watchAccessibility: (listener) => void listeners.push(listener),
    accessibility(vms) {
      const now = storage.accessibility(vms);
      for (const [vm, access] of now) {
        const before = told.get(vm);
        if (before !== undefined) now.set(vm, before);
        else if (!access.accessible) told.set(vm, access);
      }
      return now;
    },
  };
}
