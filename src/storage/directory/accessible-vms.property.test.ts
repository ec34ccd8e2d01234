// The index of accessible VMs, and of values, against the plain functions: random records and hosts
// that come and go, and after each step the answers must be those of a look at every record.

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
  type VmId,
  vmId,
} from '../../model/ids.ts';
import type { Metadata, ObjectRecord } from '../../model/record.ts';
import { objectAccessibility, vmAccessibility } from './accessibility.ts';
import { createAccessibleVms } from './accessible-vms.ts';
import { createDirectory } from './directory.ts';
import { Values, valueIn } from './values.ts';

const hosts = 4;
const disksPerVm = 3;
const vmNumber = fc.nat(7);
const diskNumber = fc.nat(disksPerVm - 1);

/** A host and one of the two stores that it may have. Mostly the first: else hardly any VM is accessible. */
const place = fc
  .tuple(fc.nat(hosts - 1), fc.constantFrom(...Array.from({ length: 15 }, () => 0), 1))
  .map(([host, store]) => ({ host: hostId(`h${host}`), store: storeId(`h${host}.s${store}`) }));
const voter = place.map((where) => ({ ...where, joined: 1 }));
const group = fc.oneof(
  { weight: 9, arbitrary: fc.array(voter, { minLength: 3, maxLength: 5 }) },
  { weight: 1, arbitrary: fc.array(voter, { maxLength: 2 }) },
);
const voting = fc
  .record({ voters: group, nextVoters: fc.option(group, { nil: undefined, freq: 4 }) })
  .map(({ voters, nextVoters }) => ({ voters, ...(nextVoters && { nextVoters }) }));

const metadata = fc.dictionary(
  fc.constantFrom('ha', 'backup'),
  fc.dictionary(fc.constantFrom('protection', 'last'), fc.nat(3), { noNullPrototype: true }),
  { noNullPrototype: true },
) as fc.Arbitrary<Metadata>;

