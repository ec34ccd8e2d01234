// Failover in whole clusters of HA modules.

import { describe, expect, test } from 'vitest';
import { HaCluster } from '../../test/support/ha-cluster.ts';
import { SeededRandom } from '../../test/support/seeded-random.ts';
import { hostId, type VmId } from '../model/ids.ts';

async function cluster(size = 3, seed = 1): Promise<HaCluster> {
  const it = new HaCluster(
    Array.from({ length: size }, (_, index) => `h${index + 1}`),
    { seed },
  );
  it.boot();
  await it.run(1500);
  return it;
}

async function runningVms(
  it: HaCluster,
  count: number,
  on: string,
  memoryMiB = 512,
): Promise<VmId[]> {
  const vms = Array.from({ length: count }, (_, index) =>
    it.addVm(`${on}-v${index}`, { memoryMiB }),
  );
  for (const vm of vms) await it.powerOn(vm, on);
  await it.run(1000);
  return vms;
}

const events = (it: HaCluster, on: string) => it.host(on).events.map((event) => event.type);

test('a new master goes on counting how often a guest has ended', async () => {
  const it = await cluster(4);
  const [vm] = (await runningVms(it, 1, 'h3')) as [VmId];
  for (const other of ['h1', 'h2', 'h4']) it.host(other).runner.memoryBytes = 1; // else it would go there
  for (let round = 0; round < 4; round += 1) {
    await it.clock.until(() => it.runsOn(vm).length === 1, 10_000);
    await it.run(3000);
    it.host('h3').runner.guestExits(vm);
    await it.run(100);
  }
  expect(it.vm(vm).attempts).toEqual({ failed: 0, endedSoon: 3 }); // the first start was its user's
  expect(it.host('h1').ha.waiting()).toMatchObject([{ vm, reason: 'retry' }]);
  it.host('h1').kill();
  await it.run(15_000);
  expect(it.host('h2').ha.waiting()).toMatchObject([{ vm, reason: 'retry' }]);
  await it.run(25_000);
  expect(it.runsOn(vm)).toHaveLength(1);
  await it.run(315_000); // nothing is wrong with it any more
  expect(it.vm(vm).attempts).toBeNull();
  expect(it.errors()).toEqual([]);
});

test('failed starts are counted in the VM, until it runs', async () => {
  const it = await cluster();
  const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
  for (const name of ['h1', 'h3']) it.host(name).runner.plans = Array(2).fill('guest-failed');
  it.host('h2').kill();
  await it.clock.until(() => it.vm(vm).attempts !== undefined, 10_000);
  expect(it.vm(vm).attempts).toEqual({ failed: 1, endedSoon: 0 });
  await it.clock.until(() => it.runsOn(vm).length === 1, 30_000);
  await it.run(100);
  expect(it.vm(vm).attempts).toBeNull();
});

describe('why a VM might be restarted stands in the VM', () => {
  const proofAfter = async (harm: (it: HaCluster, vm: VmId) => void) => {
    const it = await cluster();
    const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
    harm(it, vm);
    await it.clock.until(() => it.vm(vm).proof !== null, 20_000);
    return it.vm(vm).proof;
  };

  test('its guest ended', async () => {
    const proof = await proofAfter((it, vm) => it.host('h2').runner.guestExits(vm));
    expect(proof).toMatchObject({ finding: 'guestEnded', host: 'h2', epoch: 1, master: 'h1' });
    expect(proof?.evidence[0]).toBe('its guest ended by itself on h2');
  });

  test('its guest hung', async () => {
    for (const host of ['h1', 'h2']) {
      const it = await cluster();
      const [vm] = (await runningVms(it, 1, host)) as [VmId];
      it.host(host).runner.hangs(vm, true);
      await it.run(3000);
      expect(it.vm(vm).proof).toMatchObject({ finding: 'guestHung', host });
      expect(it.vm(vm).proof?.evidence[0]).toBe(`its guest hung on ${host}, and was ended`);
      const told = it.host('h1').events.find(({ type }) => type === 'failover.detected');
      expect(told?.text).toBe(`The guest of ${host}-v0 hung on ${host}, and was ended.`);
    }
  });

  test('its daemon ended', async () => {
    const proof = await proofAfter((it) => it.host('h2').kill());
    expect(proof).toMatchObject({ finding: 'daemonEnded', host: 'h2', term: 1 });
    expect(proof?.evidence).toContainEqual(
      expect.stringMatching(/the lease of h2, epoch 1, has ended/),
    );
  });

  test('its host fell silent', async () => {
    const proof = await proofAfter((it) => {
      it.network.partition([hostId('h1'), hostId('h3')], [hostId('h2')]);
      it.storageGroups = [[hostId('h1'), hostId('h3')], [hostId('h2')]];
      it.leaseEnds(hostId('h2'));
    });
    expect(proof).toMatchObject({ finding: 'hostSilent', host: 'h2' });
  });

  test('its host is on the other side of a split of the HA network', async () => {
    const proof = await proofAfter((it) => {
      it.network.partition([hostId('h1'), hostId('h3')], [hostId('h2')]);
      it.leaseEnds(hostId('h2'));
    });
    expect(proof).toMatchObject({ finding: 'partitioned', host: 'h2' });
  });
});

