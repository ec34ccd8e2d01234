// Placement: what every placement must satisfy, and errors that name what is missing.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hostId, objectId, storeId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { hostsNeeded } from '../../model/policy.ts';
import { segments } from '../disk/layout.ts';
import { blueprint, type PlacementHost, placeAnother, placeObject } from './placement.ts';

function host(
  index: number,
  freeBytes: number,
  kind: PlacementHost['kind'] = 'full',
): PlacementHost {
  return { host: hostId(`host-${index}`), store: storeId(`store-${index}`), freeBytes, kind };
}

const someHosts = fc
  .array(fc.record({ freeBytes: fc.nat(100), isWitness: fc.boolean() }), { maxLength: 9 })
  .map((all) =>
    all.map(({ freeBytes, isWitness }, at) => host(at, freeBytes, isWitness ? 'witness' : 'full')),
  );

const codeOf = (action: () => unknown) => {
  try {
    action();
  } catch (error) {
    return error;
  }
  return null;
};

describe('placement', () => {
  it('gives 2f+1 distinct voters, f+1 of them with room for the data, or says what is missing', () => {
    fc.assert(
      fc.property(someHosts, fc.integer({ min: 0, max: 3 }), fc.nat(100), (hosts, f, size) => {
        const policy = { failuresToTolerate: f, stripes: 1 };
        const able = hosts.filter((one) => one.kind === 'full' && one.freeBytes >= size);
        if (hosts.length < 2 * f + 1 || able.length < f + 1) {
          const code = hosts.length < 2 * f + 1 ? 'policy-unsatisfiable' : 'no-capacity';
          expect(codeOf(() => placeObject(policy, size, hosts))).toMatchObject({ code });
          return;
        }
        const { voters, dataHosts } = placeObject(policy, size, hosts);
        expect(voters.length).toBe(hostsNeeded(policy));
        expect(new Set(voters.map((voter) => voter.host)).size).toBe(voters.length);
        expect(dataHosts.length).toBe(f + 1);
        const names = able.map((one) => one.host);
        expect(dataHosts.every((one) => names.includes(one.host))).toBe(true);
        expect(voters.slice(0, f + 1).map((voter) => voter.host)).toEqual(
          dataHosts.map((one) => one.host),
        );
        // No f failures take a majority, or the last copy.
        expect(voters.length - f).toBeGreaterThan(voters.length / 2);
      }),
    );
  });

  it('prefers the hosts that it is asked to keep to, where they have room', () => {
    const hosts = [host(1, 50), host(2, 90), host(3, 70), host(4, 10)];
    const policy = { failuresToTolerate: 1, stripes: 1 };
    const preferred = [hostId('host-4'), hostId('host-1'), hostId('host-3')];
    const names = placeObject(policy, 40, hosts, preferred).voters.map((voter) => voter.host);
    expect(names).toEqual(['host-1', 'host-3', 'host-4']);
  });

  it('takes sites in turn, the copies first and then the votes', () => {
    const sites = fc.array(
      fc.record({ site: fc.nat(3), freeBytes: fc.nat(100), isWitness: fc.boolean() }),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(sites, fc.integer({ min: 0, max: 3 }), fc.nat(100), (drawn, f, size) => {
        const hosts = drawn.map(({ site, freeBytes, isWitness }, at) => ({
          ...host(at, freeBytes, isWitness ? 'witness' : 'full'),
          site: `site-${site}`,
        }));
        const able = hosts.filter((one) => one.kind === 'full' && one.freeBytes >= size);
        fc.pre(hosts.length >= 2 * f + 1 && able.length >= f + 1);
        const { voters, dataHosts } = placeObject(
          { failuresToTolerate: f, stripes: 1 },
          size,
          hosts,
        );
        const votersAt = new Set(voters.map((voter) => voter.host));
        // Nobody could be exchanged for a host of a site that has at least two fewer.
        const assertEven = (chosen: readonly PlacementHost[], others: readonly PlacementHost[]) => {
          const count = (site: string | null | undefined) =>
            chosen.filter((one) => one.site === site).length;
          for (const one of chosen) {
            for (const other of others) {
              expect(count(one.site) - count(other.site)).toBeLessThanOrEqual(1);
            }
          }
        };
        assertEven(
          dataHosts,
          able.filter((one) => !dataHosts.some((other) => other.host === one.host)),
        );
        // A vote never goes where there are more already than at another host's site.
        const placed: PlacementHost[] = [...dataHosts];
        for (const voter of voters.slice(f + 1)) {
          const next = hosts.find((one) => one.host === voter.host) as PlacementHost;
          const free = hosts.filter((one) => !placed.some(({ host }) => host === one.host));
          const count = (one: PlacementHost) => placed.filter((it) => it.site === one.site).length;
          for (const other of free) expect(count(next)).toBeLessThanOrEqual(count(other));
          placed.push(next);
        }
        expect(votersAt.size).toBe(2 * f + 1);
      }),
    );
  });

  it('survives the loss of any of three sites, with one failure to tolerate', () => {
    const hosts = [1, 2, 3, 4, 5, 6].map((at) => ({ ...host(at, 50), site: `s${at % 3}` }));
    const { voters } = placeObject({ failuresToTolerate: 1, stripes: 1 }, 10, hosts);
    const siteOf = (name: string) => hosts.find((one) => one.host === name)?.site;
    expect(new Set(voters.map((voter) => siteOf(voter.host))).size).toBe(3);
  });

  it('gives no vote to a host whose device is full, if another one can have it', () => {
    const hosts = [1, 2, 3, 4].map((at) => ({ ...host(at, 500), totalBytes: 1000, votes: at }));
    const full = (at: number) =>
      hosts.map((one, index) => (index === at ? { ...one, freeBytes: 9 } : one));
    const taken = new Set([hostId('host-1'), hostId('host-2')]);
    expect(placeAnother(full(2), taken, null).host).toBe('host-4');
    expect(placeAnother(full(3), taken, null).host).toBe('host-3');
    const { voters } = placeObject({ failuresToTolerate: 1, stripes: 1 }, 10, full(0));
    expect(voters.map((voter) => voter.host)).not.toContain('host-1');
  });

  it('spreads many objects over unequal devices in proportion, and the votes evenly', () => {
    const sizes = [100, 100, 200, 400, 200];
    const placed = sizes.map(() => ({ placedBytes: 0, components: 0, votes: 0 }));
    for (let object = 0; object < 150; object += 1) {
      const hosts = sizes.map((totalBytes, at) => ({
        ...host(at, totalBytes * 10),
        totalBytes: totalBytes * 10,
        ...(placed[at] as (typeof placed)[number]),
      }));
      const { voters, dataHosts } = placeObject({ failuresToTolerate: 1, stripes: 1 }, 10, hosts);
      for (const [at, one] of hosts.entries()) {
        const count = placed[at] as (typeof placed)[number];
        if (voters.some((voter) => voter.host === one.host)) count.votes += 1;
        if (!dataHosts.some(({ host }) => host === one.host)) continue;
        count.components += 1;
        count.placedBytes += 10;
      }
    }
    // 300 copies over 1000 shares of space.
    expect(placed.map((one) => one.components)).toEqual([30, 30, 60, 120, 60]);
    const votes = placed.map((one) => one.votes);
    expect(Math.max(...votes) - Math.min(...votes)).toBeLessThanOrEqual(60);
  });

  it('leaves the last of a device to what is there, and says who is full', () => {
    const policy = { failuresToTolerate: 0, stripes: 1 };
    const full = { ...host(1, 49), totalBytes: 1000 };
    expect(codeOf(() => placeObject(policy, 1, [full]))).toMatchObject({
      code: 'no-capacity',
      message: expect.stringMatching(/host-1: 951 of 1000 bytes are used, no new object .* 95%/),
    });
    const almost = { ...host(2, 60), totalBytes: 1000 };
    expect(placeObject(policy, 10, [full, almost]).dataHosts).toMatchObject([
      { host: almost.host },
    ]);
    expect(codeOf(() => placeObject(policy, 11, [almost]))).toMatchObject({ code: 'no-capacity' });
  });

  it('names the hosts that there are, and the bytes that are missing', () => {
    const policy = { failuresToTolerate: 1, stripes: 1 };
    expect(codeOf(() => placeObject(policy, 1, [host(1, 5), host(2, 5)]))).toMatchObject({
      message: expect.stringMatching(/needs 3 hosts, and 2 .*host-1, host-2/),
    });
    const hosts = [host(1, 5), host(2, 50), host(3, 5)];
    expect(codeOf(() => placeObject(policy, 10, hosts))).toMatchObject({
      message: expect.stringMatching(/2 hosts with 10 free bytes .* 1/),
    });
  });

  it('makes components that have room for every byte of the disk', () => {
    const chunk = limits.stripeBytes;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 40 * chunk }),
        (stripes, size) => {
          const policy = { failuresToTolerate: 1, stripes };
          const tree = blueprint(objectId('o'), policy, size, [host(1, 0), host(2, 0)]);
          expect(tree.mirrors.map((mirror) => mirror.stripes.length)).toEqual([stripes, stripes]);
          const ids = tree.mirrors.flatMap((mirror) =>
            mirror.stripes.map((component) => component.id),
          );
          expect(new Set(ids).size).toBe(2 * stripes);
          const needed = Array.from({ length: stripes }, () => 0);
          for (const segment of segments(stripes, tree.stripeBytes, 0, size)) {
            const end = segment.offset + segment.length;
            needed[segment.stripe] = Math.max(needed[segment.stripe] as number, end);
          }
          tree.mirrors[0]?.stripes.forEach((component, stripe) => {
            expect(component.sizeBytes).toBeGreaterThanOrEqual(needed[stripe] as number);
            expect(component.sizeBytes).toBeLessThan((needed[stripe] as number) + chunk);
          });
        },
      ),
    );
  });
});
