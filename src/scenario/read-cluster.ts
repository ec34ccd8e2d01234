// The cluster of a scenario: its hosts, what connects them, and the product's options.

import { deviceClasses, mainDeviceName } from '../model/device.ts';
import { limits, type Timings, timings, timingsProblem } from '../model/limits.ts';
import { defaultCluster, defaultHost, gibibyte, mebibyte, numberedHosts } from './defaults.ts';
import {
  amount,
  complete,
  duration,
  each,
  type Field,
  integer,
  label,
  line,
  list,
  oneOf,
  optional,
  orNull,
  parts,
  percent,
  record,
  required,
  table,
  unknownKey,
} from './fields.ts';
import { createHostNames, type HostNames } from './names.ts';
import type { ScenarioCluster, ScenarioDevice, ScenarioHost } from './scenario.ts';
import type { Place } from './source.ts';

const maxHosts = 64;
const maxHostMemoryBytes = 64 * 2 ** 40;
const maxHostDiskBytes = 2 ** 50;

const deviceShape = {
  name: required(label),
  class: required(oneOf(...deviceClasses)),
  diskGiB: optional(amount(gibibyte, 0, maxHostDiskBytes), defaultHost.diskBytes),
};

const deviceEntry: Field<ScenarioDevice> = (place) => {
  const read = record(deviceShape)(place);
  if (read === undefined) return undefined;
  const { diskGiB: diskBytes, ...device } = read;
  return { ...device, diskBytes };
};

const hostShape = {
  name: required(label),
  kind: optional(oneOf('full', 'witness'), defaultHost.kind),
  cpus: optional(integer(1, 4096), defaultHost.cpus),
  memoryMiB: optional(amount(mebibyte, mebibyte, maxHostMemoryBytes), defaultHost.memoryBytes),
  diskGiB: optional(amount(gibibyte, 0, maxHostDiskBytes), defaultHost.diskBytes),
  site: orNull(line),
  diskClass: orNull(oneOf(...deviceClasses)),
  devices: orNull(list(deviceEntry, 1, limits.maxDevices)),
};

const hostEntry: Field<ScenarioHost> = (place) => {
  const read = record(hostShape)(place);
  if (read === undefined) return undefined;
  const { memoryMiB: memoryBytes, diskGiB: diskBytes, diskClass, devices, ...host } = read;
  const names = (devices ?? []).map(({ name }) => name);
  const twice = names.find((name, index) => name === mainDeviceName || names.indexOf(name) < index);
  if (twice !== undefined) {
    return place.child('devices').report(`there is another device ${twice} already`);
  }
  return {
    ...host,
    memoryBytes,
    diskBytes,
    ...(diskClass === null ? {} : { diskClass }),
    ...(devices === null ? {} : { devices }),
  };
};

/** A number of like hosts, or a list of hosts. */
const hostList: Field<readonly ScenarioHost[]> = (place) => {
  const count = place.scalar();
  if (count !== undefined) {
    const isGood =
      Number.isInteger(count) && (count as number) >= 1 && (count as number) <= maxHosts;
    return isGood
      ? numberedHosts(count as number)
      : place.expected(`a number of hosts from 1 to ${maxHosts}, or a list of hosts`);
  }
  const items = place.items();
  if (items === null) return place.expected('a number of hosts or a list of hosts');
  if (items.length < 1 || items.length > maxHosts) {
    return place.report(`expected 1 to ${maxHosts} hosts, found ${items.length}`);
  }
  const hosts = each(place, hostEntry) ?? [];
  const names = new Set<string>();
  for (const [index, host] of hosts.entries()) {
    if (host !== undefined && names.has(host.name)) {
      items[index]?.child('name').report(`there are two hosts ${host.name}`);
    }
    if (host !== undefined) names.add(host.name);
  }
  const good = hosts.filter((host) => host !== undefined);
  if (good.length === hosts.length && good.every((host) => host.kind === 'witness')) {
    place.report('at least one host must be of the kind full');
  }
  return good.length === hosts.length && names.size === hosts.length ? good : undefined;
};

const optionNames = Object.keys(timings).map((key) => key.replace(/Ms$/, ''));

const options: Field<Readonly<Record<string, number>>> = (place) => {
  const known = (key: string) => (optionNames.includes(key) ? null : unknownKey(key, optionNames));
  const read = table(known, duration(1))(place);
  if (read === undefined) return undefined;
  const changed = Object.entries(read).map(([name, ms]) => [`${name}Ms`, ms]);
  const result: Timings = { ...timings, ...Object.fromEntries(changed) };
  const problem = timingsProblem(result);
  return problem === null ? read : place.report(problem);
};

/** Gives also the names of the hosts, which are known even if another key of the cluster is bad. */
export function readCluster(place: Place | null): {
  readonly cluster: ScenarioCluster | undefined;
  readonly names: HostNames;
} {
  let names = createHostNames(null);
  const hosts: Field<readonly ScenarioHost[]> = (inner) => {
    const read = hostList(inner);
    if (read !== undefined) names = createHostNames(read);
    return read;
  };
  const loss = record({ storage: optional(percent(0, 100), 0), ha: optional(percent(0, 100), 0) });
  // `hosts` is read first: the keys are read in the order of the shape.
  const shape = {
    hosts: required(hosts),
    networks: optional(oneOf('separate', 'shared'), defaultCluster.networks),
    options: optional(options, defaultCluster.options),
    drift: optional(
      table((key) => names.problemOf(key), percent(-10, 10)),
      defaultCluster.drift,
    ),
    loss: optional(loss, defaultCluster.loss),
    backend: optional(oneOf('builtin', 'ceph'), defaultCluster.backend),
    guest: optional(oneOf('qemu', 'process'), defaultCluster.guest),
  };
  const cluster = place === null ? undefined : complete(parts(place, shape), shape);
  return { cluster, names };
}