describe('a host that is heard again', () => {
  const toldAfter = async (harm: (it: HaCluster) => Promise<void>) => {
    const it = await cluster();
    const { events } = it.host('h1');
    events.length = 0;
    await harm(it);
    await it.run(3000);
    return events.filter(({ type }) => type === 'host.up').map(({ text }) => text);
  };

  test('was dead, if another daemon speaks', async () => {
    const told = await toldAfter(async (it) => {
      it.host('h2').kill();
      await it.run(5000);
      it.boot('h2');
    });
    expect(told).toEqual(['h2 is heard on the HA network again; its daemon was started anew.']);
  });

  test('was cut off, or stood still, if the same one speaks', async () => {
    const told = await toldAfter(async (it) => {
      it.network.partition([hostId('h1'), hostId('h3')], [hostId('h2')]);
      await it.run(5000);
      it.network.healAll();
    });
    const text = 'its daemon ran all the time: it was cut off, or it stood still';
    expect(told).toEqual([`h2 is heard on the HA network again; ${text}.`]);
  });

  test('and was never heard: nothing is known of its past', async () => {
    const it = await cluster();
    it.host('h1').kill();
    await it.run(5000);
    it.boot('h1');
    await it.run(3000);
    const up = it.host('h1').events.filter(({ type }) => type === 'host.up');
    expect(up.map(({ text }) => text).sort()).toEqual([
      'h2 is heard on the HA network.',
      'h3 is heard on the HA network.',
    ]);
  });
});

describe('a guest hangs', () => {
  test('it is ended by order of the master, and restarted where it was', async () => {
    const it = await cluster();
    const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
    it.host('h2').runner.hangs(vm, true);
    await it.run(3000);
    expect(it.host('h2').runner.ended).toEqual([vm]);
    expect(it.runsOn(vm)).toEqual(['h2']);
    expect(it.host('h2').runner.starts).toHaveLength(2);
    expect([it.violations, it.errors()]).toEqual([[], []]);
  });

  test('soon after that again: it is restarted elsewhere', async () => {
    const it = await cluster();
    const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
    it.host('h2').runner.hangs(vm, true);
    await it.run(20_000);
    it.host('h2').runner.hangs(vm, true);
    await it.run(3000);
    expect(it.runsOn(vm)).toHaveLength(1);
    expect(it.runsOn(vm)).not.toEqual(['h2']);
  });

  test('and nobody reaches its objects: it is left as it is until somebody does', async () => {
    const it = await cluster();
    const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
    it.hide(vm, ['h1', 'h2', 'h3']);
    it.host('h2').runner.hangs(vm, true);
    await it.run(20_000);
    expect(it.host('h2').runner.ended).toEqual([]);
    it.hide(vm, []);
    await it.run(3000);
    expect(it.host('h2').runner.ended).toEqual([vm]);
  });
});

