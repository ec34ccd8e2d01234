// Metadata of VMs: `service -> key -> value` in the namespace object's record. SET is a compare-and-swap
// of that record at its own voters; GET reads the directory in memory, and no object. What a service
// means by its keys is its own business; whoever can start a VM can also read and write them.

import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import type { VmId } from '../model/ids.ts';
import { type JsonValue, sameJson } from '../model/json.ts';
import { limits } from '../model/limits.ts';
import type { Metadata, NamespaceRecord } from '../model/record.ts';
import type { MetadataChange, MetadataValues, SetCondition, SetResult, ValueOfVm } from './api.ts';
import type { AccessibleVms } from './directory/accessible-vms.ts';
import type { Directory } from './directory/directory.ts';
import { Values, valueIn } from './directory/values.ts';
import type { Records } from './records.ts';
import type { Views } from './views.ts';

/** Changes of one batch that are under way at a time. */
const setsAtOnce = 64;

const encoder = new TextEncoder();

export interface VmMetadata {
  set(change: MetadataChange): Promise<void>;
  /** In parallel; one that fails does not hold up the others. In the order of the changes. */
  setAll(changes: readonly MetadataChange[]): Promise<SetResult[]>;
  get(service: string, key: string, vms?: readonly VmId[]): MetadataValues;
}

export function createMetadata(options: {
  readonly directory: Directory;
  readonly records: Records;
  readonly accessibleVms: AccessibleVms;
  readonly accessibility: Views['accessibilityAmong'];
}): VmMetadata {
  const { directory, records, accessibleVms } = options;
  const values = new Values(directory, accessibleVms);

  async function set(change: MetadataChange): Promise<void> {
    await begin(change);
  }

  function begin(change: MetadataChange): Promise<NamespaceRecord> {
    const { vm, service, key, value, condition = {} } = change;
    assertWritable(service, key, value);
    return records.changeNamespace(vm, (current) => {
      assertHolds(current, service, key, condition);
      const metadata = withValue(current.metadata, service, key, value);
      assertWithin(current.name, service, key, metadata, condition.withinBytes);
      return { ...current, metadata };
    });
  }

  async function setAll(changes: readonly MetadataChange[]): Promise<SetResult[]> {
    const results: SetResult[] = [];
    let next = 0;
    const worker = async () => {
      while (next < changes.length) {
        const index = next;
        next += 1;
        const change = changes[index] as MetadataChange;
        results[index] = await set(change).then(
          () => ({ vm: change.vm, error: null }),
          (error: unknown) => ({ vm: change.vm, error: asHoldfastError(error, 'internal') }),
        );
      }
    };
    await Promise.all(Array.from({ length: Math.min(setsAtOnce, changes.length) }, worker));
    return results;
  }

  function ofAll(service: string, key: string): ValueOfVm[] {
    const found: ValueOfVm[] = [];
    accessibleVms.look();
    for (const { of, answer } of values.all(service, key)) if (of.unmet === 0) found.push(answer);
    return found;
  }

  function ofSome(service: string, key: string, vms: readonly VmId[]): ValueOfVm[] {
    const found: ValueOfVm[] = [];
    const wanted = [...new Set(vms)].flatMap((vm) => directory.namespace(vm) ?? []);
    const accessibility = options.accessibility(wanted);
    for (const record of wanted) {
      const { vm } = record;
      const value = valueIn(record.metadata, service, key);
      if (value !== undefined && accessibility(record).accessible) found.push({ vm, value });
    }
    return found;
  }

  return {
    set,
    setAll,
    get(service, key, vms) {
      const before = records.begun();
      const found = vms === undefined ? ofAll(service, key) : ofSome(service, key, vms);
      return { values: found, objectReads: records.begun() - before };
    },
  };
}

/** With null the key goes, and with its last key the service. */
function withValue(metadata: Metadata, service: string, key: string, value: JsonValue): Metadata {
  const { [service]: before = {}, ...others } = metadata;
  if (value !== null) return { ...metadata, [service]: { ...before, [key]: value } };
  const { [key]: _, ...rest } = before;
  return Object.keys(rest).length === 0 ? others : { ...metadata, [service]: rest };
}

function assertWritable(service: string, key: string, value: JsonValue): void {
  assertName('service', service);
  assertName('key', key);
  if (maxSizeOf(value) <= limits.maxMetadataValueBytes) return;
  const bytes = sizeOf(value);
  if (bytes > limits.maxMetadataValueBytes) {
    throw new HoldfastError(
      'bad-request',
      `metadata ${service}/${key}: the value has ${bytes} bytes as JSON, and the bound is ${limits.maxMetadataValueBytes}`,
    );
  }
}

function assertName(what: string, name: string): void {
  const bound = limits.maxMetadataNameLength;
  if (name.length > 0 && name.length <= bound && name !== '__proto__') return;
  throw new HoldfastError(
    'bad-request',
    `metadata: the name of a ${what} has 1 to ${bound} characters, and ${JSON.stringify(name.slice(0, 80))} has ${name.length}`,
  );
}

function assertHolds(
  { name, lock, revision, metadata }: NamespaceRecord,
  service: string,
  key: string,
  condition: SetCondition,
): void {
  const { heldAtEpoch, expected } = condition;
  if (heldAtEpoch !== undefined && (lock.holder === null || lock.epoch !== heldAtEpoch)) {
    throw new HoldfastError(
      'conflict',
      `VM ${name}: its lock is not held at epoch ${heldAtEpoch} any more`,
    );
  }
  if (condition.revision !== undefined && condition.revision !== revision) {
    throw new HoldfastError(
      'conflict',
      `VM ${name}: its record has revision ${revision}, and ${condition.revision} was expected`,
    );
  }
  const found = valueIn(metadata, service, key) ?? null;
  if (expected !== undefined && !sameJson(found, expected)) {
    const text = JSON.stringify(found);
    const shown = text.length > 200 ? `${text.slice(0, 200)}...` : text;
    throw new HoldfastError(
      'conflict',
      `VM ${name}: metadata ${service}/${key} is ${shown}, and something else was expected`,
    );
  }
}

function assertWithin(
  vm: string,
  service: string,
  key: string,
  metadata: Metadata,
  bound: number | undefined,
): void {
  if (bound === undefined) return;
  const bytes = sizeOf(metadata);
  if (bytes <= bound) return;
  throw new HoldfastError(
    'bad-request',
    `metadata ${service}/${key}: with it all metadata of VM ${vm} would have ${bytes} bytes as JSON, and the bound is ${bound}`,
  );
}

/** Never less than `sizeOf`, and quicker: a character takes six bytes at most, as `\u001f` does. */
function maxSizeOf(value: JsonValue | undefined): number {
  if (typeof value === 'string') return 2 + 6 * value.length;
  if (typeof value !== 'object' || value === null) return 25;
  let bytes = 2;
  if (Array.isArray(value)) {
    for (const one of value) bytes += 1 + maxSizeOf(one);
    return bytes;
  }
  const of = value as { readonly [key: string]: JsonValue };
  for (const key in of) bytes += 4 + 6 * key.length + maxSizeOf(of[key]);
  return bytes;
}

function sizeOf(value: JsonValue): number {
  return encoder.encode(JSON.stringify(value)).length;
}
