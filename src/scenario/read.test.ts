import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readScenario } from './read.ts';
import { productStrategies, type Scenario } from './scenario.ts';

/** Every key of the format; as a whole it makes no sense, and a VM is missing. */
const everyKey = `name: Storage network splits three to three, HA network whole
seed: 7                            # optional, default 1
pending: remote SET                # optional: its failing checks are reported as pending; all passing is then an error
duration: 120s                     # how long to run; default: last step or check + 60s
cluster:
  hosts: 6                         # h1..h6; or a list, see below
  networks: separate               # separate (default) | shared
  options: {leaseDuration: 4s}     # any cluster option of the product
  drift: {h1: 0.5%}                # clock rates, simulator only
  loss: {storage: 0.1%, ha: 0%}    # random loss
  backend: builtin                 # | ceph (lab only)
  guest: qemu                      # | process (lab only)
strategies:                        # optional; left out = the product's own
  protection: namespace-metadata   # | central-file | per-vm-file | witness-file | segmented-file
  failover: accessibility-aware    # | conventional
  coordination: master             # | peers
  access: query                    # | publish | trial   (how a master learns who can reach a VM)
  notify: vm                       # | object | interval (form of the accessibility notification)
  accessible: all                  # | namespace-only    (what the storage layer can answer)
vms:
  - name: web                      # count > 1 gives web-1 .. web-10
    count: 10
    on: h4                         # powered on there at time 0; left out: spread
    cpus: 1
    memoryMiB: 1024
    disks: [8GiB]                  # default one disk of 1GiB
    policy: {failuresToTolerate: 1, stripes: 1}
    components: [h4, h5, h6]       # optional: pins the hosts of all its objects: data copies first, then witnesses
    objects: {disk0: [h1, h2, h3]} # optional: pins one object (namespace, disk0, disk1, ...)
    required: [namespace, disk0]   # optional: the objects that must be accessible (default all)
    storage: object                # | shared: an ordinary VM on storage that every host sees
    protected: true                # default true
    priority: medium               # highest | high | medium | low | lowest
    after: [db]                    # starts only when these are running
    separate: web                  # VMs with the same label go to different hosts where possible
    powered: on                    # | off
steps:
  - {at: 10s, partition: storage, groups: [[h1, h2, h3], [h4, h5, h6]]}   # ha | storage | both
  - {at: 12s, block: ha, from: h1, to: h2}       # one direction only
  - {at: 14s, isolate: h2, network: both}        # ha | storage | both
  - {at: 20s, crash: h4}                         # power lost: daemon, guards, guests, un-synced writes
  - {at: 40s, boot: h4}                          # power back
  - {at: 22s, stopDaemon: h5}                    # kill -9 of the daemon alone; guests and guards live
  - {at: 23s, startDaemon: h5}
  - {at: 24s, freeze: h6, for: 20s}              # the daemon stands still, its guests do not
  - {at: 25s, killGuest: web-1}                  # the guest's process dies
  - {at: 26s, hangGuest: web-2}                  # the guest stops its heartbeat
  - {at: 27s, powerOff: web-3}                   # as a user would; powerOn: likewise, {via: h2} picks the host that is asked
  - {at: 28s, failDisk: h1}                      # the host's storage device is gone; repairDisk: brings an empty one
  - {at: 28s, slowDisk: h2, by: 200ms}           # each operation takes that much longer; by: 0ms ends it
  - {at: 28s, fillDisk: h3}                      # no space left; freeDisk: ends it
  - {at: 28s, migrate: web-5, to: h6}
  - {at: 29s, maintenance: h3, on: true}
  - {at: 60s, heal: all}                         # ha | storage | all: partitions, blocks and isolations
expect:
  - {at: 40s, vm: "web-*", state: running, on: [h5, h6]}    # running | off | waiting | paused
  - {at: 40s, vm: web-4, state: waiting, for: storage}      # storage | capacity | lock | dependency | retry
  - {from: 20s, to: 60s, vm: db, never: running}
  - {at: 40s, masters: [[h1, h2, h3], [h4, h5, h6]]}        # exactly one master in each group
  - {at: 40s, protected: "web-*"}                           # as the directory of every host that can reach them says
  - {vm: "web-*", restartedWithin: 8s}                      # from the failure to the guest's start, each VM
  - {counter: restartAttemptsFailed, max: 0}
`;