describe('a host dies', () => {
  for (const victim of ['h1', 'h2']) {
    test(`${victim}: its VMs run on elsewhere, each once, with one attempt`, async () => {
      const it = await cluster();
      const vms = await runningVms(it, 10, victim);
      it.host(victim).kill();
      await it.run(6000);
      for (const vm of vms) expect(it.runsOn(vm)).toHaveLength(1);
      const survivors = [...it.hosts.values()];
      const starts = survivors.flatMap((host) => host.runner.starts);
      expect(starts.toSorted()).toEqual([...vms].sort());
      for (const host of survivors) expect(host.runner.mostInFlight).toBeLessThanOrEqual(4);
      expect(survivors.flatMap((host) => host.ha.waiting())).toEqual([]);
      expect([it.violations, it.errors()]).toEqual([[], []]);
      const told = events(it, survivors[0]?.ha.master() ?? '');
      for (const type of [
        'host.suspected',
        'host.failed',
        'failover.detected',
        'failover.placed',
      ] as const) {
        expect(told).toContain(type);
      }
      expect(told.filter((type) => type === 'failover.guestReady')).toHaveLength(10);
      expect(told).not.toContain('failover.failed');
    });
  }

  test('unprotected VMs and VMs that were switched off stay off', async () => {
    const it = await cluster();
    const off = (await runningVms(it, 1, 'h2'))[0] as VmId;
    it.host('h2').runner.powerOff(off);
    const plain = it.addVm('plain', { isProtected: false });
    await it.powerOn(plain, 'h2');
    it.host('h2').kill();
    await it.run(10_000);
    expect([it.runsOn(off), it.runsOn(plain)]).toEqual([[], []]);
  });

  test('while its objects are inaccessible the VM waits; the notice starts it', async () => {
    const it = await cluster();
    const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
    it.hide(vm, ['h1', 'h3']);
    it.host('h2').kill();
    await it.run(20_000);
    expect(it.host('h1').ha.waiting()).toMatchObject([
      { reason: 'storage', text: `${vm} lacks a majority` },
    ]);
    expect(it.host('h1').runner.starts.concat(it.host('h3').runner.starts)).toEqual([]);
    it.hide(vm, []);
    await it.run(200);
    expect(it.runsOn(vm)).toHaveLength(1);
  });

  test('unknown to the new master for want of access, later accessible: found by the next GET', async () => {
    const it = await cluster();
    const [vm] = (await runningVms(it, 1, 'h1')) as [VmId];
    it.hide(vm, ['h2', 'h3']);
    it.host('h1').kill();
    await it.run(20_000);
    expect(it.host('h2').ha.waiting()).toEqual([]);
    it.hide(vm, []);
    await it.run(200);
    expect(it.runsOn(vm)).toHaveLength(1);
  });

  test('without room the VM waits for capacity, and starts when the host is back', async () => {
    const it = await cluster();
    for (const name of ['h1', 'h3']) it.host(name).runner.memoryBytes = 100 * 2 ** 20;
    const [vm] = (await runningVms(it, 1, 'h2')) as [VmId];
    it.host('h2').kill();
    await it.run(10_000);
    expect(it.host('h1').ha.waiting()).toMatchObject([{ vm, reason: 'capacity' }]);
    it.boot('h2');
    await it.run(3000);
    expect(it.runsOn(vm)).toEqual(['h2']);
  });

  test('the target dies while starting: the VM is started on the last one', async () => {
    const it = await cluster(4);
    const [vm] = (await runningVms(it, 1, 'h4')) as [VmId];
    it.vm(vm).dataHosts = [hostId('h3')];
    it.host('h3').runner.plans = ['hang'];
    it.host('h4').kill();
    await it.clock.until(() => it.host('h3').runner.starts.length > 0, 10_000);
    it.host('h3').kill();
    await it.run(10_000);
    expect(it.runsOn(vm)).toHaveLength(1);
    expect(it.violations).toEqual([]);
  });

  test('and the master during the failover: its successor finishes it', async () => {
    const it = await cluster(4);
    const vms = await runningVms(it, 6, 'h4');
    it.host('h4').kill();
    await it.run(4100);
    it.host('h1').kill();
    await it.run(8000);
    for (const vm of vms) expect(it.runsOn(vm)).toHaveLength(1);
    expect([it.violations, it.errors()]).toEqual([[], []]);
  });
});

test('an HA-only partition: what runs in the other part is held, and nothing is attempted', async () => {
  const it = await cluster(5);
  const left = await runningVms(it, 2, 'h1');
  const right = await runningVms(it, 2, 'h4');
  it.network.partition(['h1', 'h2'].map(hostId), ['h3', 'h4', 'h5'].map(hostId));
  await it.run(30_000);
  expect(it.masters()).toEqual(['h1', 'h3']);
  expect(
    it
      .host('h1')
      .ha.waiting()
      .map((wait) => wait.vm),
  ).toEqual(right);
  expect(
    it
      .host('h3')
      .ha.waiting()
      .map((wait) => wait.vm),
  ).toEqual(left);
  for (const wait of it.host('h1').ha.waiting()) {
    expect(wait).toMatchObject({
      reason: 'lock',
      text: 'held by h4 in another partition, which runs it',
    });
  }
  for (const host of it.hosts.values()) {
    expect(host.runner.starts.filter((vm) => !vm.startsWith(host.host))).toEqual([]);
    expect(host.ha.recoveries()).toEqual([]);
    expect(host.events.map((event) => event.type)).not.toContain('failover.detected');
  }
  it.host('h4').kill(); // now it fails for both: one of them gets the lock
  await it.run(10_000);
  for (const vm of right) expect(it.runsOn(vm)).toHaveLength(1);
  const recoveries = ['h1', 'h3'].flatMap((name) => it.host(name).ha.recoveries());
  expect(recoveries.map((one) => one.vm).toSorted()).toEqual(right);
  for (const { recovery } of recoveries) expect(recovery.startedAtMs).toBeLessThan(6100);
  it.network.healAll();
  await it.run(3000);
  expect(it.masters()).toEqual(['h1']);
  expect([...it.hosts.values()].flatMap((host) => host.ha.waiting())).toEqual([]);
  expect(it.errors()).toEqual([]);
});