const namespaceStep = fc.record({
  step: fc.constant('namespace' as const),
  vm: vmNumber,
  /** Sometimes a second object says that it is the namespace object of this VM. */
  twin: fc.constantFrom('', '', '', '', 'x'),
  voting,
  disks: fc.uniqueArray(diskNumber, { maxLength: 2 }),
  optional: fc.uniqueArray(diskNumber, { maxLength: 2 }),
  metadata,
});
const diskStep = fc.integer({ min: 1, max: 3 }).chain((stripes) =>
  fc.record({
    step: fc.constant('disk' as const),
    vm: vmNumber,
    disk: diskNumber,
    voting,
    mirrors: fc.array(fc.array(place, { minLength: stripes, maxLength: stripes }), {
      minLength: 1,
      maxLength: 4,
    }),
    stale: fc.uniqueArray(fc.nat(11), { maxLength: 3 }),
  }),
);
const step = fc.oneof(
  { weight: 3, arbitrary: namespaceStep },
  { weight: 4, arbitrary: diskStep },
  // The same objects with another in-sync set, lock or metadata: what mostly changes.
  {
    weight: 4,
    arbitrary: fc.record({
      step: fc.constant('small' as const),
      which: fc.nat(20),
      stale: fc.uniqueArray(fc.nat(11), { maxLength: 3 }),
      metadata: fc.option(metadata, { nil: undefined }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ step: fc.constant('delete' as const), which: fc.nat(20) }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      step: fc.constant('hosts' as const),
      /** Nobody asks before the next step. */
      isUnseen: fc.boolean(),
      down: fc.oneof(
        fc.uniqueArray(fc.nat(hosts - 1), { maxLength: 1 }),
        fc.uniqueArray(fc.nat(hosts - 1), { maxLength: hosts }),
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ step: fc.constant('replace' as const), host: fc.nat(hosts - 1) }),
  },
);

type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

/** What the cluster begins with: VMs as they should be. */
const wholeVms = [0, 1, 2, 3].flatMap((vm): Step[] => {
  const at = (host: number) => ({
    host: hostId(`h${host % hosts}`),
    store: storeId(`h${host % hosts}.s0`),
  });
  const voting = { voters: [vm, vm + 1, vm + 2].map((host) => ({ ...at(host), joined: 1 })) };
  const mirrors = [[at(vm)], [at(vm + 1)]];
  return [
    { step: 'namespace', vm, twin: '', voting, disks: [0], optional: [], metadata: {} },
    { step: 'disk', vm, disk: 0, voting, mirrors, stale: [] },
  ];
});

describe('the index of accessible VMs', () => {
  it('says after each step what a look at every record says', () => {
    let flips = 0;
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }),
        fc.nat(20),
        (steps, startAt) => {
          const up = Array.from({ length: hosts }, () => true);
          const storeOf = Array.from({ length: hosts }, () => 0);
          const reachable = (host: string, store: string) => {
            const number = Number(host[1]);
            return up[number] === true && store === `h${number}.s${storeOf[number]}`;
          };
          const directory = createDirectory();
          let counter = 0;
          const update = (record: ObjectRecord) => {
            counter += 1;
            // As from the wire: nothing is shared with the record before.
            directory.update({ record: structuredClone(record), ballot: { ...ballot, counter } });
          };
          const isAccessible = (vm: VmId) => {
            const record = directory.namespace(vm);
            return record !== null && vmAccessibility(directory, record, reachable).accessible;
          };
          const take = (one: (typeof steps)[number]): VmId | null => {
            if (one.step === 'hosts')
              up.forEach((_, host) => (up[host] = !one.down.includes(host)));
            if (one.step === 'replace') storeOf[one.host] = 1 - (storeOf[one.host] ?? 0);
            if (one.step === 'hosts' || one.step === 'replace') return null;
            const record = recordOf(
              one,
              [...directory.entries()].map((entry) => entry.record),
            );
            if (record === null) return null;
            update(record);
            return record.vm;
          };

          for (const one of [...wholeVms, ...steps.slice(0, startAt)]) take(one);
          const index = createAccessibleVms(directory, reachable);
          const ofNamespaces = createAccessibleVms(directory, reachable, 'namespace');
          const values = new Values(directory, index);
          let called = 0;
          let met = 0;
          index.onMet(() => {
            met += 1;
          });
          index.onNews(() => {
            called += 1;
          });
          const told = new Set<VmId>();
          const tellNews = () => {
            const now = directory.namespaces().map(({ vm }) => vm);
            for (const vm of told) if (!isAccessible(vm)) told.delete(vm);
            const news = now.filter((vm) => isAccessible(vm) && !told.has(vm));
            for (const vm of news) told.add(vm);
            const before = called;
            const taken = index.takeNews();
            // It may have gone and come again in between, which is news, too.
            expect(taken).toEqual(now.filter((vm) => taken.includes(vm) && isAccessible(vm)));
            expect(taken).toEqual(expect.arrayContaining(news));
            if (news.length > 0) expect(before).toBeGreaterThan(0);
            // Who is only told that something became accessible misses nothing. What there was at the
            // start was told by nobody.
            if (hasStarted && news.length > 0) expect(met).toBeGreaterThan(0);
            called = 0;
            met = 0;
            flips += news.length;
          };
          let hasStarted = false;
          index.look();
          tellNews();
          hasStarted = true;

          for (const one of steps.slice(startAt)) {
            const before = new Set(directory.namespaces().map(({ vm }) => vm));
            const changed = take(one);
            // A new VM is judged by the hosts as they are now, with no look before.
            if (changed !== null && !before.has(changed)) {
              expect(index.get(changed)?.unmet === 0).toBe(isAccessible(changed));
            }
            if (one.step === 'hosts' && one.isUnseen) continue;
            index.look();
            ofNamespaces.look();
            const records = directory.namespaces();
            for (const record of records) {
              const { accessible } = objectAccessibility(record, reachable);
              expect(ofNamespaces.get(record.vm)?.unmet === 0).toBe(accessible);
            }
            for (const { vm } of records) {
              expect([vm, index.get(vm)?.unmet === 0]).toEqual([vm, isAccessible(vm)]);
            }
            for (const number of [0, 1, 2, 3, 4, 5, 6, 7]) {
              const vm = vmId(`vm${number}`);
              expect(index.get(vm) === null).toBe(directory.namespace(vm) === null);
            }
            const orders = records.map(({ vm }) => index.get(vm)?.order ?? -1);
            expect(orders).toEqual([...orders].sort((a, b) => a - b));
            tellNews();
            for (const [service, key] of [
              ['ha', 'protection'],
              ['backup', 'last'],
            ] as const) {
              const found = values.all(service, key).map(({ answer }) => [answer.vm, answer.value]);
              expect(found).toEqual(
                records.flatMap((record) => {
                  const value = valueIn(record.metadata, service, key);
                  return value === undefined ? [] : [[record.vm, value]];
                }),
              );
            }
          }
        },
      ),
      { numRuns: 600 },
    );
    // The steps must not mostly be about VMs that nobody can reach.
    expect(flips).toBeGreaterThan(1000);
  });

  it('tells again what was out of reach when somebody looked, though it was not when the news were taken', () => {
    let isReachable = true;
    const directory = createDirectory();
    const index = createAccessibleVms(directory, () => isReachable);
    const at = { host: hostId('h1'), store: storeId('s1'), joined: 1 };
    const record = recordOf(
      {
        step: 'namespace',
        vm: 1,
        twin: '',
        voting: { voters: [at] },
        disks: [],
        optional: [],
        metadata: {},
      },
      [],
    ) as ObjectRecord;
    directory.update({ record, ballot });
    expect(index.takeNews()).toEqual([vmId('vm1')]);
    for (const isNow of [false, true]) {
      isReachable = isNow;
      index.look();
    }
    expect(index.takeNews()).toEqual([vmId('vm1')]);
    expect(index.takeNews()).toEqual([]);
  });

  it('forgets keys that nobody asks for any more, and knows them again', () => {
    const directory = createDirectory();
    const values = new Values(
      directory,
      createAccessibleVms(directory, () => true),
    );
    const all = (key: string) => values.all('ha', key).map(({ answer }) => answer.value);
    expect(all('k0')).toEqual([]);
    for (let number = 1; number < 40; number += 1) expect(all(`k${number}`)).toEqual([]);
    const record = recordOf(
      {
        step: 'namespace',
        vm: 1,
        twin: '',
        voting: { voters: [] },
        disks: [],
        optional: [],
        metadata: { ha: { k0: 5, k39: 6 } },
      },
      [],
    ) as ObjectRecord;
    directory.update({ record, ballot });
    expect([all('k0'), all('k39')]).toEqual([[5], [6]]);
  });
});

