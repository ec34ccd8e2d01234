// Each strategy on whole virtual clusters, in the situation that shows its known weakness; and beside
// it, where it is not obvious, that the product does not have it.

import { expect, test } from 'vitest';
import { hostId, vmId } from '../../model/ids.ts';
import { timings } from '../../model/limits.ts';
import type { Point } from '../../ports/probe.ts';
import { productStrategies, type Strategies } from '../../scenario/scenario.ts';
import type { Storage } from '../../storage/api.ts';
import { MachineClock, Process } from '../world/process.ts';
import { VirtualTime } from '../world/time.ts';
import { World } from '../world/world.ts';
import { published } from './access.ts';
import { hiddenVms, isHidden } from './hidden-vms.ts';
import { Life } from './life.ts';
import { noticeIntervalMs } from './notify.ts';
import { createShared, type Shared } from './shared.ts';
import { countingPartsFor, partsFor } from './strategies.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** Runs all promise reactions, from outside of any. */
const settle = (process as unknown as { _tickCallback(): void })._tickCallback;

/** A test's body must itself be no promise reaction, or nothing could settle while it runs. */
function inTurn(body: () => void): () => Promise<void> {
  return () =>
    new Promise((resolve, reject) => {
      setImmediate(() => {
        try {
          body();
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    });
}

interface VmOptions {
  readonly isProtected?: boolean;
  /** The only host of its disk. */
  readonly disk?: string;
  readonly memoryMiB?: number;
}

class Lab {
  readonly world: World;
  readonly shared: Shared = createShared();
  readonly points: (Point & { readonly host: string })[] = [];

  constructor(changes: Partial<Strategies>, hostCount = 5) {
    const strategies = { ...productStrategies, ...changes };
    const size = { cpus: 8, memoryBytes: 16 * GiB, diskBytes: 64 * GiB };
    const hosts = Array.from({ length: hostCount }, (_, index) => ({
      name: `h${index + 1}`,
      kind: 'full' as const,
      drift: 0,
      site: null,
      ...size,
    }));
    this.world = new World({
      seed: 7,
      hosts,
      networks: 'separate',
      loss: { storage: 0, ha: 0 },
      timings,
      workload: { intervalMs: 500, blocks: 0 },
      settle,
      log: null,
      parts: () => countingPartsFor(strategies, this.shared),
    });
    this.world.observe({
      reached: (machine, point) => {
        if (point.at.startsWith('ha.')) this.points.push({ ...point, host: machine.name });
      },
    });
    for (const machine of this.world.machines) machine.powerOn();
    this.until(() => this.world.machines.every((one) => one.host?.manager.status().master != null));
    for (const { name, components } of hiddenVms(strategies, hosts)) {
      this.create(name, components ?? [], { isProtected: false });
    }
    this.run(1000);
  }

  get counters() {
    return this.shared.counters;
  }

  run(ms: number): void {
    this.world.time.advance(ms);
  }

  until(condition: () => boolean, limitMs = 20_000): void {
    const isSo = this.world.time.advanceUntil(condition, limitMs);
    if (!isSo) throw new Error(`still not so after ${limitMs} ms`);
  }

  manager(host = 'h1') {
    const manager = this.world.manager(host);
    if (manager === null) throw new Error(`${host} is down`);
    return manager;
  }

  create(name: string, hosts: readonly string[], options: VmOptions = {}) {
    const { isProtected = true, disk = null, memoryMiB = 64 } = options;
    const policy = { failuresToTolerate: (hosts.length - 1) / 2, stripes: 1 };
    const diskPolicy = disk === null ? policy : { failuresToTolerate: 0, stripes: 1 };
    this.world.addVm(name, [MiB]);
    this.world.time.await(
      this.manager().createVm({
        name,
        memoryBytes: memoryMiB * MiB,
        disks: [{ sizeBytes: MiB, policy: diskPolicy }],
        protected: isProtected,
        hosts: hosts.map(hostId),
        ...(disk === null ? {} : { objectHosts: { disk0: [hostId(disk)] } }),
      }),
    );
  }

  powerOn(name: string, on: string): void {
    this.world.time.await(this.manager(on).startVm(name, { on: hostId(on) }));
  }

  /** Makes a protected VM with its objects on `hosts`, running on `on`. */
  vm(name: string, on: string, hosts: readonly string[], options: VmOptions = {}): void {
    this.create(name, hosts, options);
    this.powerOn(name, on);
    this.until(() => this.isProtected(name, on));
  }

  isProtected(name: string, by: string): boolean {
    return this.manager(by).vm(name).protection.status === 'protected';
  }

  runsOn(name: string): string[] {
    return this.world.machines
      .filter((one) => one.guest(name)?.state === 'running')
      .map((one) => one.name);
  }

  crash(host: string): void {
    this.world.machine(host).cutPower();
  }

  count(at: Point['at']): number {
    return this.points.filter((point) => point.at === at).length;
  }
}

const first = ['h1', 'h2'];
const others = ['h3', 'h4', 'h5'];
const files = ['central-file', 'witness-file', 'segmented-file', 'per-vm-file'] as const;

test(
  'the product gets no parts, and restarts where the VM is',
  inTurn(() => {
    expect(partsFor(productStrategies, createShared())).toEqual({});
    const lab = new Lab({});
    lab.vm('web', 'h3', others);
    lab.world.partition('both', [first, others]);
    lab.run(5000);
    lab.crash('h3');
    lab.until(() => lab.runsOn('web').length === 1);
    expect(lab.runsOn('web')).not.toContain('h3');
  }),
);

test(
  'a central file on the wrong side: nothing can be protected, and nothing is known',
  inTurn(() => {
    const lab = new Lab({ protection: 'central-file' });
    lab.vm('web', 'h3', others);
    lab.create('late', others);
    expect(
      lab
        .manager()
        .vms()
        .filter((one) => isHidden(one.name)),
    ).toHaveLength(1);
    lab.world.partition('both', [
      [...first, 'h5'],
      ['h3', 'h4'],
    ]);
    lab.run(8000);
    expect(lab.runsOn('web')).toEqual(['h3']);
    lab.powerOn('late', 'h3');
    lab.run(5000);
    expect(lab.isProtected('late', 'h3')).toBe(false);
    expect(lab.isProtected('web', 'h4')).toBe(false);
    expect(lab.counters.protectionUpdatesRefused).toBe(1);
    expect(lab.counters.mastersThatDoNotKnow).toBe(1);
    lab.world.heal('both');
    lab.until(() => lab.isProtected('late', 'h1'));
    // A master that can read it does what it does in the product.
    lab.crash('h3');
    lab.until(() => lab.runsOn('web').length === 1 && lab.runsOn('late').length === 1);
  }),
);

test(
  'a VM that its user switched off is not restarted, by a file either',
  inTurn(() => {
    for (const protection of files) {
      const lab = new Lab({ protection }, 3);
      lab.vm('web', 'h2', ['h1', 'h2', 'h3']);
      lab.world.time.await(lab.manager('h3').stopVm('web', { force: true }));
      lab.run(3000);
      lab.crash('h2');
      lab.run(10_000);
      expect([protection, lab.count('ha.restarting')]).toEqual([protection, 0]);
      lab.powerOn('web', 'h3');
      lab.until(() => lab.isProtected('web', 'h3'));
    }
  }),
);

test(
  'files of single VMs: the new master knows late, the later the more there are',
  inTurn(() => {
    const knows = (vms: number) => {
      const lab = new Lab({ protection: 'per-vm-file' });
      for (let index = 0; index < vms; index += 1) lab.vm(`web-${index}`, 'h4', others);
      const before = lab.counters.enumerationReads;
      const elections = lab.count('ha.elected');
      lab.crash('h1');
      lab.until(() => lab.manager('h2').status().master === 'h2');
      expect(lab.count('ha.elected')).toBe(elections + 1);
      lab.until(() => lab.counters.mastersThatDoNotKnow === 0);
      expect(lab.counters.enumerationReads - before).toBeGreaterThanOrEqual(3 * vms);
      lab.crash('h4');
      lab.until(() => lab.runsOn('web-0').length === 1);
      return lab.counters.masterKnowsMs;
    };
    const few = knows(2);
    expect(few).toBeGreaterThan(3);
    expect(knows(8)).toBeGreaterThan(3 * few);
  }),
);

test(
  'a witness file: read everywhere, written only by the master that has the role',
  inTurn(() => {
    const lab = new Lab({ protection: 'witness-file' });
    lab.vm('web', 'h4', others);
    lab.world.partition('ha', [['h1', 'h2'], others]);
    lab.run(8000);
    lab.create('late', others);
    lab.powerOn('late', 'h5');
    lab.run(5000);
    // The master of the other partition keeps the role as long as it lives.
    expect(lab.isProtected('late', 'h5')).toBe(false);
    expect(lab.counters.protectionUpdatesRefused).toBe(1);
    expect(lab.isProtected('web', 'h4')).toBe(true);
    lab.crash('h4');
    lab.until(() => lab.runsOn('web').length === 1);
    lab.crash('h1');
    lab.until(() => lab.isProtected('late', 'h5'), 30_000);
  }),
);

test(
  'segments of masters: what two partitions wrote is merged by the clock, and an update is lost',
  inTurn(() => {
    const lab = new Lab({ protection: 'segmented-file' });
    lab.vm('web', 'h1', others);
    lab.world.partition('both', [first, others]);
    // There web is restarted and protected at its next epoch; here its user, later, switches it off.
    lab.until(() => lab.runsOn('web').some((host) => others.includes(host)));
    const now = lab.runsOn('web').find((host) => others.includes(host)) ?? '';
    lab.until(() => lab.isProtected('web', now));
    lab.run(3000);
    void lab
      .manager('h1')
      .stopVm('web', { force: true })
      .catch(() => undefined);
    lab.run(10_000);
    expect(lab.counters.protectionUpdatesRefused).toBe(0);
    expect(lab.counters.protectionConflicts).toBe(0);
    lab.world.heal('both');
    lab.run(10_000);
    expect(lab.counters.protectionConflicts).toBe(1);
    expect(lab.counters.protectionUpdatesLost).toBe(1);
    // The agent that runs it sees that, and reports it once more.
    lab.until(() => lab.isProtected('web', now));
  }),
);

test(
  'restart without asking: starts are tried in vain until the objects are back',
  inTurn(() => {
    const failures = (failover: Strategies['failover']) => {
      const lab = new Lab({ failover });
      lab.vm('web', 'h5', ['h5', 'h4', 'h1']);
      lab.crash('h5');
      lab.crash('h4');
      lab.run(30_000);
      const failed = lab.points.filter((point) => point.at === 'ha.restartFailed');
      expect(
        failed.every((point) => point.at === 'ha.restartFailed' && point.code === 'inaccessible'),
      ).toBe(true);
      lab.world.machine('h4').powerOn();
      lab.until(() => lab.runsOn('web').length === 1, 60_000);
      return failed.length;
    };
    expect(failures('accessibility-aware')).toBe(0);
    expect(failures('conventional')).toBeGreaterThan(3);
  }),
);

test(
  'the namespace object alone: a start fails where only a disk is missing',
  inTurn(() => {
    const failures = (accessible: Strategies['accessible']) => {
      const lab = new Lab({ accessible });
      lab.vm('web', 'h1', ['h2', 'h3', 'h4'], { disk: 'h5' });
      lab.crash('h5');
      lab.crash('h1');
      lab.run(20_000);
      const failed = lab.count('ha.restartFailed');
      lab.world.machine('h5').powerOn();
      lab.until(() => lab.runsOn('web').length === 1, 60_000);
      return failed;
    };
    expect(failures('all')).toBe(0);
    expect(failures('namespace-only')).toBeGreaterThan(0);
  }),
);

test(
  'notices once a minute come late; notices without names cost a query of the whole list',
  inTurn(() => {
    const restarted = (notify: Strategies['notify']) => {
      const lab = new Lab({ notify });
      lab.vm('web', 'h5', ['h5', 'h4', 'h1']);
      lab.crash('h5');
      lab.crash('h4');
      lab.run(15_000);
      lab.world.machine('h4').powerOn();
      const backAtMs = lab.world.time.now();
      lab.until(() => lab.runsOn('web').length === 1, 2 * noticeIntervalMs);
      return {
        afterMs: lab.world.time.now() - backAtMs,
        queries: lab.counters.accessibilityQueries,
      };
    };
    const prompt = restarted('vm');
    expect(prompt.afterMs).toBeLessThan(10_000);
    const object = restarted('object');
    expect(object.afterMs).toBeLessThan(10_000);
    expect(object.queries).toBeGreaterThan(prompt.queries);
    expect(restarted('interval').afterMs).toBeGreaterThan(20_000);
  }),
);

test(
  'by trial: a host is told to start what it can not reach',
  inTurn(() => {
    const failures = (access: Strategies['access']) => {
      const lab = new Lab({ access });
      for (const host of ['h1', 'h2', 'h3']) {
        lab.vm(`big-${host}`, host, ['h1', 'h2', 'h3'], { memoryMiB: 10 * 1024 });
      }
      lab.vm('web', 'h5', ['h2', 'h3', 'h5'], { memoryMiB: 10 * 1024 });
      // The only host with room reaches the master, but not the VM.
      for (const host of ['h2', 'h3']) {
        lab.world.block('storage', 'h4', host);
        lab.world.block('storage', host, 'h4');
      }
      lab.run(4000);
      lab.crash('h5');
      lab.run(20_000);
      return lab.count('ha.restartFailed');
    };
    expect(failures('query')).toBe(0);
    expect(failures('publish')).toBe(0);
    expect(failures('trial')).toBeGreaterThan(0);
  }),
);

test('what is published is up to a second old', () => {
  const time = new VirtualTime(() => {});
  const life = new Life(new Process(time, new MachineClock(time, 0)));
  const vm = vmId('web');
  let accessible = true;
  const answer = published(
    {
      vms: () => [{ vm }],
      accessibility: () => new Map([[vm, { accessible }]]),
    } as unknown as Storage,
    life,
  );
  life.begin();
  time.advance(1001);
  accessible = false;
  time.advance(900);
  expect(answer([vm])).toEqual([vm]);
  time.advance(100);
  expect(answer([vm])).toEqual([]);
  life.end();
  time.advance(10_000);
  expect(time.step()).toBe(false);
});

test(
  'peers: each restarts for itself, and the lock decides between two of them',
  inTurn(() => {
    const lab = new Lab({ coordination: 'peers' });
    lab.vm('web', 'h3', [...first, ...others]);
    lab.crash('h3');
    lab.until(() => lab.runsOn('web').length === 1);
    expect(lab.count('ha.restarting')).toBe(1);
    lab.run(3000);
    expect(lab.manager('h1').status().master).toBe('h1');
    // Where they do not hear each other, all begin at once.
    lab.world.partition('ha', [['h1'], ['h2'], ['h4'], ['h5']]);
    lab.run(4000);
    const before = lab.count('ha.restarting');
    lab.crash(lab.runsOn('web')[0] ?? '');
    lab.until(() => lab.runsOn('web').length === 1);
    lab.run(5000);
    expect(lab.runsOn('web')).toHaveLength(1);
    expect(lab.count('ha.restarting') - before).toBeGreaterThan(1);
  }),
);

test(
  'peers with each kind of file',
  inTurn(() => {
    for (const protection of files) {
      const lab = new Lab({ coordination: 'peers', protection });
      lab.vm('web', 'h5', others);
      lab.vm('db', 'h4', [...first, 'h4']);
      lab.crash('h5');
      lab.until(() => lab.runsOn('web').length === 1);
      lab.world.time.await(lab.manager('h1').stopVm('db', { force: true }));
      const before = lab.count('ha.restarting');
      lab.run(10_000);
      // Nobody tells the peers what changed in a file of a single VM: they try until they look again.
      const most = protection === 'per-vm-file' ? 40 : 0;
      expect(lab.count('ha.restarting') - before).toBeLessThanOrEqual(most);
      expect(lab.runsOn('db')).toEqual([]);
    }
  }),
);