test('a guest that ends by itself is started again on its own host', async () => {
  const it = await cluster();
  const [vm] = (await runningVms(it, 1, 'h3')) as [VmId];
  it.host('h3').runner.guestExits(vm);
  await it.run(500);
  expect(it.runsOn(vm)).toEqual(['h3']);
  const [recovery] = it.host('h1').ha.recoveries();
  expect(recovery).toMatchObject({ from: 'h3', to: 'h3' });
  expect(recovery?.recovery.startedAtMs).toBeLessThan(300);
});

test('what a voter calls switched off, and is not, is started a little later, whenever that was', async () => {
  const it = await cluster();
  const [vm] = (await runningVms(it, 1, 'h3')) as [VmId];
  for (let phaseMs = 0; phaseMs < 500; phaseMs += 20) {
    await it.run(phaseMs);
    it.halfOff.add(vm);
    it.host('h3').runner.guestExits(vm);
    await it.run(200);
    expect(it.runsOn(vm)).toEqual([]);
    it.halfOff.delete(vm); // and nobody says so
    await it.run(6000);
    expect(it.runsOn(vm)).toEqual(['h3']);
    await it.run(600_000); // what ended so often is not started at once
  }
});

test('only the master gives orders, and a witness takes none', async () => {
  const it = new HaCluster(['h1', 'h2', 'h3', 'w'], { witnesses: ['w'] });
  it.boot();
  await it.run(1500);
  const vm = it.addVm('v');
  const order = async (from: string, to: string) => {
    try {
      await it.clock.wait(it.host(from).peer.ask(hostId(to), 'ha.start', { vm }, 1000));
      return 'done';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  expect(await order('h3', 'h2')).toBe('no-master');
  expect(await order('h1', 'w')).toBe('no-capacity');
  expect(await order('h1', 'h2')).toBe('not-protected');
  it.host('h2').ha.stop();
  expect(await order('h1', 'h2')).toBe('no-master');
});

describe('place', () => {
  test('for a user: data locality, load, room that is taken already, and null without access', async () => {
    const it = await cluster();
    const near = it.addVm('near', { data: ['h3'] });
    expect(it.host('h2').ha.place(near)).toBe('h3');
    for (const [index, expected] of ['h1', 'h2'].entries()) {
      expect(it.host('h2').ha.place(it.addVm(`a${index}`, { memoryMiB: 5000 }))).toBe(expected);
    }
    const hidden = it.addVm('hidden');
    it.hide(hidden, ['h2']);
    expect(it.host('h2').ha.place(hidden)).toBeNull();
    expect(it.host('h2').ha.place(it.addVm('huge', { memoryMiB: 9000 }))).toBeNull();
  });
});

test('random deaths, returns, partitions and failed starts: never two starts, and all run in the end', async () => {
  for (let seed = 1; seed <= 10; seed += 1) {
    const it = await cluster(5, seed);
    const random = new SeededRandom(seed).stream('faults');
    const vms: VmId[] = [];
    for (const on of ['h1', 'h2', 'h3']) vms.push(...(await runningVms(it, 3, on)));
    const names = ['h1', 'h2', 'h3', 'h4', 'h5'];
    for (let step = 0; step < 25; step += 1) {
      const name = random.pick(names);
      const host = it.hosts.get(hostId(name));
      const what = random.below(8);
      if (what === 0 && it.hosts.size > 2) host?.kill();
      else if (what === 1 && host === undefined) it.boot(name);
      else if (what === 2) {
        const cut = 1 + random.below(4);
        it.network.partition(names.slice(0, cut).map(hostId), names.slice(cut).map(hostId));
      } else if (what === 3) it.network.healAll();
      else if (what === 4) {
        host?.runner.plans.push(
          random.pick(['guest-failed', 'no-capacity', 'lock-held', 'timeout', 'inaccessible']),
        );
      } else if (what === 5) it.hide(random.pick(vms), random.chance(0.5) ? names : [name]);
      else if (what === 6) it.hide(random.pick(vms), []);
      else host?.runner.guestExits(random.pick(vms));
      await it.run(random.below(4000));
      for (const vm of vms) expect(it.runsOn(vm).length, `seed ${seed}`).toBeLessThanOrEqual(1);
    }
    it.network.healAll();
    for (const vm of vms) it.hide(vm, []);
    for (const name of names) if (!it.hosts.has(hostId(name))) it.boot(name);
    await it.run(90_000);
    const [master] = it.masters();
    const left = it.host(master ?? '').ha.waiting();
    for (const vm of vms) {
      const waits = left.find((wait) => wait.vm === vm && wait.reason === 'retry');
      expect(it.runsOn(vm).length + (waits === undefined ? 0 : 1), `seed ${seed} ${vm}`).toBe(1);
    }
    expect([it.masters().length, it.violations, it.errors()], `seed ${seed}`).toEqual([1, [], []]);
  }
});
