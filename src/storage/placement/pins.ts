// The hosts of a new VM's objects where its maker has chosen them: to keep a VM in one building, to
// rebuild a situation exactly. What is chosen is taken or refused, never bent.

import { HoldfastError } from '../../model/errors.ts';
import type { HostId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { hostsNeeded, type StoragePolicy } from '../../model/policy.ts';
import type { VmPlacement } from '../api.ts';
import { type Offer, offerOf } from './offers.ts';
import { fillText, type Placed, type PlacementHost, placedOn } from './placement.ts';

/** The choice for one object. */
interface Pin {
  /** Where it was made, for errors: `hosts` or `objectHosts.disk0`. */
  readonly key: string;
  readonly hosts: readonly HostId[];
}

/** The name of the namespace object in `objectHosts`; the disks have their own. */
export const namespaceName = 'namespace';

/** The choice for each object by its name; throws `bad-request` for the name of no object. */
export function pinsOf(
  { hosts, objectHosts = {} }: VmPlacement,
  disks: readonly string[],
): (object: string) => Pin | null {
  const objects = [namespaceName, ...disks];
  for (const name of Object.keys(objectHosts)) {
    if (!objects.includes(name)) {
      throw refused(`objectHosts.${name}`, `there is no such object; known: ${objects.join(', ')}`);
    }
  }
  return (object) => {
    const own = objectHosts[object];
    if (own !== undefined) return { key: `objectHosts.${object}`, hosts: own };
    return hosts === undefined ? null : { key: 'hosts', hosts };
  };
}

/** How many failures the namespace object tolerates on the hosts chosen for it: it must not be
 * fewer than any of the disks does, because without it the VM is lost. */
export function namespaceFailures(pin: Pin, ofDisks: number): number {
  const failures = (pin.hosts.length - 1) / 2;
  const most = limits.maxFailuresToTolerate;
  if (Number.isInteger(failures) && failures >= ofDisks && failures <= most) return failures;
  throw refused(
    pin.key,
    `the namespace object needs an odd number of hosts from ${2 * ofDisks + 1}, as the disks do, ` +
      `to ${2 * most + 1}, found ${listed(pin.hosts)}`,
  );
}

/**
 * Places an object on the hosts chosen for it: copies of the data on the first f+1, the others only
 * vote. An object without bytes has voters only. Throws, naming key and host, `bad-request` where the
 * choice is wrong, `policy-unsatisfiable` where a host is missing now, and `no-capacity`.
 */
export function placePinned(
  object: string,
  pin: Pin,
  policy: StoragePolicy,
  sizeBytes: number,
  hosts: readonly PlacementHost[],
  members: readonly { readonly host: HostId; readonly kind: PlacementHost['kind'] }[],
): Placed {
  const { key } = pin;
  const needed = hostsNeeded(policy);
  if (pin.hosts.length !== needed) {
    throw refused(
      key,
      `failuresToTolerate ${policy.failuresToTolerate} of ${object} needs ${needed} hosts, found ${listed(pin.hosts)}`,
    );
  }
  const copies = sizeBytes > 0 ? policy.failuresToTolerate + 1 : 0;
  const chosen = pin.hosts.map((name, index): Offer => {
    const member = members.find((one) => one.host === name);
    if (member === undefined) throw refused(key, `there is no host ${name}`);
    if (pin.hosts.indexOf(name) !== index) throw refused(key, `${name} is named twice`);
    if (index < copies && member.kind === 'witness') {
      throw refused(
        key,
        `${name} is a witness and holds no data; the first ${copies} hosts hold the copies of ${object}`,
      );
    }
    const host = hosts.find((one) => one.host === name);
    if (host === undefined) {
      throw new HoldfastError(
        'policy-unsatisfiable',
        `${key}: ${name} can not be reached now, or its store can not be used`,
      );
    }
    const offer = offerOf(host, policy, sizeBytes);
    if (index < copies && offer.stores === null) {
      throw new HoldfastError(
        'no-capacity',
        `${key}: ${object} needs ${sizeBytes} bytes on ${fillText(host, policy)}`,
      );
    }
    return offer;
  });
  return placedOn(
    chosen.slice(0, policy.failuresToTolerate + 1),
    chosen.slice(policy.failuresToTolerate + 1),
  );
}

function listed(hosts: readonly HostId[]): string {
  return hosts.length === 0 ? 'none' : `${hosts.length}: ${hosts.join(', ')}`;
}

function refused(key: string, text: string): HoldfastError {
  return new HoldfastError('bad-request', `${key}: ${text}`);
}