const hostDies = `name: A host dies
cluster: {hosts: 3, networks: shared}
vms: [{name: v, count: 4, on: h1}]
steps: [{at: 20s, crash: h1}]
expect:
  - {at: 40s, vm: "v-*", state: running, on: [h2, h3]}
  - {vm: "v-*", restartedWithin: 8s}
  - {counter: restartAttemptsFailed, max: 0}
`;

const storageSplits = `name: Storage splits, HA does not; a host on each side dies
cluster: {hosts: 6, networks: separate}
vms:
  - {name: near, count: 3, on: h2, components: [h1, h2, h3]}
  - {name: far, count: 3, on: h5, components: [h4, h5, h6]}
steps:
  - {at: 20s, partition: storage, groups: [[h1, h2, h3], [h4, h5, h6]]}
  - {at: 40s, crash: h2}
  - {at: 41s, crash: h5}
expect:
  - {at: 30s, masters: [[h1, h2, h3, h4, h5, h6]]}
  - {at: 60s, vm: "near-*", state: running, on: [h1, h3]}
  - {at: 60s, vm: "far-*", state: running, on: [h4, h6]}
`;

/** Six hosts, the VMs web-1 to web-3 and db, and what is given, from line 6 on. */
const withVms = (rest: string, cluster = '{hosts: 6}') => `name: test
cluster: ${cluster}
vms:
  - {name: web, count: 3}
  - {name: db}
${rest}`;

describe('examples', () => {
  it('reads a host that dies, with all defaults', () => {
    const host = {
      kind: 'full',
      cpus: 16,
      memoryBytes: 64 * 2 ** 30,
      diskBytes: 2000 * 2 ** 30,
      site: null,
    } as const;
    const vm = {
      on: 'h1',
      cpus: 1,
      memoryBytes: 2 ** 30,
      disksBytes: [2 ** 30],
      policy: { failuresToTolerate: 1, stripes: 1 },
      components: null,
      objects: {},
      required: null,
      storage: 'object',
      protected: true,
      priority: 'medium',
      after: [],
      separate: null,
      readyWhen: null,
      affinity: null,
      isolationResponse: null,
      whenHung: null,
      powered: true,
    } as const;
    const vms = ['v-1', 'v-2', 'v-3', 'v-4'];
    const expected: Scenario = {
      name: 'A host dies',
      seed: 1,
      pending: null,
      durationMs: 100_000,
      cluster: {
        hosts: ['h1', 'h2', 'h3'].map((name) => ({ name, ...host })),
        networks: 'shared',
        options: {},
        drift: {},
        loss: { storage: 0, ha: 0 },
        backend: 'builtin',
        guest: 'qemu',
      },
      strategies: productStrategies,
      vms: vms.map((name) => ({ name, ...vm })),
      steps: [{ atMs: 20_000, kind: 'crash', host: 'h1' }],
      expect: [
        {
          text: 'at 40s vm v-* state running on h2, h3',
          kind: 'state',
          atMs: 40_000,
          vms,
          state: 'running',
          on: ['h2', 'h3'],
          for: null,
        },
        {
          text: 'vm v-* restartedWithin 8s',
          kind: 'restartedWithin',
          vms,
          withinMs: 8000,
        },
        {
          text: 'counter restartAttemptsFailed max 0',
          kind: 'counter',
          counter: 'restartAttemptsFailed',
          min: null,
          max: 0,
        },
      ],
    };
    expect(readScenario(hostDies)).toEqual(expected);
  });

  it('reads a split of the storage network', () => {
    const { durationMs, vms, steps, expect: checks } = readScenario(storageSplits);
    expect(durationMs).toBe(120_000);
    expect(vms.map((vm) => vm.name)).toEqual([
      'near-1',
      'near-2',
      'near-3',
      'far-1',
      'far-2',
      'far-3',
    ]);
    expect(vms[5]?.components).toEqual(['h4', 'h5', 'h6']);
    expect(steps.map((step) => step.kind)).toEqual(['partition', 'crash', 'crash']);
    expect(checks[0]?.text).toBe('at 30s masters h1 h2 h3 h4 h5 h6');
  });

  it('reads every key; only the VM that is named and not there is wrong', () => {
    expect(() => readScenario(everyKey)).toThrow(
      'line 34: vms[0].after[0]: there is no VM "db"\nline 58: expect[2].vm: there is no VM "db"',
    );
    const scenario = readScenario(everyKey.replace('\nsteps:', '\n  - {name: db}\nsteps:'));
    expect(scenario).toMatchObject({
      seed: 7,
      pending: 'remote SET',
      durationMs: 120_000,
      cluster: {
        options: { leaseDuration: 4000 },
        drift: { h1: 0.005 },
        loss: { storage: 0.001, ha: 0 },
      },
    });
    expect(scenario.vms).toHaveLength(11);
    expect(scenario.vms[9]).toMatchObject({
      name: 'web-10',
      disksBytes: [8 * 2 ** 30],
      objects: { disk0: ['h1', 'h2', 'h3'] },
      required: ['namespace', 'disk0'],
      after: ['db'],
      separate: 'web',
    });
    expect(scenario.steps.map((step) => step.atMs / 1000)).toEqual([
      10, 12, 14, 20, 22, 23, 24, 25, 26, 27, 28, 28, 28, 28, 29, 40, 60,
    ]);
    expect(scenario.steps.at(-1)).toEqual({ atMs: 60_000, kind: 'heal', network: 'both' });
    expect(scenario.expect.map((check) => check.text)).toEqual([
      'at 40s vm web-* state running on h5, h6',
      'at 40s vm web-4 state waiting for storage',
      'from 20s to 60s vm db never running',
      'at 40s masters h1 h2 h3 | h4 h5 h6',
      'at 40s protected web-*',
      'vm web-* restartedWithin 8s',
      'counter restartAttemptsFailed max 0',
    ]);
  });
});

