// The product's ways beside those of others, on the source's own scenarios: what the product must never
// do worse, and for each of the others the weakness that it is known for, seen in its row.

import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { beforeAll, describe, expect, test } from 'vitest';
import { inOwnTurn, settlePromises } from '../../src/platform/promises.ts';
import { readScenario } from '../../src/scenario/read.ts';
import { type ComparisonRow, compare, ways } from '../../src/simulator/run/compare.ts';
import { scenarioFiles } from './scenario-files.ts';

/** Of the source's sections, and made for a comparison. */
const ofTheSource = /^(?:[234]-|compare\/|power-off-during)/;

/** An attempt fails, and is meant to: two masters reach for one lock; the storage goes in the middle. */
const failsByIntent = new Set([
  '4-1-ha-splits-then-a-host-dies',
  '4-4-both-split-differently-no-master-can',
  '3-failover-inaccessible-while-starting',
]);

const scenarios = scenarioFiles()
  .map(([name, file]) => ({ name, scenario: readScenario(readFileSync(file, 'utf8')) }))
  // What waits for a capability of the product says nothing about its ways yet.
  .filter(({ name, scenario }) => ofTheSource.test(name) && scenario.pending === null);

const rows = new Map<string, Map<string, ComparisonRow>>();

function row(scenario: string, way: string): ComparisonRow {
  const found = rows.get(scenario)?.get(way);
  if (found === undefined) throw new Error(`there is no row ${way} of ${scenario}`);
  return found;
}

const product = (scenario: string) => row(scenario, 'product');

beforeAll(async () => {
  for (const { name, scenario } of scenarios) {
    const ofWay = new Map<string, ComparisonRow>();
    for (const way of ways) {
      const run = () =>
        compare(scenario, way, { settle: settlePromises(), crc32, realTime: () => 0, log: null });
      ofWay.set(way.name, await inOwnTurn(run));
    }
    rows.set(name, ofWay);
  }
}, 600_000);

describe.each(scenarios.map(({ name }) => name))('%s', (name) => {
  test('the product passes, without a failed attempt', () => {
    const { checksFailed, violations, attemptsFailed, updatesLost } = product(name);
    expect({ checksFailed, violations, updatesLost }).toEqual({
      checksFailed: 0,
      violations: 0,
      updatesLost: 0,
    });
    if (!failsByIntent.has(name)) expect(attemptsFailed).toBe(0);
  });

  test('no other way restarts more VMs', () => {
    const { vmsRestarted } = product(name);
    const more = ways.filter((way) => row(name, way.name).vmsRestarted > vmsRestarted);
    expect(more.map((way) => way.name)).toEqual([]);
  });

  test('no way breaks an invariant: what they share is safe', () => {
    const broken = ways.filter((way) => row(name, way.name).violations > 0);
    expect(broken.map((way) => way.name)).toEqual([]);
  });
});

describe('known weaknesses', () => {
  const fiveHosts = '2-protection-central-file-on-the-wrong-side';

  test('central file: on the wrong side its master never knows, and restarts nothing', () => {
    const central = row(fiveHosts, 'central file');
    expect(central.masterKnowsMs).toBe(null);
    expect(central.vmsRestarted).toBeLessThan(product(fiveHosts).vmsRestarted);
    const both = row('compare/many-vms-and-a-new-master', 'central file');
    expect(both).toMatchObject({ masterKnowsMs: null, vmsRestarted: 0 });
  });

  test('central file: with another object than the VM, updates are refused', () => {
    expect(row('2-protection-new-master', 'central file').updatesRefused).toBeGreaterThan(0);
    expect(product('2-protection-new-master').updatesRefused).toBe(0);
  });

  test('file per VM: a new master has much to read, and knows late', () => {
    const many = 'compare/many-vms-and-a-new-master';
    const perVm = row(many, 'file per VM');
    expect(perVm.counters.enumerationReads).toBeGreaterThan(3 * 60);
    expect(perVm.masterKnowsMs).toBeGreaterThan(100);
    expect(product(many).masterKnowsMs).toBe(0);
  });

  test('one writer by witness: who has not the role is refused', () => {
    for (const name of [fiveHosts, 'compare/both-sides-write']) {
      expect(row(name, 'one writer by witness').updatesRefused).toBeGreaterThan(0);
      expect(product(name).updatesRefused).toBe(0);
    }
  });

  test('file in segments: what two masters wrote contradicts itself at the heal', () => {
    const { counters, updatesLost } = row('compare/both-sides-write', 'file in segments');
    expect(counters.protectionConflicts).toBeGreaterThan(0);
    expect(updatesLost).toBeGreaterThan(0);
  });

  test('conventional failover: it tries what must fail, again and again', () => {
    for (const name of ['3-failover-namespace-without-disk', '3-failover-accessible-vm-by-vm']) {
      const conventional = row(name, 'conventional failover');
      expect(conventional.attemptsFailed).toBeGreaterThan(3);
      // One VM of three may be tried again, by chance, just when it can be started.
      expect(conventional.medianMs).toBeGreaterThan(product(name).medianMs as number);
    }
  });

  test('namespace access only: it tries although a disk is missing', () => {
    const name = '3-failover-namespace-without-disk';
    const coarse = row(name, 'namespace access only');
    expect(coarse.attemptsFailed).toBeGreaterThan(3);
    expect(coarse.worstMs).toBeGreaterThan(product(name).worstMs as number);
  });

  test('notified per object: the whole list is asked for again each time', () => {
    const name = '3-failover-accessible-vm-by-vm';
    const perObject = row(name, 'notified per object').counters.accessibilityQueries;
    expect(perObject).toBeGreaterThan(product(name).counters.accessibilityQueries);
  });

  test('notified on an interval: the restart waits for the next notice', () => {
    const name = '3-failover-namespace-without-disk';
    const late = row(name, 'notified on an interval').worstMs as number;
    expect(late).toBeGreaterThan((product(name).worstMs as number) + 5000);
  });

  test('access by publishing: what was published is of before', () => {
    const name = 'compare/access-is-news';
    const late = row(name, 'access by publishing').worstMs as number;
    expect(late).toBeGreaterThan((product(name).worstMs as number) + 500);
  });

  test('access by trial: a host that can not reach the VM is tried, and fails', () => {
    const name = 'compare/not-all-hosts-reach-it';
    const trial = row(name, 'access by trial');
    expect(trial.attemptsFailed).toBeGreaterThan(0);
    expect(trial.vmsRestarted).toBeLessThanOrEqual(product(name).vmsRestarted);
  });

  test('peers: several hosts reach for the same lock, and all but one fail', () => {
    const failed = scenarios.map(({ name }) => row(name, 'peers without a master').attemptsFailed);
    expect(Math.max(...failed)).toBeGreaterThan(0);
  });
});
