import { describe, expect, it } from 'vitest';
import { voter } from '../../../test/support/records.ts';
import { hostId } from '../../model/ids.ts';
import type { Voting } from '../../model/record.ts';
import { type LiveWorld, liveness } from './liveness.ts';

interface FakeHost {
  master: string;
  state: string;
  waiting: { name: string; reason: string }[];
  /** Of the component on each host, as this one sees it. */
  states: Record<string, string>;
  accessible: boolean;
  protection: string;
}

/** Three machines with one VM, `web`, of one disk object with copies on h1 and h2; all is well. */
class Fake {
  readonly hosts: Record<string, FakeHost> = {};
  readonly guests: Record<string, { state: string }> = { h1: { state: 'running' } };
  readonly off = new Set<string>();
  readonly frozen = new Set<string>();
  readonly emptied = new Set<string>();
  readonly failed = new Set<string>();
  cut: (a: string, b: string) => boolean = () => false;
  ready = true;
  lastMs = 0;
  memoryBytes = 100;
  doubtful: Voting | null = null;

  constructor() {
    for (const name of ['h1', 'h2', 'h3']) {
      this.hosts[name] = {
        master: 'h1',
        state: name === 'h1' ? 'master' : 'connectedToMaster',
        waiting: [],
        states: { h1: 'active', h2: 'active' },
        accessible: true,
        protection: 'protected',
      };
    }
  }

  problems(shouldRun = true): string[] {
    return liveness(this.#world(), [{ name: 'web', shouldRun }], {
      lastAcknowledgedMs: () => this.lastMs,
      doubtful: () => this.doubtful,
    });
  }

  #world(): LiveWorld {
    const machines = Object.keys(this.hosts).map((name) => ({
      name: hostId(name),
      member: { kind: 'full' },
      isPowered: !this.off.has(name),
      isFrozen: this.frozen.has(name),
      host: this.off.has(name) ? null : { manager: this.#manager(name) },
      devices: [],
      diskWith: (file: string) =>
        !this.emptied.has(name) && file === `components/on-${name}.data` ? {} : null,
      guest: () => this.guests[name] ?? null,
    }));
    const world = {
      machines,
      areLinked: (network: string, a: string, b: string) =>
        a === b || network === 'ha' || !this.cut(a, b),
      nowMs: () => 60_000,
      options: {
        hosts: machines.map(({ name }) => ({ name, cpus: 8, memoryBytes: this.memoryBytes })),
        workload: { intervalMs: 1000, blocks: 8 },
        timings: { leaseDurationMs: 4000 },
      },
    };
    this.lastMs ||= 59_000;
    return world as unknown as LiveWorld;
  }

  #manager(name: string) {
    const host = this.hosts[name] as FakeHost;
    const components = ['h1', 'h2'].map((on) => ({
      component: `on-${on}`,
      host: on,
      stripe: 0,
      state: host.states[on],
    }));
    const object = { object: 'o', name: 'disk0', voters: ['h1', 'h2', 'h3'], components };
    const vm = {
      name: 'web',
      ready: this.ready,
      accessible: host.accessible,
      protection: { status: host.protection },
      spec: { protected: true, memoryBytes: 60, cpus: 1, disks: [{}] },
      objects: [object],
    };
    return {
      status: () => ({ master: host.master, waiting: host.waiting }),
      hosts: () => [
        {
          name,
          state: host.state,
          storage: this.failed.has(name) ? 'failed' : 'reachable',
          problem: this.failed.has(name) ? 'a sync failed' : null,
        },
      ],
      vms: () => [vm],
      vm: () => vm,
    };
  }

  host(name: string): FakeHost {
    return this.hosts[name] as FakeHost;
  }
}

