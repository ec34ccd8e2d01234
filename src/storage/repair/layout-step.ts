// What is to be done next so that the tree of a disk becomes as its policy says: decided from the record
// alone, so whoever comes next decides the same (docs/protocols/policy.md).

import type { ComponentId, HostId } from '../../model/ids.ts';
import type { StoragePolicy } from '../../model/policy.ts';
import type { Blueprint, Component, DiskRecord } from '../../model/record.ts';

export type LayoutStep =
  /** Build a tree beside the present one. */
  | { readonly kind: 'restripe' }
  /** The tree that is being built is not the one that the policy asks for. */
  | { readonly kind: 'giveUp'; readonly next: Blueprint }
  | { readonly kind: 'addMirror' }
  | { readonly kind: 'removeMirror'; readonly gone: ReadonlySet<ComponentId> };

export interface Surroundings {
  readonly self: HostId;
  readonly isGone: (host: HostId) => boolean;
  /** Its host or device does not come back: it is made anew, unless it still counts. */
  readonly isLost: (component: Component) => boolean;
  readonly siteOf: (host: HostId) => string;
}

/** Null: nothing, or nothing at present. */
export function layoutStep(record: DiskRecord, surroundings: Surroundings): LayoutStep | null {
  const { policy, blueprint, next } = record;
  if (next !== undefined) return isWanted(next, policy) ? null : { kind: 'giveUp', next };
  if (!hasShape(blueprint, policy)) return { kind: 'restripe' };
  const spare = blueprint.mirrors.length - copiesOf(policy);
  const isMoving = blueprint.mirrors.some(({ stripes }) =>
    stripes.some((one) => !record.inSync.includes(one.id) && surroundings.isLost(one)),
  );
  const isScattered = !isMoving && blueprint.mirrors.some((one) => hostsOf(one).size > 1);
  if (spare < 0 || (spare === 0 && isScattered)) return { kind: 'addMirror' };
  if (spare === 0) return null;
  const gone = leastWanted(record, surroundings);
  return gone === null ? null : { kind: 'removeMirror', gone };
}

/** Mirrors, stripes and space are as the policy says, and each mirror is on one host. */
export function isLaidOut({ policy, blueprint, next }: DiskRecord): boolean {
  const { mirrors } = blueprint;
  return (
    next === undefined &&
    hasShape(blueprint, policy) &&
    mirrors.length === copiesOf(policy) &&
    mirrors.every((one) => hostsOf(one).size === 1)
  );
}

/** Where a new mirror must not go. The hosts of one that is on several are free: it will be taken away. */
export function hostsOfOthers({ mirrors }: Blueprint): ReadonlySet<HostId> {
  return new Set(mirrors.map(hostsOf).flatMap((hosts) => (hosts.size > 1 ? [] : [...hosts])));
}

/** Several, when some of its components had to be made anew elsewhere, and then the others came back. */
function hostsOf({ stripes }: Blueprint['mirrors'][number]): ReadonlySet<HostId> {
  return new Set(stripes.map(({ host }) => host));
}

function copiesOf({ failuresToTolerate }: StoragePolicy): number {
  return failuresToTolerate + 1;
}

/** The tree can be used as it is, perhaps with more or fewer mirrors. Of a thin policy thick components are
 * no violation. */
function hasShape({ mirrors, thick }: Blueprint, policy: StoragePolicy): boolean {
  const isAsThick = policy.thick !== true || thick === true;
  return mirrors[0]?.stripes.length === policy.stripes && isAsThick;
}

function isWanted(next: Blueprint, policy: StoragePolicy): boolean {
  const isAsThick = (policy.thick === true) === (next.thick === true);
  return hasShape(next, policy) && isAsThick && next.mirrors.length === copiesOf(policy);
}

/** One that is on several hosts, once enough others are whole. Where none is: one that is not whole; or, if
 * more are whole than the policy asks for, a whole one. */
function leastWanted(
  { policy, blueprint, inSync }: DiskRecord,
  { self, isGone, siteOf }: Surroundings,
): ReadonlySet<ComponentId> | null {
  const isWhole = ({ stripes }: Blueprint['mirrors'][number]) =>
    stripes.every(({ id }) => inSync.includes(id));
  const whole = blueprint.mirrors.filter(isWhole).length;
  const scattered = blueprint.mirrors.filter((one) => hostsOf(one).size > 1);
  const able =
    scattered.length > 0
      ? scattered.filter((one) => whole - Number(isWhole(one)) >= copiesOf(policy))
      : blueprint.mirrors.filter((one) => !isWhole(one) || whole > copiesOf(policy));
  const hostOf = ({ stripes }: Blueprint['mirrors'][number]) => stripes[0]?.host as HostId;
  const atSameSite = (host: HostId) =>
    blueprint.mirrors.filter((one) => siteOf(hostOf(one)) === siteOf(host)).length;
  /** The greater the less it is missed. */
  const weight = (one: Blueprint['mirrors'][number]): number[] => {
    const host = hostOf(one);
    return [
      Number(isGone(host)),
      Number(!isWhole(one)),
      atSameSite(host),
      Number(host !== self),
      blueprint.mirrors.indexOf(one),
    ];
  };
  const [last] = able.sort((a, b) => compareLists(weight(b), weight(a)));
  return last === undefined ? null : new Set(last.stripes.map(({ id }) => id));
}

function compareLists(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
