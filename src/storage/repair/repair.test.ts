// What repair takes up of the records that it comes to know. What it does then is tested with whole clusters.

import { describe, expect, it } from 'vitest';
import { ballot, disk, h1, namespace } from '../../../test/support/records.ts';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import { revision } from '../../model/ids.ts';
import { timings } from '../../model/limits.ts';
import type { ObjectRecord } from '../../model/record.ts';
import { createDirectory } from '../directory/directory.ts';
import { createPolicyChange } from './policy-change.ts';
import { createRepair } from './repair.ts';

const before = { failuresToTolerate: 1, stripes: 1 };
const spec = (policy: typeof before) => ({
  'vm.json': JSON.stringify({ disks: [{ name: 'disk0', sizeBytes: 2 ** 20, policy }] }),
});

/** Runs repair on a host that comes to know these records one after the other; what namespace object follows. */
async function followers(records: readonly ObjectRecord[], known: number): Promise<unknown[]> {
  const clock = new VirtualClock();
  const directory = createDirectory();
  const learn = (record: ObjectRecord) =>
    directory.update({ record, ballot: ballot(record.revision) });
  for (const record of records.slice(0, known)) learn(record);
  const followed: unknown[] = [];
  const changes = {
    changeNamespace: async (vm: unknown) => void followed.push(vm),
  };
  const none = { placementHosts: () => [], isReachable: () => true };
  const repair = createRepair({
    ...none,
    self: h1,
    clock,
    log: new SilentLog(),
    timings,
    directory,
    emit: () => undefined,
    holder: {} as never,
    absence: { isAnyoneGone: () => false, isGone: () => false },
    voterChange: {} as never,
    layoutChange: { step: () => null } as never,
    policyChange: createPolicyChange({ directory, records: changes as never, ...none }),
  });
  repair.start();
  for (const record of records.slice(known)) learn(record);
  await clock.run(2 * timings.repairIntervalMs);
  repair.stop();
  return [...new Set(followed)];
}

describe.each([
  ['tolerates more', { failuresToTolerate: 2, stripes: 1 }],
  ['has other stripes', { failuresToTolerate: 1, stripes: 3 }],
])('a namespace object whose disk %s than it says', (_, policy) => {
  const vm = namespace(1, { files: spec(before) });
  const changed = disk(2, { policy });
  it.each([
    ['before the disk', [vm, changed], 0],
    ['behind the disk', [changed, vm], 0],
    ['when the daemon starts', [vm, changed], 2],
    ['and changed otherwise meanwhile', [vm, changed, { ...vm, revision: revision(2) }], 0],
  ] as const)('follows, known %s', async (_, records, known) => {
    expect(await followers(records, known)).toEqual([vm.vm]);
  });
});

it('a namespace object that says what its disk does is left alone', async () => {
  const records = [namespace(1, { files: spec(before) }), disk(1, { policy: before })];
  expect(await followers(records, 0)).toEqual([]);
});
