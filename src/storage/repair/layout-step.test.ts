// The next step from what a disk is to what its policy says, for records of all kinds; and what its VM's
// namespace object is to say of it.

import { describe, expect, it } from 'vitest';
import * as records from '../../../test/support/records.ts';
import { componentId, type HostId, hostId, storeId } from '../../model/ids.ts';
import type { StoragePolicy } from '../../model/policy.ts';
import type { Blueprint, DiskRecord } from '../../model/record.ts';
import { hostsOfOthers, isLaidOut, layoutStep } from './layout-step.ts';
import { followed, withPolicy } from './policy-change.ts';

/** Mirrors of so many stripes on these hosts. */
function tree(hosts: readonly string[], stripes: number, thick = false): Blueprint {
  return {
    stripeBytes: 2 ** 20,
    ...(thick ? { thick } : {}),
    mirrors: hosts.map((host) => ({
      stripes: Array.from({ length: stripes }, (_, stripe) => ({
        id: componentId(`disk.${host}.${stripe}`),
        host: hostId(host),
        store: storeId(host),
        sizeBytes: 2 ** 20,
      })),
    })),
  };
}

function disk(
  policy: StoragePolicy,
  blueprint: Blueprint,
  more: { readonly stale?: readonly string[]; readonly next?: Blueprint } = {},
): DiskRecord {
  const { stale = [], next } = more;
  const inSync = blueprint.mirrors
    .flatMap(({ stripes }) => stripes)
    .filter(({ host }) => !stale.includes(host))
    .map(({ id }) => id);
  return records.disk(1, { policy, blueprint, inSync, ...(next === undefined ? {} : { next }) });
}

function step(
  record: DiskRecord,
  gone: readonly string[] = [],
  sites: Record<string, string> = {},
) {
  const found = layoutStep(record, {
    self: hostId('h1'),
    isGone: (host: HostId) => gone.includes(host),
    isLost: ({ host }) => gone.includes(host),
    siteOf: (host: HostId) => sites[host] ?? '',
  });
  if (found?.kind !== 'removeMirror') return found?.kind ?? null;
  const host = [...found.gone][0]?.split('.')[1];
  return `remove ${host}`;
}

const mirror: StoragePolicy = { failuresToTolerate: 1, stripes: 1 };

describe('the next step towards a policy', () => {
  it('is none where all is as it says, however thick', () => {
    expect(step(disk(mirror, tree(['h1', 'h2'], 1)))).toBeNull();
    expect(step(disk(mirror, tree(['h1', 'h2'], 1, true)))).toBeNull();
    expect(isLaidOut(disk(mirror, tree(['h1', 'h2'], 1)))).toBe(true);
  });

  it('builds another tree for other stripes or thick components, and adds mirrors otherwise', () => {
    expect(step(disk({ ...mirror, stripes: 2 }, tree(['h1', 'h2'], 1)))).toBe('restripe');
    expect(step(disk({ ...mirror, thick: true }, tree(['h1', 'h2'], 1)))).toBe('restripe');
    expect(step(disk(mirror, tree(['h1'], 1)))).toBe('addMirror');
  });

  it('goes on with a tree that is wanted, and gives up any other', () => {
    const record = (next: Blueprint) =>
      disk({ failuresToTolerate: 1, stripes: 2 }, tree(['h1', 'h2'], 1), { next });
    expect(step(record(tree(['h3', 'h4'], 2)))).toBeNull();
    expect(step(record(tree(['h3', 'h4'], 3)))).toBe('giveUp');
    expect(step(record(tree(['h3'], 2)))).toBe('giveUp');
    expect(step(record(tree(['h3', 'h4'], 2, true)))).toBe('giveUp');
    expect(isLaidOut(record(tree(['h3', 'h4'], 2)))).toBe(false);
  });

  it('takes away what is missed least, and never a whole copy that is needed', () => {
    const three = tree(['h1', 'h2', 'h3'], 2);
    const wide = { failuresToTolerate: 1, stripes: 2 };
    expect(step(disk(wide, three))).toBe('remove h3');
    expect(step(disk(wide, three, { stale: ['h2'] }))).toBe('remove h2');
    expect(step(disk(wide, three), ['h1'])).toBe('remove h1');
    expect(step(disk(wide, three), [], { h1: 'a', h2: 'a', h3: 'b' })).toBe('remove h2');
    expect(step(disk(wide, three, { stale: ['h2', 'h3'] }), ['h3'])).toBe('remove h3');
    const single = { failuresToTolerate: 0, stripes: 2 };
    expect(step(disk(single, three, { stale: ['h1', 'h2'] }))).toBe('remove h2');
    expect(step(disk(single, tree(['h1', 'h2'], 2), { stale: ['h1'] }))).toBe('remove h1');
  });
});

