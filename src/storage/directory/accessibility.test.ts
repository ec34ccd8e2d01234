// Accessibility against the dumb rule: count the voters, and look for a copy of each stripe.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  componentId,
  epoch,
  hostId,
  incarnation,
  objectId,
  revision,
  storeId,
  vmId,
} from '../../model/ids.ts';
import type { DiskRecord, NamespaceRecord } from '../../model/record.ts';
import { dataHosts, objectAccessibility, vmAccessibility } from './accessibility.ts';
import { createDirectory } from './directory.ts';

const names = ['h0', 'h1', 'h2', 'h3', 'h4'];
const voters = (count: number) =>
  names
    .slice(0, count)
    .map((name) => ({ host: hostId(name), store: storeId(`s-${name}`), joined: 1 }));

function disk(options: {
  voters: number;
  mirrors: number;
  stripes: number;
  inSync: string[];
}): DiskRecord {
  return {
    kind: 'disk',
    id: objectId('disk'),
    vm: vmId('vm'),
    name: 'disk0',
    revision: revision(1),
    policy: { failuresToTolerate: 1, stripes: options.stripes },
    voters: voters(options.voters),
    sizeBytes: 100,
    blueprint: {
      stripeBytes: 10,
      mirrors: Array.from({ length: options.mirrors }, (_, mirror) => ({
        stripes: Array.from({ length: options.stripes }, (_, stripe) => ({
          id: componentId(`m${mirror}.s${stripe}`),
          host: hostId(names[mirror] as string),
          store: storeId(`s-${names[mirror]}`),
          sizeBytes: 10,
        })),
      })),
    },
    inSync: options.inSync.map(componentId),
    fence: { epoch: epoch(0), open: 0 },
  };
}

describe('an object', () => {
  it('is accessible with a majority of its voters and a copy in sync of every stripe', () => {
    const arbitrary = fc.record({
      voters: fc.constantFrom(1, 3, 5),
      mirrors: fc.integer({ min: 1, max: 3 }),
      stripes: fc.integer({ min: 1, max: 3 }),
      stale: fc.array(fc.nat(8), { maxLength: 4 }),
      down: fc.subarray(names),
      emptied: fc.subarray(names),
    });
    fc.assert(
      fc.property(arbitrary, (world) => {
        const all = Array.from({ length: world.mirrors * world.stripes }, (_, index) => {
          return `m${Math.floor(index / world.stripes)}.s${index % world.stripes}`;
        });
        const inSync = all.filter((_, index) => !world.stale.includes(index));
        const record = disk({ ...world, inSync });
        const isUp = (name: string) => !world.down.includes(name) && !world.emptied.includes(name);
        const reachable = (host: string, store: string) =>
          !world.down.includes(host) &&
          (world.emptied.includes(host) ? 'new' : `s-${host}`) === store;
        const enough = names.slice(0, world.voters).filter(isUp).length > world.voters / 2;
        const whole = Array.from({ length: world.stripes }, (_, stripe) =>
          inSync.some((id) => id.endsWith(`.s${stripe}`) && isUp(names[Number(id[1])] as string)),
        ).every(Boolean);
        const found = objectAccessibility(record, reachable);
        expect(found.accessible).toBe(enough && whole);
        if (found.accessible) return;
        expect(found.text).toMatch(enough ? /no in-sync copy/ : /voters that it needs/);
        if (!enough) expect(found.hosts.every((host) => !isUp(host))).toBe(true);
      }),
    );
  });
});

describe('a VM', () => {
  const namespace: NamespaceRecord = {
    kind: 'namespace',
    id: objectId('ns'),
    vm: vmId('vm'),
    revision: revision(1),
    policy: { failuresToTolerate: 1, stripes: 1 },
    voters: voters(3),
    name: 'vm',
    lifecycle: 'ready',
    lock: { holder: null, epoch: epoch(0) },
    metadata: {},
    files: {},
    disks: [objectId('disk')],
  };
  const ballot = { counter: 1, host: hostId('h0'), incarnation: incarnation(1) };

  it('is accessible with all its objects, and names the one that is missing', () => {
    const directory = createDirectory();
    const up = () => true;
    expect(vmAccessibility(directory, namespace, up)).toMatchObject({
      accessible: false,
      object: 'disk',
    });
    const record = disk({ voters: 3, mirrors: 2, stripes: 1, inSync: ['m1.s0'] });
    directory.update({ record, ballot });
    expect(vmAccessibility(directory, namespace, up)).toEqual({ accessible: true });
    const without = (name: string) => (host: string) => host !== name;
    expect(vmAccessibility(directory, namespace, without('h0'))).toEqual({ accessible: true });
    const stale = vmAccessibility(directory, namespace, without('h1'));
    expect(stale).toMatchObject({ accessible: false, object: 'disk', hosts: ['h1'] });
    expect(vmAccessibility(directory, namespace, (host) => host === 'h0')).toMatchObject({
      object: 'ns',
    });
    expect(dataHosts([record])).toEqual(['h1']);
  });
});