it('the example of the guide is one', () => {
  const guide = readFileSync(new URL('../../docs/scenarios.md', import.meta.url), 'utf8');
  const [, example = ''] = /```yaml\n(.*?)```/s.exec(guide) ?? [];
  expect(() => readScenario(example)).not.toThrow();
});

describe('what stands for more', () => {
  it('hosts in no group form one together', () => {
    const text = withVms('steps: [{at: 1s, partition: ha, groups: [[h1, h5]]}]');
    expect(readScenario(text).steps[0]).toMatchObject({
      groups: [
        ['h1', 'h5'],
        ['h2', 'h3', 'h4', 'h6'],
      ],
    });
  });

  it('steps are in order of time, and of the file', () => {
    const text = withVms('steps: [{at: 2s, crash: h1}, {at: 1s, crash: h2}, {at: 2s, boot: h1}]');
    expect(readScenario(text).steps.map((step) => step.kind)).toEqual(['crash', 'crash', 'boot']);
    expect(readScenario(text).steps.map((step) => step.atMs)).toEqual([1000, 2000, 2000]);
  });

  it('the name of a counted entry stands for its VMs in `after`', () => {
    const text = withVms(
      '  - {name: last, after: [web, db, web-2]}\n  - {name: old, after: [last]}',
    );
    const { vms } = readScenario(text);
    expect(vms[4]?.after).toEqual(['web-1', 'web-2', 'web-3', 'db']);
    expect(vms[5]?.after).toEqual(['last']);
  });

  it.each([
    ['web-*', ['web-1', 'web-2', 'web-3']],
    ['*', ['web-1', 'web-2', 'web-3', 'db']],
    ['*b-*2', ['web-2']],
    ['*b*', ['web-1', 'web-2', 'web-3', 'db']],
    ['w*b-1', ['web-1']],
    ['web-1*', ['web-1']],
    ['db', ['db']],
  ])('the pattern %s', (pattern, vms) => {
    const text = withVms(`expect: [{at: 1s, protected: "${pattern}"}]`);
    expect(readScenario(text).expect[0]).toMatchObject({ vms });
  });

  it('aliases repeat what they name', () => {
    const text = `name: test
cluster: {hosts: 6}
vms:
  - {name: a, components: &left [h1, h2, h3]}
  - {name: b, components: *left}
`;
    expect(readScenario(text).vms[1]?.components).toEqual(['h1', 'h2', 'h3']);
  });

  it('percentages are not rounded', () => {
    const cluster = '{hosts: 3, drift: {h1: -0.7%, h2: +10%, h3: -0%}, loss: {ha: 100%}}';
    const { drift, loss } = readScenario(`name: test\ncluster: ${cluster}`).cluster;
    expect(drift).toEqual({ h1: -0.007, h2: 0.1, h3: 0 });
    expect(loss).toEqual({ storage: 0, ha: 1 });
  });
});
