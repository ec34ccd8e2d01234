// Which VMs have a value under a service's key: for the keys that were asked for of late this is kept
// up to date record by record, so that a GET over all VMs meets only those that have one. The values
// are those of the records, not copies.

import type { VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Metadata } from '../../model/record.ts';
import type { AccessibleVms, IndexedVm } from './accessible-vms.ts';
import type { Directory } from './directory.ts';

export interface ValueOfVm {
  readonly of: IndexedVm;
  readonly value: JsonValue;
}

/** A service of this program asks for one or two; people may ask for anything. */
const keysKept = 16;

export class Values {
  readonly #directory: Directory;
  readonly #vms: AccessibleVms;
  /** The one asked for last is the last. */
  readonly #kept = new Map<string, ValuesOfKey>();

  /** `vms` must hear of changes first: it is asked about each VM that changed. */
  constructor(directory: Directory, vms: AccessibleVms) {
    this.#directory = directory;
    this.#vms = vms;
    directory.onChange((record, previous) => {
      if (record.kind !== 'namespace' && previous?.kind !== 'namespace') return;
      for (const values of this.#kept.values()) this.#note(values, record.vm);
    });
  }

  /** In the order of the directory, whether accessible or not. */
  all(service: string, key: string): Iterable<ValueOfVm> {
    const name = JSON.stringify([service, key]);
    let values = this.#kept.get(name);
    if (values === undefined) {
      values = new ValuesOfKey(service, key);
      for (const { vm } of this.#directory.namespaces()) this.#note(values, vm);
    }
    this.#kept.delete(name);
    this.#kept.set(name, values);
    if (this.#kept.size > keysKept) {
      for (const oldest of this.#kept.keys()) {
        this.#kept.delete(oldest);
        break;
      }
    }
    return values.inOrder();
  }

  #note(values: ValuesOfKey, vm: VmId): void {
    const metadata = this.#directory.namespace(vm)?.metadata ?? {};
    values.note(vm, this.#vms.get(vm), metadata);
  }
}

class ValuesOfKey {
  readonly #service: string;
  readonly #key: string;
  #values = new Map<VmId, ValueOfVm>();
  #lastOrder = -1;
  #isOrdered = true;

  constructor(service: string, key: string) {
    this.#service = service;
    this.#key = key;
  }

  note(vm: VmId, of: IndexedVm | null, metadata: Metadata): void {
    const value = valueIn(metadata, this.#service, this.#key);
    if (of === null || value === undefined) {
      this.#values.delete(vm);
      return;
    }
    if (!this.#values.has(vm)) {
      // One that has its value later than VMs behind it: put in its place when it is asked for.
      if (of.order < this.#lastOrder) this.#isOrdered = false;
      this.#lastOrder = Math.max(this.#lastOrder, of.order);
    }
    this.#values.set(vm, { of, value });
  }

  inOrder(): Iterable<ValueOfVm> {
    if (!this.#isOrdered) {
      const sorted = [...this.#values].sort(([, a], [, b]) => a.of.order - b.of.order);
      this.#values = new Map(sorted);
      this.#isOrdered = true;
    }
    return this.#values.values();
  }
}

export function valueIn(metadata: Metadata, service: string, key: string): JsonValue | undefined {
  const ofService = Object.hasOwn(metadata, service) ? metadata[service] : undefined;
  return ofService !== undefined && Object.hasOwn(ofService, key) ? ofService[key] : undefined;
}
