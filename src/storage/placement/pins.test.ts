// Chosen hosts: taken exactly, or refused with the key and the host that is wrong.

import { describe, expect, it } from 'vitest';
import { HoldfastError } from '../../model/errors.ts';
import { hostId, storeId } from '../../model/ids.ts';
import { namespaceFailures, pinsOf, placePinned } from './pins.ts';
import type { PlacementHost } from './placement.ts';

const GiB = 2 ** 30;
const names = (...all: string[]) => all.map((name) => hostId(name));
const members = names('h1', 'h2', 'h3', 'h4', 'w').map((host) => ({
  host,
  kind: host === hostId('w') ? ('witness' as const) : ('full' as const),
}));
/** All but h4, which is silent. */
const reachable: PlacementHost[] = members
  .filter(({ host }) => host !== hostId('h4'))
  .map(({ host, kind }) => ({
    host,
    kind,
    store: storeId(`store-${host}`),
    freeBytes: host === hostId('h3') ? 100 : GiB,
  }));

function place(hosts: readonly string[], sizeBytes = 1000) {
  const pin = { key: 'hosts', hosts: names(...hosts) };
  const policy = { failuresToTolerate: 1, stripes: 1 };
  return placePinned('disk0', pin, policy, sizeBytes, reachable, members);
}

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof HoldfastError) return `${error.code} ${error.message}`;
    throw error;
  }
  return 'taken';
}

describe('a chosen place', () => {
  it('is taken as it is: data on the first f+1, the others vote', () => {
    const { voters, dataHosts } = place(['h2', 'h1', 'w']);
    expect(voters.map((voter) => voter.host)).toEqual(['h2', 'h1', 'w']);
    expect(voters[0]?.store).toBe('store-h2');
    expect(dataHosts.map((one) => one.host)).toEqual(['h2', 'h1']);
    // Who only votes needs no space.
    expect(place(['h2', 'h1', 'h3']).voters).toHaveLength(3);
  });

  it('of an object without bytes may be on any hosts', () => {
    expect(place(['w', 'h3', 'h1'], 0).voters.map((voter) => voter.host)).toEqual([
      'w',
      'h3',
      'h1',
    ]);
  });

  it.each<[string, string[], RegExp]>([
    ['too few', ['h1', 'h2'], /^bad-request hosts: .*disk0 needs 3 hosts, found 2: h1, h2$/],
    ['too many', ['h1', 'h2', 'h3', 'h4', 'w'], /^bad-request hosts: .*needs 3 hosts, found 5/],
    ['none', [], /^bad-request hosts: .*found none/],
    ['an unknown one', ['h1', 'h9', 'w'], /^bad-request hosts: there is no host h9$/],
    ['one twice', ['h1', 'h2', 'h1'], /^bad-request hosts: h1 is named twice$/],
    ['a witness for data', ['h1', 'w', 'h2'], /^bad-request hosts: w is a witness .*first 2 hosts/],
    ['a silent one', ['h1', 'h2', 'h4'], /^policy-unsatisfiable hosts: h4 can not be reached/],
    [
      'a full one',
      ['h3', 'h1', 'h2'],
      /^no-capacity hosts: disk0 needs 1000 bytes on h3: 100 bytes are free/,
    ],
  ])('is refused: %s', (_what, hosts, message) => {
    expect(refusal(() => place(hosts))).toMatch(message);
  });
});

describe('chosen places of a VM', () => {
  it('are those of an object before those of all', () => {
    const pinOf = pinsOf(
      { hosts: names('h1'), objectHosts: { disk1: names('h2'), namespace: names('h3') } },
      ['disk0', 'disk1'],
    );
    expect(pinOf('disk0')).toEqual({ key: 'hosts', hosts: ['h1'] });
    expect(pinOf('disk1')).toEqual({ key: 'objectHosts.disk1', hosts: ['h2'] });
    expect(pinOf('namespace')).toEqual({ key: 'objectHosts.namespace', hosts: ['h3'] });
    expect(pinsOf({}, ['disk0'])('disk0')).toBe(null);
  });

  it('name no object that is not there', () => {
    expect(refusal(() => pinsOf({ objectHosts: { disk7: names('h1') } }, ['disk0']))).toBe(
      'bad-request objectHosts.disk7: there is no such object; known: namespace, disk0',
    );
  });

  it('of the namespace object say what it tolerates, no less than the disks', () => {
    const pin = (count: number) => ({
      key: 'hosts',
      hosts: Array.from({ length: count }, (_, index) => hostId(`h${index}`)),
    });
    expect(namespaceFailures(pin(1), 0)).toBe(0);
    expect(namespaceFailures(pin(3), 0)).toBe(1);
    expect(namespaceFailures(pin(5), 2)).toBe(2);
    for (const [count, ofDisks] of [
      [0, 0],
      [2, 0],
      [1, 1],
      [9, 0],
    ] as const) {
      expect(refusal(() => namespaceFailures(pin(count), ofDisks))).toMatch(
        /^bad-request hosts: the namespace object needs an odd number of hosts from /,
      );
    }
  });
});
