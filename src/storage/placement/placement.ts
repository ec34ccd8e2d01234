// Where the objects of a new VM go. All of a VM's objects share their voters as far as their policies
// agree, because a VM is as accessible as its least accessible object: spread over different hosts,
// its objects would fail for different failures.
//
// With f = failuresToTolerate an object gets 2f+1 voters on distinct hosts: f+1 hold a copy of the
// data, f only vote (witnesses), so that no f failures take a majority or the last copy. Sites are
// taken in turn, for the copies first and then for the witnesses: with three sites and f = 1 no site
// takes a majority with it, with two the copies are still apart. Among equals the copies go where the
// least of the device is promised, the votes to whoever has the fewest.

import { HoldfastError } from '../../model/errors.ts';
import { componentId, type HostId, type ObjectId, type StoreId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { hostsNeeded, type StoragePolicy } from '../../model/policy.ts';
import type { Blueprint, Voter } from '../../model/record.ts';

export interface PlacementHost {
  readonly host: HostId;
  readonly store: StoreId;
  readonly freeBytes: number;
  readonly totalBytes?: number;
  /** Used part from which on it takes no new objects. */
  readonly fullAtPercent?: number;
  /** `witness` hosts vote and hold no data. */
  readonly kind: 'full' | 'witness';
  /** What may fail together: a building, a room. Hosts without one are at one site. */
  readonly site?: string | null;
  /** What is there already, by the directory. */
  readonly placedBytes?: number;
  readonly components?: number;
  readonly votes?: number;
}

export interface Placed {
  /** The data hosts first, then the witnesses. */
  readonly voters: readonly Voter[];
  readonly dataHosts: readonly PlacementHost[];
}

/** Throws `policy-unsatisfiable` or `no-capacity`, naming what is missing. */
export function placeObject(
  policy: StoragePolicy,
  sizeBytes: number,
  hosts: readonly PlacementHost[],
  preferred: readonly HostId[] = [],
): Placed {
  const needed = hostsNeeded(policy);
  if (hosts.length < needed) {
    throw new HoldfastError(
      'policy-unsatisfiable',
      `failuresToTolerate ${policy.failuresToTolerate} needs ${needed} hosts, and ${hosts.length} can be reached` +
        (hosts.length === 0 ? '' : `: ${hosts.map((host) => host.host).join(', ')}`),
    );
  }
  const copies = policy.failuresToTolerate + 1;
  const able = hosts.filter((host) => host.kind === 'full' && hasRoom(host, sizeBytes));
  if (able.length < copies) throw noRoom(copies, sizeBytes, hosts, able.length);

  const rank = (host: PlacementHost) => {
    const index = preferred.indexOf(host.host);
    return index < 0 ? preferred.length : index;
  };
  const data = inTurn(copies, able, [], [rank, promised(sizeBytes), componentCount, lessFree]);
  const others = hosts.filter((host) => !data.includes(host));
  return placedOn(data, inTurn(needed - copies, others, data, [rank, voteCount, lessFree]));
}

/**
 * One more host for an object that has parts on the `taken` ones: for a copy of so many bytes, or (null)
 * only to vote. Throws `no-capacity`.
 */
export function placeAnother(
  hosts: readonly PlacementHost[],
  taken: ReadonlySet<HostId>,
  copyBytes: number | null,
): PlacementHost {
  const others = hosts.filter(({ host }) => !taken.has(host));
  const able = others.filter(
    (host) => copyBytes === null || (host.kind === 'full' && hasRoom(host, copyBytes)),
  );
  const measures =
    copyBytes === null ? [voteCount, lessFree] : [promised(copyBytes), componentCount, lessFree];
  const present = hosts.filter(({ host }) => taken.has(host));
  const [best] = inTurn(1, able, present, measures);
  if (best !== undefined) return best;
  if (copyBytes !== null) throw noRoom(1, copyBytes, others, 0);
  throw new HoldfastError('no-capacity', 'no other host can be reached that could vote');
}

/** The less the better. */
type Measure = (host: PlacementHost) => number;

/** So many of the hosts; each time one of a site of which the fewest are taken, `taken` included, and
 * of these the best by the measures, the first counting most. */
function inTurn(
  count: number,
  hosts: readonly PlacementHost[],
  taken: readonly PlacementHost[],
  measures: readonly Measure[],
): PlacementHost[] {
  const atSite = new Map<string, number>();
  const siteOf = (host: PlacementHost) => host.site ?? '';
  const take = (host: PlacementHost) =>
    atSite.set(siteOf(host), (atSite.get(siteOf(host)) ?? 0) + 1);
  for (const host of taken) take(host);
  const all: readonly Measure[] = [(host) => atSite.get(siteOf(host)) ?? 0, ...measures];
  const chosen: PlacementHost[] = [];
  const left = new Set(hosts);
  while (chosen.length < count) {
    let best: PlacementHost | null = null;
    for (const host of left) if (best === null || isBetter(host, best, all)) best = host;
    if (best === null) break;
    take(best);
    left.delete(best);
    chosen.push(best);
  }
  return chosen;
}

function isBetter(a: PlacementHost, b: PlacementHost, measures: readonly Measure[]): boolean {
  for (const measure of measures) {
    const difference = measure(a) - measure(b);
    if (difference !== 0) return difference < 0;
  }
  return a.host < b.host;
}

/** The part of the device that its components may come to take. */
const promised =
  (sizeBytes: number): Measure =>
  ({ placedBytes = 0, totalBytes }) =>
    totalBytes === undefined ? 0 : (placedBytes + sizeBytes) / Math.max(1, totalBytes);
const componentCount: Measure = ({ components = 0 }) => components;
const voteCount: Measure = ({ votes = 0 }) => votes;
const lessFree: Measure = ({ freeBytes }) => -freeBytes;

/**
 * Whether a new component of this size may go there. From `fullAtPercent` on a store takes no new ones:
 * what is left is for those that are there to grow into.
 */
export function hasRoom(host: PlacementHost, sizeBytes: number): boolean {
  return roomFor(host) >= sizeBytes;
}

function roomFor({
  freeBytes,
  totalBytes = 0,
  fullAtPercent = limits.fullAtPercent,
}: PlacementHost): number {
  const kept = (totalBytes * (100 - fullAtPercent)) / 100;
  return Math.max(0, freeBytes - kept);
}

/** For messages: what a store without room looks like. */
export function fillText({
  host,
  freeBytes,
  totalBytes,
  fullAtPercent = limits.fullAtPercent,
}: PlacementHost): string {
  const free = Math.max(0, freeBytes);
  if (totalBytes === undefined) return `${host}: ${free} bytes are free`;
  const bound = `no new object goes above ${fullAtPercent}%`;
  return `${host}: ${totalBytes - free} of ${totalBytes} bytes are used, ${bound}`;
}

function noRoom(
  copies: number,
  sizeBytes: number,
  hosts: readonly PlacementHost[],
  able: number,
): HoldfastError {
  const without = hosts.filter((host) => host.kind === 'full' && !hasRoom(host, sizeBytes));
  const details = without.length === 0 ? '' : ` (${without.map(fillText).join('; ')})`;
  return new HoldfastError(
    'no-capacity',
    `${copies} hosts with ${sizeBytes} free bytes are needed, and there are ${able}${details}`,
  );
}

/** The hosts are decided: `data` hold the copies, the others only vote. */
export function placedOn(
  data: readonly PlacementHost[],
  witnesses: readonly PlacementHost[],
): Placed {
  return {
    dataHosts: data,
    voters: [...data, ...witnesses].map(({ host, store }) => ({ host, store, joined: 1 })),
  };
}

/**
 * The tree mirror -> stripe -> component: one mirror on each data host, all of its stripes there.
 * Stripes of one mirror on several hosts would make it fail with any of them: f failures could then
 * take more than f mirrors, unless no host had a part of two, for which there are rarely enough.
 */
export function blueprint(
  object: ObjectId,
  policy: StoragePolicy,
  sizeBytes: number,
  dataHosts: readonly PlacementHost[],
): Blueprint {
  const chunks = Math.ceil(sizeBytes / limits.stripeBytes);
  return {
    stripeBytes: limits.stripeBytes,
    ...(policy.thick === true ? { thick: true } : {}),
    mirrors: dataHosts.map(({ host, store }, mirror) => ({
      stripes: Array.from({ length: policy.stripes }, (_, stripe) => ({
        id: componentId(`${object}.m${mirror}.s${stripe}`),
        host,
        store,
        // Stripe s holds chunks s, s + stripes, s + 2 * stripes, ...
        sizeBytes: Math.ceil((chunks - stripe) / policy.stripes) * limits.stripeBytes,
      })),
    })),
  };
}
