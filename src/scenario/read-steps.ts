// The steps of a scenario: one row per kind, with its keys and what becomes of them.

import {
  boolean,
  duration,
  each,
  type Field,
  form,
  integer,
  label,
  line,
  oneForm,
  oneOf,
  optional,
  orNull,
  percent,
  record,
  required,
} from './fields.ts';
import type { HostNames, VmNames } from './names.ts';
import { policyParts, withoutNull } from './read-vms.ts';
import type { Step } from './scenario.ts';
import type { Place } from './source.ts';

/** In the order of the file, undefined for the bad ones; `time` reads when a step is. */
export function readSteps(
  place: Place | null,
  time: Field<number>,
  hosts: HostNames,
  vms: VmNames,
): readonly (Step | undefined)[] {
  return place === null ? [] : (each(place, stepField(time, hosts, vms)) ?? []);
}

const policyWithThick = record({ ...policyParts, thick: optional(boolean, false) });
const policy = (place: Place) => withoutNull(policyWithThick(place));

/** `disk0`, `disk1`, ... */
const diskName: Field<string> = (place) => {
  const name = line(place);
  if (name === undefined || /^disk\d+$/.test(name)) return name;
  return place.expected('the name of a disk, such as disk0');
};

const network = oneOf('ha', 'storage', 'both');
const healed = oneOf('ha', 'storage', 'all');

type HostStepKind = 'crash' | 'boot' | 'stopDaemon' | 'startDaemon';
type DiskStepKind = 'failDisk' | 'repairDisk' | 'fillDisk' | 'freeDisk';

function stepField(
  time: Field<number>,
  { hosts, host, fullHost, groups }: HostNames,
  { vm }: VmNames,
): Field<Step> {
  const at = required(time);
  const to = required(host);

  const onHost = (kind: HostStepKind) =>
    form(host, { at }, (host, { at: atMs }): Step => ({ atMs, kind, host }));
  /** Null: the main one. */
  const device = orNull(label);
  /** What befalls a device of a host, once it is known to have it. */
  function onDevice<Kind extends object>(
    place: Place,
    host: string,
    name: string | null,
    what: Kind,
  ): (Kind & { readonly host: string; readonly device?: string }) | undefined {
    if (name === null) return { ...what, host };
    const known = hosts?.get(host)?.devices?.map((one) => one.name) ?? [];
    if (hosts === null || known.includes(name)) return { ...what, host, device: name };
    const names = known.length === 0 ? 'it has only the main one' : `it has ${known.join(', ')}`;
    return place.child('device').report(`${host} has no device ${name}; ${names}`);
  }
  const onDisk = (kind: DiskStepKind) =>
    form(host, { at, device }, (host, { at: atMs, device }, place): Step | undefined =>
      onDevice(place, host, device, { atMs, kind }),
    );
  const ofPart = (kind: 'pullDisk' | 'plugDisk') =>
    form(
      host,
      { at, device: required(label) },
      (host, { at: atMs, device }, place): Step | undefined => {
        const step = onDevice(place, host, device, { atMs, kind });
        return step === undefined ? undefined : { ...step, device };
      },
    );
  const onGuest = (kind: 'killGuest' | 'hangGuest') =>
    form(vm, { at }, (vm, { at: atMs }): Step => ({ atMs, kind, vm }));
  const ofUser = (kind: 'powerOff' | 'powerOn') =>
    form(vm, { at, via: orNull(host) }, (vm, { at: atMs, via }): Step => ({ atMs, kind, vm, via }));

  /** Hosts that stand in no group form one together. */
  function whole(given: readonly string[][]): readonly string[][] {
    const named = new Set(given.flat());
    const rest = [...(hosts?.keys() ?? [])].filter((name) => !named.has(name));
    return rest.length === 0 ? given : [...given, rest];
  }

  return oneForm<Step>('a step', {
    partition: form(network, { at, groups: required(groups) }, (network, read, place) => {
      const groups = whole(read.groups);
      if (hosts === null || groups.length > 1) {
        return { atMs: read.at, kind: 'partition', network, groups };
      }
      return place.child('groups').report('all hosts are in one group, so nothing is partitioned');
    }),
    block: form(network, { at, from: required(host), to }, (network, read, place) => {
      const { at: atMs, from, to } = read;
      if (from !== to) return { atMs, kind: 'block', network, from, to };
      return place.child('to').report('a host always reaches itself');
    }),
    isolate: form(host, { at, network: required(network) }, (host, { at: atMs, network }) => ({
      atMs,
      kind: 'isolate',
      host,
      network,
    })),
    heal: form(healed, { at }, (healed, { at: atMs }) => ({
      atMs,
      kind: 'heal',
      network: healed === 'all' ? 'both' : healed,
    })),
    crash: onHost('crash'),
    boot: onHost('boot'),
    stopDaemon: onHost('stopDaemon'),
    startDaemon: onHost('startDaemon'),
    freeze: form(host, { at, for: required(duration(1)) }, (host, { at: atMs, for: forMs }) => ({
      atMs,
      kind: 'freeze',
      host,
      forMs,
    })),
    killGuest: onGuest('killGuest'),
    hangGuest: onGuest('hangGuest'),
    powerOff: ofUser('powerOff'),
    powerOn: ofUser('powerOn'),
    setPolicy: form(
      vm,
      { at, disk: optional(diskName, 'disk0'), policy: required(policy), via: orNull(host) },
      (vm, { at: atMs, disk, policy: { thick, ...rest }, via }) => ({
        atMs,
        kind: 'setPolicy',
        vm,
        disk,
        policy: thick ? { ...rest, thick } : rest,
        via,
      }),
    ),
    failDisk: onDisk('failDisk'),
    repairDisk: onDisk('repairDisk'),
    slowDisk: form(
      host,
      { at, by: required(duration()), device },
      (host, { at: atMs, by: byMs, device }, place) =>
        onDevice(place, host, device, { atMs, kind: 'slowDisk' as const, byMs }),
    ),
    flakyDisk: form(
      host,
      { at, errors: required(percent(0, 100)), device },
      (host, { at: atMs, errors: errorShare, device }, place) =>
        onDevice(place, host, device, { atMs, kind: 'flakyDisk' as const, errorShare }),
    ),
    corruptDisk: form(
      host,
      { at, blocks: optional(integer(1, 1000), 1), device },
      (host, { at: atMs, blocks, device }, place) =>
        onDevice(place, host, device, { atMs, kind: 'corruptDisk' as const, blocks }),
    ),
    fillDisk: onDisk('fillDisk'),
    freeDisk: onDisk('freeDisk'),
    pullDisk: ofPart('pullDisk'),
    plugDisk: ofPart('plugDisk'),
    migrate: form(vm, { at, to: required(fullHost) }, (vm, { at: atMs, to }) => ({
      atMs,
      kind: 'migrate',
      vm,
      to,
    })),
    maintenance: form(host, { at, on: required(boolean) }, (host, { at: atMs, on }) => ({
      atMs,
      kind: 'maintenance',
      host,
      on,
    })),
  });
}