describe('a mirror whose stripes are on several hosts', () => {
  const wide: StoragePolicy = { failuresToTolerate: 1, stripes: 2 };
  /** The first mirror has its second stripe on h4. */
  function scattered(hosts: readonly string[]): Blueprint {
    const { mirrors, ...rest } = tree(hosts, 2);
    const moved = mirrors.map((mirror, index) => ({
      stripes: mirror.stripes.map((one, stripe) =>
        index === 0 && stripe === 1 ? { ...one, host: hostId('h4') } : one,
      ),
    }));
    return { ...rest, mirrors: moved };
  }

  it('is replaced by one that is on one host, also on one of its own', () => {
    const record = disk(wide, scattered(['h1', 'h2']));
    expect(isLaidOut(record)).toBe(false);
    expect(step(record)).toBe('addMirror');
    expect([...hostsOfOthers(record.blueprint)]).toEqual(['h2']);
  });

  it('is not, while its other stripes are still to follow there', () => {
    const { blueprint } = disk(wide, scattered(['h1', 'h2']));
    expect(step(disk(wide, blueprint, { stale: ['h1'] }), ['h1'])).toBeNull();
    expect(step(disk(wide, blueprint, { stale: ['h1'] }))).toBe('addMirror');
  });

  it('stays until all others that are needed are whole', () => {
    expect(step(disk(wide, scattered(['h1', 'h2', 'h3']), { stale: ['h3'] }))).toBeNull();
    expect(step(disk(wide, scattered(['h1', 'h2', 'h3']), { stale: ['h1'] }))).toBe('remove h1');
    expect(step(disk(wide, scattered(['h1', 'h2', 'h3'])))).toBe('remove h1');
  });
});

describe('what a new policy makes of the records', () => {
  it('counts the components as thin from the moment on at which the policy is', () => {
    const thick = disk({ ...mirror, thick: true }, tree(['h1', 'h2'], 1, true));
    expect(withPolicy(thick, mirror).blueprint.thick).toBeUndefined();
    expect(withPolicy(thick, { ...mirror, thick: true })).toBe(thick);
    expect(withPolicy(thick, { failuresToTolerate: 2, stripes: 1, thick: true }).blueprint).toBe(
      thick.blueprint,
    );
  });

  it('lets the namespace object survive what the disks do, and lowers it only when asked to', () => {
    const said = { disks: [{ name: 'disk0', sizeBytes: 1, policy: mirror }] };
    const namespace = records.namespace(1, { files: { 'vm.json': JSON.stringify(said) } });
    const most = disk({ failuresToTolerate: 3, stripes: 1 }, tree(['h1', 'h2'], 1));
    const raised = followed(namespace, [most], false);
    expect(raised.policy.failuresToTolerate).toBe(3);
    expect(JSON.parse(raised.files['vm.json'] ?? '')).toEqual({
      disks: [{ name: 'disk0', sizeBytes: 1, policy: most.policy }],
    });
    expect(followed(raised, [most], true)).toBe(raised);
    const least = disk({ failuresToTolerate: 0, stripes: 1 }, tree(['h1'], 1));
    expect(followed(raised, [least], false).policy.failuresToTolerate).toBe(3);
    expect(followed(raised, [least], true).policy.failuresToTolerate).toBe(1);
    // A disk that is not known may be the one that asks for most.
    expect(followed(raised, [], true).policy.failuresToTolerate).toBe(3);
    // Its maker wanted more than any disk asks for.
    const chosen = { ...namespace, policy: { failuresToTolerate: 2, stripes: 1 } };
    expect(followed(chosen, [least], true).policy.failuresToTolerate).toBe(2);
  });
});
