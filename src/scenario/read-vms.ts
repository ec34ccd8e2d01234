// The VMs of a scenario. An entry with a count stands for that many VMs; they share its values, so
// that large clusters stay small in memory.

import { type DeviceClass, deviceClasses } from '../model/device.ts';
import { limits } from '../model/limits.ts';
import { hostsNeeded, type StoragePolicy } from '../model/policy.ts';
import type { HostAffinity } from '../model/vm.ts';
import { defaultVm, mebibyte } from './defaults.ts';
import {
  amount,
  boolean,
  complete,
  diskSize,
  distinctList,
  type Field,
  integer,
  label,
  line,
  list,
  oneOf,
  optional,
  orNull,
  parts,
  type Read,
  raw,
  record,
  required,
  table,
} from './fields.ts';
import { createVmNames, type HostNames, type VmNames } from './names.ts';
import { hint } from './nearest.ts';
import type { ScenarioVm } from './scenario.ts';
import type { Place } from './source.ts';

const maxVms = 100_000;

export const policyParts = {
  failuresToTolerate: optional(
    integer(0, limits.maxFailuresToTolerate),
    defaultVm.policy.failuresToTolerate,
  ),
  stripes: optional(integer(1, limits.maxStripes), defaultVm.policy.stripes),
  deviceClass: orNull(oneOf(...deviceClasses)),
};

const policy: Field<StoragePolicy> = (place) => withoutNull(record(policyParts)(place));

/** A policy as it was read: what it leaves out is not there. */
export function withoutNull<Read extends { readonly deviceClass: DeviceClass | null }>(
  read: Read | undefined,
): (Omit<Read, 'deviceClass'> & { readonly deviceClass?: DeviceClass }) | undefined {
  if (read === undefined) return undefined;
  const { deviceClass, ...rest } = read;
  return deviceClass === null ? rest : { ...rest, deviceClass };
}

const powered: Field<boolean> = (place) => {
  const value = oneOf('on', 'off')(place);
  return value === undefined ? undefined : value === 'on';
};

function affinityOf(hosts: Field<readonly string[]>): Field<HostAffinity> {
  return (place) => {
    const read = record({ hosts: required(hosts), required: optional(boolean, false) })(place);
    if (read === undefined) return undefined;
    return { hosts: read.hosts, ...(read.required ? { required: true } : {}) };
  };
}

function vmShape({ host, fullHost }: HostNames) {
  const pinned = distinctList(host, 1);
  return {
    name: required(label),
    count: optional(integer(1, maxVms), 1),
    on: orNull(fullHost),
    cpus: optional(integer(1, limits.maxCpus), defaultVm.cpus),
    memoryMiB: optional(
      amount(mebibyte, limits.minMemoryBytes, limits.maxMemoryBytes),
      defaultVm.memoryBytes,
    ),
    disks: optional(list(diskSize, 1, limits.maxDisks), [...defaultVm.disksBytes]),
    policy: optional(policy, defaultVm.policy),
    components: orNull(pinned),
    objects: optional(
      table(() => null, pinned),
      {},
    ),
    required: orNull(distinctList(line, 1)),
    storage: optional(oneOf('object', 'shared'), defaultVm.storage),
    protected: optional(boolean, defaultVm.protected),
    priority: optional(oneOf('highest', 'high', 'medium', 'low', 'lowest'), defaultVm.priority),
    // Read when the names of all VMs are known.
    after: orNull(raw),
    separate: orNull(line),
    readyWhen: orNull(oneOf('started', 'heard')),
    affinity: orNull(affinityOf(pinned)),
    isolationResponse: orNull(oneOf('pause', 'kill')),
    whenHung: orNull(oneOf('restart', 'leave')),
    powered: optional(powered, defaultVm.powered),
  };
}

type VmShape = ReturnType<typeof vmShape>;

interface VmEntry {
  readonly place: Place;
  readonly read: Partial<Read<VmShape>>;
  /** Null: could not be read. */
  readonly names: readonly string[] | null;
}

/** Gives also the names, which are known even if other values of the VMs are bad. */
export function readVms(
  place: Place | null,
  hosts: HostNames,
): { readonly vms: readonly ScenarioVm[] | undefined; readonly names: VmNames } {
  const items = place === null ? [] : (place.items() ?? place.expected('a list of VMs') ?? null);
  const shape = vmShape(hosts);
  const entries = (items ?? []).map((item): VmEntry => {
    const read = parts(item, shape);
    checkStorage(item, read, hosts);
    return { place: item, read, names: namesOf(item, read) };
  });
  const all = items === null ? null : allNames(entries);
  const names = createVmNames(all, groupsOf(entries));
  const afters = entries.map((entry) => readAfter(entry, names));
  checkCircles(entries, afters);
  const vms = entries.flatMap((entry, index) => expand(entry, afters[index], shape) ?? []);
  return { vms: all !== null && vms.length === all.length ? vms : undefined, names };
}

// --- names ---------------------------------------------------------------------------------------

function namesOf(place: Place, read: VmEntry['read']): readonly string[] | null {
  const { name, count } = read;
  if (name === undefined || count === undefined) return null;
  if (count === 1) return [name];
  if (name.length + 1 + String(count).length > limits.maxNameLength) {
    const last = `${name}-${count}`;
    place.child('name').report(`${last} is longer than ${limits.maxNameLength} characters`);
    return null;
  }
  return Array.from({ length: count }, (_, index) => `${name}-${index + 1}`);
}

