// Which VMs have a value under a service's key: for the keys that were asked for of late this is kept
// up to date record by record, so that a GET over all VMs meets only those that have one. The values
// are those of the records, not copies, and answers are made of what is kept here: it is replaced, never changed.

import type { VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Metadata } from '../../model/record.ts';
import type { ValueOfVm } from '../api.ts';
import type { AccessibleVms, IndexedVm } from './accessible-vms.ts';
import type { Directory } from './directory.ts';

export interface KeptValue {
  readonly of: IndexedVm;
  readonly answer: ValueOfVm;
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
  all(service: string, key: string): readonly KeptValue[] {
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
  #values: KeptValue[] = [];
  /** Where each VM stands in there. */
  #places = new Map<VmId, number>();
  #lastOrder = -1;
  /** In the order of the directory, and without those that have lost their value. */
  #isTidy = true;

  constructor(service: string, key: string) {
    this.#service = service;
    this.#key = key;
  }

  note(vm: VmId, of: IndexedVm | null, metadata: Metadata): void {
    const value = valueIn(metadata, this.#service, this.#key);
    const place = this.#places.get(vm);
    if (of === null || value === undefined) {
      if (this.#places.delete(vm)) this.#isTidy = false;
    } else if (place !== undefined) {
      this.#values[place] = { of, answer: { vm, value } };
    } else {
      this.#places.set(vm, this.#values.length);
      this.#values.push({ of, answer: { vm, value } });
      // One that has its value later than VMs behind it: put in its place when it is asked for.
      if (of.order < this.#lastOrder) this.#isTidy = false;
      this.#lastOrder = Math.max(this.#lastOrder, of.order);
    }
  }

  inOrder(): readonly KeptValue[] {
    if (!this.#isTidy) this.#tidy();
    return this.#values;
  }

  #tidy(): void {
    const there = this.#values.filter(({ of }, index) => this.#places.get(of.vm) === index);
    this.#values = there.sort((a, b) => a.of.order - b.of.order);
    this.#places = new Map(there.map(({ of }, index) => [of.vm, index]));
    this.#isTidy = true;
  }
}

export function valueIn(metadata: Metadata, service: string, key: string): JsonValue | undefined {
  const ofService = Object.hasOwn(metadata, service) ? metadata[service] : undefined;
  return ofService !== undefined && Object.hasOwn(ofService, key) ? ofService[key] : undefined;
}