describe('liveness', () => {
  it('finds nothing where all is well', () => {
    expect(new Fake().problems()).toEqual([]);
  });

  it('tells of daemons that do not work', () => {
    const fake = new Fake();
    fake.frozen.add('h3');
    expect(fake.problems()).toEqual(['h3 is on, and its daemon does not work']);
    fake.off.add('h3');
    expect(fake.problems()).toEqual([]);
  });

  it('tells once of a store that does not work', () => {
    const fake = new Fake();
    fake.failed.add('h2');
    for (const host of Object.values(fake.hosts)) host.states = { h1: 'active', h2: 'absent' };
    expect(fake.problems()).toEqual(['the store of h2 has failed: a sync failed']);
  });

  it('tells of no master, of two, and of who follows another', () => {
    const none = new Fake();
    none.host('h1').state = 'election';
    expect(none.problems()[0]).toContain('have 0 masters');
    const two = new Fake();
    two.host('h2').state = 'master';
    expect(two.problems()[0]).toContain('have 2 masters');
    const lost = new Fake();
    lost.host('h3').master = 'h2';
    expect(lost.problems()).toEqual(['h3 follows h2; master is h1']);
  });

  it('tells of a VM that runs nowhere, twice, stands, or should not run', () => {
    const nowhere = new Fake();
    delete nowhere.guests['h1'];
    expect(nowhere.problems()).toEqual(['web does not run']);
    expect(nowhere.problems(false)).toEqual([]);
    const twice = new Fake();
    twice.guests['h2'] = { state: 'running' };
    expect(twice.problems()[0]).toContain('runs more than once');
    const stands = new Fake();
    stands.guests['h1'] = { state: 'paused' };
    expect(stands.problems()[0]).toContain('web does not run: it is paused on h1');
    expect(new Fake().problems(false)[0]).toContain('should not run');
  });

  it('tells of a VM that does nothing', () => {
    const silent = new Fake();
    silent.ready = false;
    expect(silent.problems()[0]).toContain('does not hear it');
    const idle = new Fake();
    idle.lastMs = 10_000;
    expect(idle.problems()[0]).toContain('runs on h1, and nothing of it');
  });

  it('tells of a copy that does not come back, unless it is gone', () => {
    const fake = new Fake();
    for (const host of Object.values(fake.hosts)) host.states = { h1: 'active', h2: 'stale' };
    expect(fake.problems()).toHaveLength(3);
    expect(fake.problems()[0]).toBe('web disk0: the copy on h2 is stale, says h1');
    fake.emptied.add('h2');
    expect(fake.problems()).toEqual([]);
  });

  it('tells of a host that has not heard how the VM is', () => {
    const fake = new Fake();
    fake.host('h3').protection = 'pending';
    fake.host('h2').accessible = false;
    expect(fake.problems()).toEqual(['h2 takes web for inaccessible', 'web is pending, says h3']);
  });
});

describe('wait lists', () => {
  const waiting = (reason: string) => {
    const fake = new Fake();
    delete fake.guests['h1'];
    fake.host('h1').waiting = [{ name: 'web', reason }];
    return fake;
  };
  const reasons = (fake: Fake) => fake.problems(false);

  it('tells of a VM that waits though it runs', () => {
    const fake = waiting('lock');
    fake.guests['h2'] = { state: 'running' };
    expect(fake.problems()[0]).toContain('it runs on h2');
  });

  it('holds storage against what can be reached', () => {
    expect(reasons(waiting('storage'))).toEqual([
      'web waits for storage on h1: h1 can use all its objects',
    ]);
    const alone = waiting('storage');
    alone.cut = () => true;
    expect(reasons(alone)).toEqual([]);
    const stale = waiting('storage');
    stale.off.add('h1');
    stale.host('h2').states = { h1: 'absent', h2: 'stale' };
    stale.host('h2').waiting = stale.host('h1').waiting;
    stale.host('h2').state = 'master';
    for (const host of Object.values(stale.hosts)) host.master = 'h2';
    expect(reasons(stale)).toEqual([]);
    const doubtful = waiting('storage');
    const voters = ['h1', 'h2', 'h3'].map((name) => voter(name));
    doubtful.doubtful = { voters, nextVoters: ['h1', 'h8', 'h9'].map((name) => voter(name)) };
    expect(reasons(doubtful)).toEqual([]);
  });

  it('holds a lock against the guests that exist', () => {
    expect(reasons(waiting('lock'))).toEqual([
      'web waits for lock on h1: no guest of it is anywhere',
    ]);
    const paused = waiting('lock');
    paused.guests['h3'] = { state: 'paused' };
    expect(reasons(paused)).toEqual([]);
  });

  it('holds capacity against the room there is', () => {
    expect(reasons(waiting('capacity'))).toEqual(['web waits for capacity on h1: h1 has room']);
    const full = waiting('capacity');
    full.memoryBytes = 50;
    expect(reasons(full)).toEqual([]);
  });
});