/** Of all VMs; null if some are not known. */
function allNames(entries: readonly VmEntry[]): readonly string[] | null {
  const seen = new Set<string>();
  for (const { place, names } of entries) {
    if (seen.size + (names?.length ?? 0) > maxVms) {
      return place.report(`with this there are more than ${maxVms} VMs, the limit`) ?? null;
    }
    const twice = names?.find((name) => seen.has(name));
    if (twice !== undefined) place.child('name').report(`there are two VMs ${twice}`);
    for (const name of names ?? []) seen.add(name);
  }
  return entries.every((entry) => entry.names !== null) ? [...seen] : null;
}

function groupsOf(entries: readonly VmEntry[]): Map<string, readonly string[]> {
  const groups = new Map<string, readonly string[]>();
  for (const { read, names } of entries) {
    if (read.name !== undefined && names !== null && names.length > 1) groups.set(read.name, names);
  }
  return groups;
}

// --- storage -------------------------------------------------------------------------------------

function checkStorage(place: Place, read: VmEntry['read'], { hosts }: HostNames): void {
  if (read.storage === 'shared') {
    const given = place.keys();
    for (const key of ['policy', 'components', 'objects', 'required']) {
      if (given.includes(key))
        place.child(key).report('a VM on shared storage has no disk objects');
    }
    return;
  }
  const objectNames = ['namespace', ...(read.disks ?? []).map((_, index) => `disk${index}`)];
  const objects = Object.entries(read.objects ?? {});
  for (const [index, name] of (read.required ?? []).entries()) {
    checkObjectName(place.child('required').items()?.[index], name);
  }
  for (const [name] of objects) checkObjectName(place.child('objects').child(name), name);

  if (read.policy === undefined || hosts === null) return;
  const { failuresToTolerate } = read.policy;
  const needed = hostsNeeded(read.policy);
  const copies = failuresToTolerate + 1;
  const full = [...hosts.values()].filter((host) => host.kind === 'full').length;
  if (hosts.size < needed || full < copies) {
    const want = `failuresToTolerate ${failuresToTolerate} needs ${needed} hosts, ${copies} of them full`;
    place.child('policy').report(`${want}; the cluster has ${hosts.size}, ${full} of them full`);
    return;
  }
  checkPinned(place.child('components'), read.components ?? null);
  for (const [name, names] of objects) checkPinned(place.child('objects').child(name), names);

  function checkPinned(at: Place, names: readonly string[] | null): void {
    if (names === null) return;
    if (names.length !== needed) {
      const what = `${copies} with data, then ${failuresToTolerate} that only vote`;
      at.report(
        `expected the ${needed} hosts of failuresToTolerate ${failuresToTolerate} (${what}), found ${names.length}`,
      );
    }
    const witness = names.slice(0, copies).find((name) => hosts?.get(name)?.kind === 'witness');
    if (witness !== undefined) at.report(`${witness} is a witness, and these hold no data`);
  }

  function checkObjectName(at: Place | undefined, name: string): void {
    // Without the disks nobody knows the objects.
    if (read.disks === undefined || objectNames.includes(name)) return;
    at?.report(`the VM has no object ${JSON.stringify(name)}${hint(name, objectNames)}`);
  }
}

// --- what starts after what ----------------------------------------------------------------------

function readAfter({ read }: VmEntry, names: VmNames): readonly string[] | undefined {
  if (read.after === undefined || read.after === null) return defaultVm.after;
  const lists = list(names.dependency)(read.after);
  return lists === undefined ? undefined : [...new Set(lists.flat())];
}

/**
 * VMs that wait for each other would never start. Members of an entry wait for the same VMs, so a
 * circle of entries is a circle of VMs.
 */
function checkCircles(
  entries: readonly VmEntry[],
  afters: readonly (readonly string[] | undefined)[],
): void {
  const entryOf = new Map<string, number>();
  for (const [index, { names }] of entries.entries()) {
    for (const name of names ?? []) entryOf.set(name, index);
  }
  const next = afters.map((after) => [
    ...new Set((after ?? []).flatMap((name) => entryOf.get(name) ?? [])),
  ]);
  // Entries that wait for nobody are taken away, again and again; what is left has a circle.
  const waiters = next.map((): number[] => []);
  const open = next.map((before) => before.length);
  for (const [index, before] of next.entries()) {
    for (const other of before) waiters[other]?.push(index);
  }
  const free = open.flatMap((count, index) => (count === 0 ? [index] : []));
  for (let index = free.pop(); index !== undefined; index = free.pop()) {
    for (const waiter of waiters[index] ?? []) {
      open[waiter] = (open[waiter] as number) - 1;
      if (open[waiter] === 0) free.push(waiter);
    }
  }
  const first = open.findIndex((count) => count > 0);
  if (first < 0) return;
  // Whoever is left waits for another one that is left, so this walk comes back to where it was.
  const behind = (index: number) => next[index]?.find((other) => open[other] !== 0) as number;
  const walk = new Set<number>();
  let back = first;
  for (; !walk.has(back); back = behind(back)) walk.add(back);
  const path = [...walk];
  const names = path.slice(path.indexOf(back)).map((index) => entries[index]?.read.name);
  const text = [...names.slice(0, 8), ...(names.length > 8 ? ['...'] : []), names[0]];
  entries[back]?.place
    .child('after')
    .report(`VMs that wait for each other never start: ${text.join(' after ')}`);
}

// --- VMs -----------------------------------------------------------------------------------------

function expand(
  { read, names }: VmEntry,
  after: readonly string[] | undefined,
  shape: VmShape,
): ScenarioVm[] | undefined {
  const whole = complete(read, shape);
  if (whole === undefined || names === null || after === undefined) return undefined;
  const { memoryMiB: memoryBytes, disks: disksBytes, count: _, ...rest } = whole;
  return names.map((name) => ({ ...rest, memoryBytes, disksBytes, after, name }));
}