const ballot = { counter: 1, host: hostId('h0'), incarnation: incarnation(1) };

/** The record that comes of the step; null where there is none to change. */
function recordOf(
  one: Exclude<Step, { step: 'hosts' | 'replace' }>,
  known: readonly ObjectRecord[],
): ObjectRecord | null {
  const policy = { failuresToTolerate: 1, stripes: 1 };
  const base = { revision: revision(1), policy };
  if (one.step === 'namespace') {
    const disks = one.disks.map((disk) => objectId(`vm${one.vm}.disk${disk}`));
    const optional = one.optional.map((disk) => objectId(`vm${one.vm}.disk${disk}`));
    return {
      ...base,
      ...one.voting,
      kind: 'namespace',
      id: objectId(`vm${one.vm}.ns${one.twin}`),
      vm: vmId(`vm${one.vm}`),
      name: `name${one.vm}`,
      lifecycle: 'ready',
      lock: { holder: null, epoch: epoch(0) },
      metadata: one.metadata,
      files: {},
      disks,
      ...(optional.length > 0 && { optional }),
    };
  }
  if (one.step === 'disk') {
    const mirrors = one.mirrors.map((places, mirror) => ({
      stripes: places.map((where, stripe) => ({
        ...where,
        id: componentId(`m${mirror}.s${stripe}`),
        sizeBytes: 10,
      })),
    }));
    const all = mirrors.flatMap(({ stripes }) => stripes.map(({ id }) => id));
    return {
      ...base,
      ...one.voting,
      kind: 'disk',
      id: objectId(`vm${one.vm}.disk${one.disk}`),
      vm: vmId(`vm${one.vm}`),
      name: `disk${one.disk}`,
      sizeBytes: 100,
      blueprint: { stripeBytes: 10, mirrors },
      inSync: all.filter((_, index) => !one.stale.includes(index)),
      fence: { epoch: epoch(0), open: 0 },
    };
  }
  const record = known[one.which % Math.max(1, known.length)];
  if (record === undefined) return null;
  if (one.step === 'delete') {
    const { id, vm, voters } = record;
    return { ...base, kind: 'tombstone', id, vm, voters };
  }
  if (record.kind === 'namespace') {
    const lock = { holder: hostId('h1'), epoch: epoch(record.lock.epoch + 1) };
    return { ...record, lock, metadata: one.metadata ?? record.metadata };
  }
  if (record.kind === 'disk') {
    const fence = { epoch: epoch(record.fence.epoch + 1), open: 1 };
    if (one.metadata !== undefined) return { ...record, fence };
    const all = record.blueprint.mirrors.flatMap(({ stripes }) => stripes.map(({ id }) => id));
    return { ...record, fence, inSync: all.filter((_, index) => !one.stale.includes(index)) };
  }
  return record;
}
