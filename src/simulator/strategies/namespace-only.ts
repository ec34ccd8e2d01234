// `accessible: namespace-only`: the storage layer can say of a VM only whether its namespace object is
// accessible. The workflow remains the same, but the start of a VM that lacks a disk is tried and fails.

import type { VmId } from '../../model/ids.ts';
import type { Accessibility, Storage, ValueOfVm, VmView } from '../../storage/api.ts';
import { recordOf } from './hidden-vms.ts';

export function namespaceOnly(storage: Storage): Storage {
  const accessOf = (vm: VmId) => storage.accessibility([vm], 'namespace').get(vm) as Accessibility;
  const viewOf = (view: VmView): VmView => ({ ...view, accessible: accessOf(view.vm) });

  return {
    ...storage,
    accessibility: (wanted) => storage.accessibility(wanted, 'namespace'),
    watchAccessibility: (listener) => storage.watchAccessibility(listener, { form: 'namespace' }),
    vms: () => storage.vms().map(viewOf),
    vm(vm) {
      const view = storage.vm(vm);
      return view === null ? null : viewOf(view);
    },
    getMetadata(service, key) {
      const values: ValueOfVm[] = [];
      for (const [vm, { accessible }] of storage.accessibility(undefined, 'namespace')) {
        const value = recordOf(storage, vm)?.metadata[service]?.[key];
        if (value !== undefined && accessible) values.push({ vm, value });
      }
      return { values, objectReads: 0 };
    },
  };
}
