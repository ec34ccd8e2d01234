// `accessible: namespace-only`: the storage layer can say of a VM only whether its namespace object is
// accessible. The workflow remains the same, but the start of a VM that lacks a disk is tried and fails.

import type { VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Accessibility, Storage, VmView } from '../../storage/api.ts';
import { recordOf } from './hidden-vms.ts';
import type { Life } from './life.ts';

/** How often it is looked whether a host or store came or went; the storage layer tells only of VMs
 * all of whose objects are there. */
const lookMs = 100;

export function namespaceOnly(storage: Storage, life: Life): Storage {
  const listeners: ((vms: readonly VmId[]) => void)[] = [];
  let accessible = new Set<VmId>();
  let stores = '';

  function accessOf(vm: VmId): Accessibility {
    const known = storage.vm(vm) === null ? [] : storage.objects(vm);
    const namespace = known.find((object) => object.kind === 'namespace');
    return (
      namespace?.accessible ?? {
        accessible: false,
        object: null,
        hosts: [],
        text: `VM ${vm} is not known here`,
      }
    );
  }

  const viewOf = (view: VmView): VmView => ({ ...view, accessible: accessOf(view.vm) });
  const vms = () => storage.vms().map((view) => view.vm);

  function look(): void {
    const now = JSON.stringify(storage.hosts().map((one) => [one.reachable, one.store]));
    if (now !== stores) tell();
    stores = now;
  }

  function tell(): void {
    const now = new Set(vms().filter((vm) => accessOf(vm).accessible));
    const became = [...now].filter((vm) => !accessible.has(vm));
    accessible = now;
    if (became.length > 0) for (const listener of listeners) listener(became);
  }

  storage.watchAccessibility(tell);
  life.every(lookMs, look);
  return {
    ...storage,
    accessibility: (wanted) => new Map(wanted.map((vm) => [vm, accessOf(vm)])),
    watchAccessibility: (listener) => void listeners.push(listener),
    vms: () => storage.vms().map(viewOf),
    vm(vm) {
      const view = storage.vm(vm);
      return view === null ? null : viewOf(view);
    },
    getMetadata(service, key) {
      const values = new Map<VmId, JsonValue>();
      for (const vm of vms()) {
        const value = recordOf(storage, vm)?.metadata[service]?.[key];
        if (value !== undefined && accessOf(vm).accessible) values.set(vm, value);
      }
      return { values, objectReads: 0 };
    },
  };
}
