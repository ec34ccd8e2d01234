// Records, ballots and points of the simplest kind, for checkers that look at sequences of them.

import type { Ballot } from '../../src/model/ballot.ts';
import {
  componentId,
  type Epoch,
  epoch,
  hostId,
  incarnation,
  objectId,
  revision,
  storeId,
  vmId,
} from '../../src/model/ids.ts';
import type { DiskRecord, NamespaceRecord, Voter } from '../../src/model/record.ts';

export const vm = vmId('vm-a');
export const namespaceId = objectId('ns-a');
export const diskId = objectId('disk-a');
export const hosts = ['h1', 'h2', 'h3'].map(hostId);
export const [h1, h2, h3] = hosts as [(typeof hosts)[0], (typeof hosts)[0], (typeof hosts)[0]];

export const ballot = (counter: number, host = 'h1'): Ballot => ({
  counter,
  host: hostId(host),
  incarnation: incarnation(1),
});

export const voter = (host: string, store = `${host}-store`, joined = 1): Voter => ({
  host: hostId(host),
  store: storeId(store),
  joined,
});

export const voters = hosts.map((host) => voter(host));

export function namespace(
  number: number,
  change: Partial<NamespaceRecord> & { readonly at?: Epoch; readonly state?: boolean } = {},
): NamespaceRecord {
  const { at, state, ...rest } = change;
  const metadata =
    at === undefined ? {} : { ha: { protection: { protected: state ?? true, epoch: at } } };
  return {
    kind: 'namespace',
    id: namespaceId,
    vm,
    revision: revision(number),
    policy: { failuresToTolerate: 1, stripes: 1 },
    voters,
    name: 'web',
    lifecycle: 'ready',
    lock: { holder: null, epoch: epoch(0) },
    metadata,
    files: {},
    disks: [diskId],
    ...rest,
  };
}

/** Two mirrors, on h1 and h2. */
export function disk(number: number, change: Partial<DiskRecord> = {}): DiskRecord {
  const piece = (host: string) => ({
    id: componentId(`on-${host}`),
    host: hostId(host),
    store: storeId(`${host}-store`),
    sizeBytes: 2 ** 20,
  });
  return {
    kind: 'disk',
    id: diskId,
    vm,
    revision: revision(number),
    policy: { failuresToTolerate: 1, stripes: 1 },
    voters,
    name: 'disk0',
    sizeBytes: 2 ** 20,
    blueprint: {
      stripeBytes: 2 ** 20,
      mirrors: [{ stripes: [piece('h1')] }, { stripes: [piece('h2')] }],
    },
    inSync: [componentId('on-h1'), componentId('on-h2')],
    fence: { epoch: epoch(1), open: 1 },
    ...change,
  };
}
