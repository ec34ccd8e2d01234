// The machines of a lab, as far as a kernel can be divided: each host is a network namespace, with one
// interface per network; the two switches are bridges in a namespace of their own. So no lab meets another
// one or the machine's networks, all can use the same addresses, and removing the namespaces removes
// all interfaces. A process and all that it starts stays in its namespace, daemons, guards and guests
// alike: that tells without doubt whose it is.

import { readdirSync, statSync } from 'node:fs';
import type { Network } from '../scenario/scenario.ts';
import { isAlive, listPids, networkOf, ownAncestors, readStat } from './processes.ts';
import { run } from './program.ts';

const namespaceFolder = '/run/netns';
const prefix = 'hflab';

export const networkNames = ['storage', 'ha'] as const satisfies readonly Network[];

export interface NamespacePlan {
  readonly lab: string;
  readonly hosts: readonly string[];
  /** Those that are there: with one shared network both are `storage`. */
  readonly networks: readonly Network[];
}

export const namespaceOf = (lab: string, host: string): string => `${prefix}-${lab}-${host}`;
const switchOf = (lab: string): string => `${prefix}-${lab}.net`;
export const interfaceOf = (network: Network): string => `${network}0`;

/** Arguments before a command that is a part of no host, and ends with the lab. */
export const besideHosts = (lab: string): string[] => inNamespace(switchOf(lab));

/** Of the host of this number, counted from 0. */
export function addressOf(network: Network, index: number): string {
  return `10.77.${networkNames.indexOf(network) + 1}.${index + 1}`;
}

/** Arguments before a command that shall run in the host's place. */
export function inHost(lab: string, host: string): string[] {
  return inNamespace(namespaceOf(lab, host));
}

function inNamespace(namespace: string): string[] {
  return ['nsenter', `--net=${namespaceFolder}/${namespace}`, '--'];
}

export async function makeNamespaces({ lab, hosts, networks }: NamespacePlan): Promise<void> {
  const net = switchOf(lab);
  const all = [net, ...hosts.map((host) => namespaceOf(lab, host))];
  await run(['ip', '-batch', '-'], all.map((name) => `netns add ${name}\n`).join(''));
  const lines: string[] = [];
  for (const network of networks) {
    lines.push(`link add ${network} type bridge`, `link set ${network} up`);
    for (const [index, host] of hosts.entries()) {
      const port = `${network}${index + 1}`;
      const peer = `name ${interfaceOf(network)} netns ${namespaceOf(lab, host)}`;
      lines.push(`link add ${port} type veth peer ${peer}`);
      lines.push(`link set ${port} master ${network}`, `link set ${port} up`);
    }
  }
  await run(['ip', '-n', net, '-batch', '-'], `${lines.join('\n')}\n`);
  for (const [index, host] of hosts.entries()) {
    const own = networks.map(
      (network) => `addr add ${addressOf(network, index)}/24 dev ${interfaceOf(network)}`,
    );
    await run(
      ['ip', '-n', namespaceOf(lab, host), '-batch', '-'],
      ['link set lo up', ...own, ''].join('\n'),
    );
    await setLinks(lab, host, networks, true);
  }
}

/** Plugs a host's cables in, or pulls them all at once. */
export async function setLinks(
  lab: string,
  host: string,
  networks: readonly Network[],
  up: boolean,
): Promise<void> {
  const lines = networks.map(
    (network) => `link set ${interfaceOf(network)} ${up ? 'up' : 'down'}\n`,
  );
  await run(['ip', '-n', namespaceOf(lab, host), '-batch', '-'], lines.join(''));
}

/** What network namespaces of this lab there are, by their names. */
export function namespacesOf(lab: string): string[] {
  let names: string[];
  try {
    names = readdirSync(namespaceFolder);
  } catch {
    return []; // nobody on this machine ever made one
  }
  return names.filter(
    (name) => name.startsWith(`${prefix}-${lab}-`) || name === `${prefix}-${lab}.net`,
  );
}

/** The number by which `/proc` names the namespace; null where there is none. */
export function inodeOf(namespace: string): number | null {
  try {
    return statSync(`${namespaceFolder}/${namespace}`).ino;
  } catch {
    return null;
  }
}

/** All living processes in these namespaces, but this one and those above it. */
export function processesIn(inodes: ReadonlySet<number>): number[] {
  const above = ownAncestors();
  return listPids().filter(
    (pid) => !above.has(pid) && inodes.has(networkOf(pid) ?? 0) && isAlive(readStat(pid)),
  );
}

/** Nothing may run in them any more. */
export async function removeNamespaces(lab: string): Promise<void> {
  for (const name of namespacesOf(lab)) await run(['ip', 'netns', 'del', name]);
}
