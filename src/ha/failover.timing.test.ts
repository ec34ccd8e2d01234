// The timings budget of docs/protocols/ha.md in virtual time: from the last sign of life of the failed
// host to the guest's process on another.

import { expect, test } from 'vitest';
import { HaCluster } from '../../test/support/ha-cluster.ts';
import type { HostId } from '../model/ids.ts';
import type { VmRecovery } from '../model/recovery.ts';

async function died(victim: string, phaseMs: number, leaseMs: number) {
  const cluster = new HaCluster(['h1', 'h2', 'h3'], { seed: phaseMs });
  cluster.leaseMs = leaseMs;
  cluster.boot();
  await cluster.run(3000 + phaseMs);
  const vm = cluster.addVm('v');
  await cluster.powerOn(vm, victim);
  await cluster.run(2000);
  const diedAtMs = cluster.clock.now();
  cluster.host(victim).kill();
  let electedAtMs = Number.NaN;
  for (let step = 0; step < 800; step += 1) {
    await cluster.run(10);
    const [master] = cluster.masters();
    if (Number.isNaN(electedAtMs) && master !== undefined)
      electedAtMs = cluster.clock.now() - diedAtMs;
  }
  const recoveries = [...cluster.hosts.values()].flatMap((it) => it.ha.recoveries());
  expect(cluster.runsOn(vm)).toHaveLength(1);
  expect(recoveries).toHaveLength(1);
  expect(cluster.errors()).toEqual([]);
  return { it: recoveries[0] as VmRecovery, electedAtMs, runs: cluster.runsOn(vm)[0] as HostId };
}

for (const victim of ['h1', 'h3']) {
  test(`${victim === 'h1' ? "the master's" : 'an ordinary'} host dies: each step is within its bound`, async () => {
    for (const phaseMs of [0, 130, 260, 390, 490]) {
      // The fake lease counts from the death itself: between 3.5 s (the last storage heartbeat was
      // just due) and 4 s (it had just been sent).
      for (const leaseMs of [3500, 4000]) {
        const { it, electedAtMs, runs } = await died(victim, phaseMs, leaseMs);
        const { recovery } = it;
        expect(it).toMatchObject({ vm: 'v', from: victim, to: runs });
        expect(recovery.failedAtMs).toBe(0);
        expect(recovery.detectedAtMs).toBeGreaterThanOrEqual(2500);
        expect(recovery.detectedAtMs).toBeLessThanOrEqual(2520);
        expect(recovery.lockFreeAtMs).toBeGreaterThanOrEqual(leaseMs);
        expect(recovery.lockFreeAtMs).toBeLessThanOrEqual(leaseMs + 510);
        expect(recovery.accessibleAtMs).toBe(recovery.lockFreeAtMs);
        expect(recovery.placedAtMs).toBeLessThanOrEqual((recovery.lockFreeAtMs ?? 0) + 5);
        expect(recovery.startedAtMs).toBeLessThanOrEqual((recovery.placedAtMs ?? 0) + 105);
        expect(recovery.startedAtMs).toBeLessThanOrEqual(4650);
        expect(recovery.guestReadyAtMs).toBeGreaterThanOrEqual((recovery.startedAtMs ?? 0) + 500);
        // A master that stays was there all along: seen at the first look, 10 ms after the death.
        expect(electedAtMs).toBeGreaterThanOrEqual(victim === 'h1' ? 2000 : 10);
        expect(electedAtMs).toBeLessThanOrEqual(victim === 'h1' ? 2520 : 10);
      }
    }
  });
}
