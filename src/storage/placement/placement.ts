// Where the objects of a new VM go. All of a VM's objects share their voters as far as their policies
// agree, because a VM is as accessible as its least accessible object: spread over different hosts,
// its objects would fail for different failures.
//
// With f = failuresToTolerate an object gets 2f+1 voters on distinct hosts: f+1 hold a copy of the
// data, f only vote (witnesses), so that no f failures take a majority or the last copy. Sites are
// taken in turn, for the copies first and then for the witnesses: with three sites and f = 1 no site
// takes a majority with it, with two the copies are still apart. Among equals the copies go where the
// least of the devices is promised, the votes to whoever has the fewest. On which of its devices a host puts
// a copy is chosen after the host: offers.ts.

import { HoldfastError } from '../../model/errors.ts';
import { componentId, type HostId, type ObjectId, type StoreId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { hostsNeeded, type StoragePolicy } from '../../model/policy.ts';
import { type Blueprint, joinedAtCreation, type Voter } from '../../model/record.ts';
import { devicesAt, type Offer, offerOf, type PlacementHost, type Wish } from './offers.ts';

export type { PlacementDevice, PlacementHost } from './offers.ts';

export interface Placed {
  /** The data hosts first, then the witnesses. */
  readonly voters: readonly Voter[];
  readonly dataHosts: readonly Offer[];
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
  const able = offersOf(hosts, policy, sizeBytes);
  if (able.length < copies) throw noRoom(copies, sizeBytes, hosts, policy, able.length);

  const rank = (host: PlacementHost) => {
    const index = preferred.indexOf(host.host);
    return index < 0 ? preferred.length : index;
  };
  const measures = [rank, secondChoice, promised(sizeBytes), componentCount, lessFree];
  const data = inTurn(copies, able, [], measures);
  const others = hosts.filter(({ host }) => !data.some((one) => one.host === host));
  return placedOn(
    data,
    inTurn(needed - copies, others, data, [rank, fullness, voteCount, lessFree]),
  );
}

interface AnotherPlace {
  readonly host: HostId;
  /** Of the first stripe; for a vote the main device. */
  readonly store: StoreId;
  /** The device of each stripe. */
  readonly stores: readonly StoreId[];
}

/**
 * One more place for an object that has parts on the `taken` hosts: for a component of so many bytes, on the
 * device that is named then, or (null) only to vote. Throws `no-capacity`.
 */
export function placeAnother(
  hosts: readonly PlacementHost[],
  taken: ReadonlySet<HostId>,
  copyBytes: number | null,
  { stripes = 1, deviceClass }: Partial<Wish> = {},
): AnotherPlace {
  const others = hosts.filter(({ host }) => !taken.has(host));
  const present = hosts.filter(({ host }) => taken.has(host));
  if (copyBytes === null) {
    const [best] = inTurn(1, others, present, [fullness, voteCount, lessFree]);
    if (best !== undefined) return { host: best.host, store: best.store, stores: [] };
    throw new HoldfastError('no-capacity', 'no other host can be reached that could vote');
  }
  const wish: Wish = { stripes, ...(deviceClass === undefined ? {} : { deviceClass }) };
  const able = offersOf(others, wish, copyBytes);
  const measures = [secondChoice, promised(copyBytes), componentCount, lessFree];
  const [best] = inTurn(1, able, present, measures);
  if (best === undefined) throw noRoom(1, copyBytes, others, wish, 0);
  const stores = best.stores ?? [];
  return { host: best.host, store: stores[0] ?? best.store, stores };
}

/** Whether a copy may go there. */
export function hasRoom(host: PlacementHost, wish: Wish, sizeBytes: number): boolean {
  return offerOf(host, wish, sizeBytes).stores !== null;
}

/** Of the hosts that hold data those with room. */
function offersOf(hosts: readonly PlacementHost[], wish: Wish, sizeBytes: number): Offer[] {
  return hosts
    .filter(({ kind }) => kind === 'full')
    .map((host) => offerOf(host, wish, sizeBytes))
    .filter(({ stores }) => stores !== null);
}

/** The less the better. */
type Measure<Host> = (host: Host) => number;

/** So many of the hosts; each time one of a site of which the fewest are taken, `taken` included, and
 * of these the best by the measures, the first counting most. */
function inTurn<Host extends PlacementHost>(
  count: number,
  hosts: readonly Host[],
  taken: readonly PlacementHost[],
  measures: readonly Measure<Host>[],
): Host[] {
  const atSite = new Map<string, number>();
  const siteOf = (host: PlacementHost) => host.site ?? '';
  const take = (host: PlacementHost) =>
    atSite.set(siteOf(host), (atSite.get(siteOf(host)) ?? 0) + 1);
  for (const host of taken) take(host);
  const all: readonly Measure<Host>[] = [(host) => atSite.get(siteOf(host)) ?? 0, ...measures];
  const chosen: Host[] = [];
  const left = new Set(hosts);
  while (chosen.length < count) {
    let best: Host | null = null;
    for (const host of left) if (best === null || isBetter(host, best, all)) best = host;
    if (best === null) break;
    take(best);
    left.delete(best);
    chosen.push(best);
  }
  return chosen;
}

function isBetter<Host extends PlacementHost>(
  a: Host,
  b: Host,
  measures: readonly Measure<Host>[],
): boolean {
  for (const measure of measures) {
    const difference = measure(a) - measure(b);
    if (difference !== 0) return difference < 0;
  }
  return a.host < b.host;
}

/** The part of the devices that their components may come to take. */
const promised =
  (sizeBytes: number): Measure<PlacementHost> =>
  ({ placedBytes = 0, totalBytes }) =>
    totalBytes === undefined ? 0 : (placedBytes + sizeBytes) / Math.max(1, totalBytes);
const componentCount: Measure<PlacementHost> = ({ components = 0 }) => components;
/** A vote needs little room, and where nothing can be saved it is none. */
const fullness: Measure<PlacementHost> = (host) => {
  const { freeBytes, totalBytes = 0, fullAtPercent = limits.fullAtPercent } = host;
  return Number(freeBytes < totalBytes * (1 - fullAtPercent / 100));
};
const voteCount: Measure<PlacementHost> = ({ votes = 0 }) => votes;
const secondChoice: Measure<Offer> = ({ isSecondChoice }) => (isSecondChoice ? 1 : 0);
const lessFree: Measure<PlacementHost> = ({ freeBytes }) => -freeBytes;

/** For messages: what a host without room looks like to a copy. */
export function fillText(host: PlacementHost, wish: Wish): string {
  const { deviceClass } = wish;
  const devices = devicesAt(host).filter(
    (device) => deviceClass === undefined || device.class === deviceClass,
  );
  if (devices.length === 0) return `${host.host}: has no ${deviceClass} device that can be used`;
  const [first] = devices;
  const texts = devices.map((device) => {
    const { freeBytes, totalBytes, fullAtPercent = limits.fullAtPercent } = device;
    const free = Math.max(0, freeBytes);
    const where = devices.length === 1 && device === first ? '' : ` on ${device.name}`;
    if (totalBytes === undefined) return `${free} bytes are free${where}`;
    const bound = `no new object goes above ${fullAtPercent}%`;
    return `${totalBytes - free} of ${totalBytes} bytes are used${where}, ${bound}`;
  });
  return `${host.host}: ${texts.join('; ')}`;
}

function noRoom(
  copies: number,
  sizeBytes: number,
  hosts: readonly PlacementHost[],
  wish: Wish,
  able: number,
): HoldfastError {
  const without = hosts.filter(
    (host) => host.kind === 'full' && offerOf(host, wish, sizeBytes).stores === null,
  );
  const details =
    without.length === 0 ? '' : ` (${without.map((one) => fillText(one, wish)).join('; ')})`;
  const where = wish.deviceClass === undefined ? '' : ` on ${wish.deviceClass} devices`;
  return new HoldfastError(
    'no-capacity',
    `${copies} hosts with ${sizeBytes} free bytes${where} are needed, and there are ${able}${details}`,
  );
}

/** The hosts are decided: `data` hold the copies, the others only vote. */
export function placedOn(data: readonly Offer[], witnesses: readonly PlacementHost[]): Placed {
  return {
    dataHosts: data,
    voters: [...data, ...witnesses].map(({ host, store }) => ({
      ...{ host, store },
      joined: joinedAtCreation,
    })),
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
  dataHosts: readonly (Pick<PlacementHost, 'host' | 'store'> & Partial<Pick<Offer, 'stores'>>)[],
): Blueprint {
  const chunks = Math.ceil(sizeBytes / limits.stripeBytes);
  return {
    stripeBytes: limits.stripeBytes,
    ...(policy.thick === true ? { thick: true } : {}),
    mirrors: dataHosts.map(({ host, store, stores }, mirror) => ({
      stripes: Array.from({ length: policy.stripes }, (_, stripe) => ({
        id: componentId(`${object}.m${mirror}.s${stripe}`),
        host,
        store: stores?.[stripe] ?? store,
        // Stripe s holds chunks s, s + stripes, s + 2 * stripes, ...
        sizeBytes: Math.ceil((chunks - stripe) / policy.stripes) * limits.stripeBytes,
      })),
    })),
  };
}
