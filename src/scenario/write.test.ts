import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { limits } from '../model/limits.ts';
import { hostsNeeded, type StoragePolicy } from '../model/policy.ts';
import { checkText, matching } from './check-text.ts';
import { defaultDurationMs, numberedHosts } from './defaults.ts';
import { readScenario } from './read.ts';
import {
  type Check,
  type CheckKind,
  counterNames,
  productStrategies,
  type Scenario,
  type ScenarioDevice,
  type ScenarioHost,
  type ScenarioVm,
  type Step,
  type StepKind,
  type Strategies,
} from './scenario.ts';
import { writeScenario } from './write.ts';

/** A value of the run of a property. */
type Draw = <T>(arbitrary: fc.Arbitrary<T>) => T;

const text = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 20 })
  .filter((line) => line.trim() !== '' && !/\p{Cc}/u.test(line));
const time = fc.oneof(
  fc.nat(600).map((s) => s * 1000),
  fc.nat(600_000),
);
/** -0 is written as 0. */
const fraction = (max: number) => fc.double({ min: 0, max, noNaN: true }).map((one) => one + 0);
/** A few that YAML takes for something else, and a few that look counted. */
const name = fc.oneof(
  fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?$/),
  fc.constantFrom('a-1', 'a-2', 'a-3', '1e5', 'null', 'on', '0x1', 'true', '12'),
);

const host = fc.record<ScenarioHost>({
  name,
  kind: fc.constantFrom('full', 'full', 'witness'),
  cpus: fc.integer({ min: 1, max: 64 }),
  memoryBytes: fc.integer({ min: 2 ** 20, max: 2 ** 40 }),
  diskBytes: fc.oneof(fc.constant(2000 * 2 ** 30), fc.nat(2 ** 40)),
  site: fc.option(text),
});

const device = fc.record<ScenarioDevice>({
  name: name.filter((one) => one !== 'main'),
  class: fc.constantFrom('fast', 'large'),
  diskBytes: fc.oneof(fc.constant(2000 * 2 ** 30), fc.nat(2 ** 40)),
});

/** Of few only something more than usual is said. */
const hostOfDevices = fc
  .tuple(
    host,
    fc.option(fc.constantFrom('fast' as const, 'large' as const)),
    fc.uniqueArray(device, { maxLength: 3, selector: (one) => one.name }),
  )
  .map(
    ([plain, diskClass, devices]): ScenarioHost => ({
      ...plain,
      ...(diskClass === null ? {} : { diskClass }),
      ...(devices.length === 0 ? {} : { devices }),
    }),
  );

const hostList = fc.oneof(
  fc.integer({ min: 1, max: 7 }).map(numberedHosts),
  fc
    .uniqueArray(hostOfDevices, { minLength: 1, maxLength: 7, selector: (one) => one.name })
    .map(([first, ...others]): ScenarioHost[] => [
      { ...(first as ScenarioHost), kind: 'full' },
      ...others,
    ]),
);

const fullNames = (hosts: readonly ScenarioHost[]): string[] =>
  hosts.filter((one) => one.kind === 'full').map((one) => one.name);

function drawVm(
  draw: Draw,
  vmName: string,
  hosts: readonly ScenarioHost[],
  before: readonly ScenarioVm[],
): ScenarioVm {
  const full = fullNames(hosts);
  const bearable = [0, 1, 2, 3].filter((f) => 2 * f + 1 <= hosts.length && f < full.length);
  const failuresToTolerate = draw(fc.constantFrom(...bearable));
  const deviceClass = draw(
    fc.constantFrom(undefined, undefined, 'fast' as const, 'large' as const),
  );
  const policy = {
    failuresToTolerate,
    stripes: draw(fc.integer({ min: 1, max: 12 })),
    ...(deviceClass === undefined ? {} : { deviceClass }),
  };
  const pin = (): string[] => {
    const data = draw(fc.shuffledSubarray(full, { minLength: failuresToTolerate + 1 }));
    const copies = data.slice(0, failuresToTolerate + 1);
    const others = hosts.map((one) => one.name).filter((one) => !copies.includes(one));
    return [...copies, ...others].slice(0, hostsNeeded(policy));
  };
  const disksBytes = draw(
    fc.array(
      fc.nat(10_000).map((blocks) => (256 + blocks) * 4096),
      { minLength: 1, maxLength: 3 },
    ),
  );
  const objects = ['namespace', ...disksBytes.map((_, index) => `disk${index}`)];
  const ordinary = {
    policy: { failuresToTolerate: 1, stripes: 1 },
    components: null,
    objects: {},
    required: null,
    storage: 'shared',
  } as const;
  const onObjects = () => ({
    policy,
    components: draw(fc.boolean()) ? pin() : null,
    objects: Object.fromEntries(draw(fc.subarray(objects)).map((object) => [object, pin()])),
    required: draw(fc.option(fc.shuffledSubarray(objects, { minLength: 1 }))),
    storage: 'object' as const,
  });
  return {
    name: vmName,
    on: draw(fc.option(fc.constantFrom(...full))),
    cpus: draw(fc.integer({ min: 1, max: 512 })),
    memoryBytes: draw(fc.integer({ min: 2 ** 24, max: 2 ** 34 })),
    disksBytes,
    ...(draw(fc.boolean()) ? ordinary : onObjects()),
    protected: draw(fc.boolean()),
    priority: draw(fc.constantFrom('highest', 'high', 'medium', 'low', 'lowest')),
    after: draw(fc.subarray(before.map((vm) => vm.name))),
    separate: draw(fc.option(text)),
    readyWhen: draw(fc.option(fc.constantFrom('started', 'heard'))),
    affinity: draw(fc.option(drawAffinity(full))),
    isolationResponse: draw(fc.option(fc.constantFrom('pause', 'kill'))),
    whenHung: draw(fc.option(fc.constantFrom('restart', 'leave'))),
    powered: draw(fc.boolean()),
  };
}

function drawAffinity(full: readonly string[]) {
  const hosts = fc.shuffledSubarray([...full], { minLength: 1 });
  return fc.oneof(fc.record({ hosts }), fc.record({ hosts, required: fc.constant(true) }));
}

function drawVms(draw: Draw, hosts: readonly ScenarioHost[]): ScenarioVm[] {
  const vms: ScenarioVm[] = [];
  for (const vmName of draw(fc.uniqueArray(name, { maxLength: 8 }))) {
    const last = vms.at(-1);
    const isAlike = last !== undefined && draw(fc.boolean());
    vms.push(isAlike ? { ...last, name: vmName } : drawVm(draw, vmName, hosts, vms));
  }
  return vms;
}

/** All hosts in at least one group; of one host alone there is none. */
function drawGroups(draw: Draw, hosts: readonly ScenarioHost[]): string[][] {
  const names = draw(
    fc.shuffledSubarray(
      hosts.map((one) => one.name),
      { minLength: hosts.length },
    ),
  );
  const cut = draw(fc.integer({ min: 1, max: Math.max(1, names.length - 1) }));
  return [names.slice(0, cut), names.slice(cut)].filter((group) => group.length > 0);
}

function drawStep(draw: Draw, hosts: readonly ScenarioHost[], vms: readonly ScenarioVm[]): Step {
  const names = hosts.map((one) => one.name);
  const host = draw(fc.constantFrom(...names));
  const to = draw(fc.constantFrom(...fullNames(hosts)));
  const via = draw(fc.option(fc.constantFrom(...names)));
  const network = draw(fc.constantFrom('ha', 'storage', 'both'));
  const ofHosts: StepKind[] = (['crash', 'boot', 'stopDaemon', 'startDaemon'] as const).map(
    (kind) => ({ kind, host }),
  );
  const devices = hosts.find((one) => one.name === host)?.devices ?? [];
  const device = draw(fc.constantFrom('', ...devices.map((one) => one.name)));
  const on = { host, ...(device === '' ? {} : { device }) };
  const ofDevices: StepKind[] = [
    { kind: 'failDisk', ...on },
    { kind: 'repairDisk', ...on },
    { kind: 'fillDisk', ...on },
    { kind: 'freeDisk', ...on },
    { kind: 'slowDisk', ...on, byMs: draw(time) },
    { kind: 'flakyDisk', ...on, errorShare: draw(fc.integer({ min: 0, max: 100 })) / 100 },
    { kind: 'corruptDisk', ...on, blocks: draw(fc.integer({ min: 1, max: 9 })) },
    ...(device === '' ? [] : [{ kind: 'pullDisk' as const, host, device }]),
    ...(device === '' ? [] : [{ kind: 'plugDisk' as const, host, device }]),
  ];
  const vm = vms.length === 0 ? null : draw(fc.constantFrom(...vms)).name;
  const ofVms: StepKind[] =
    vm === null
      ? []
      : [
          { kind: 'killGuest', vm },
          { kind: 'hangGuest', vm },
          { kind: 'powerOff', vm, via },
          { kind: 'powerOn', vm, via },
          { kind: 'migrate', vm, to },
          { kind: 'setPolicy', vm, disk: draw(diskName), policy: drawPolicy(draw), via },
        ];
  const ofPairs: StepKind[] =
    names.length === 1
      ? []
      : [
          { kind: 'partition', network, groups: drawGroups(draw, hosts) },
          { kind: 'block', network, from: names[0] as string, to: names[1] as string },
        ];
  const kinds: StepKind[] = [
    ...ofHosts,
    ...ofDevices,
    ...ofVms,
    ...ofPairs,
    { kind: 'isolate', host, network },
    { kind: 'heal', network },
    { kind: 'freeze', host, forMs: draw(time) + 1 },
    { kind: 'maintenance', host, on: draw(fc.boolean()) },
  ];
  return { atMs: draw(time), ...draw(fc.constantFrom(...kinds)) };
}

const diskName = fc.constantFrom('disk0', 'disk1');

function drawPolicy(draw: Draw): StoragePolicy {
  return {
    failuresToTolerate: draw(fc.integer({ min: 0, max: limits.maxFailuresToTolerate })),
    stripes: draw(fc.integer({ min: 1, max: limits.maxStripes })),
    ...(draw(fc.boolean()) ? { thick: true } : {}),
  };
}

function drawCheck(draw: Draw, hosts: readonly ScenarioHost[], names: readonly string[]): Check {
  const atMs = draw(time);
  const pattern = draw(
    fc.constantFrom(...names.flatMap((one) => [one, `${one.slice(0, 2)}*`, '*', `*${one.at(-1)}`])),
  );
  const vms = matching(pattern, names);
  const on = draw(fc.option(fc.shuffledSubarray(fullNames(hosts), { minLength: 1 })));
  const reason = draw(fc.option(fc.constantFrom('storage', 'capacity', 'lock', 'retry')));
  const min = draw(fc.option(fc.nat(100)));
  const max = min === null ? draw(fc.nat(100)) : draw(fc.option(fc.nat(100).map((n) => n + min)));
  const check = draw(
    fc.constantFrom<CheckKind[]>(
      { kind: 'state', atMs, vms, state: 'running', on, for: null },
      { kind: 'state', atMs, vms, state: 'off', on: null, for: null },
      { kind: 'state', atMs, vms, state: 'waiting', on: null, for: reason },
      { kind: 'never', fromMs: atMs, toMs: atMs + 1 + draw(time), vms, state: 'paused' },
      { kind: 'masters', atMs, groups: drawGroups(draw, hosts) },
      { kind: 'protected', atMs, vms },
      { kind: 'restartedWithin', vms, withinMs: draw(time) + 1 },
      { kind: 'counter', counter: draw(fc.constantFrom(...counterNames)), min, max },
    ),
  );
  return { ...check, text: checkText(check, pattern) };
}

const strategies = fc.record<Strategies>({
  protection: fc.constantFrom('namespace-metadata', 'central-file', 'witness-file'),
  failover: fc.constantFrom('accessibility-aware', 'conventional'),
  coordination: fc.constantFrom('master', 'peers'),
  access: fc.constantFrom('query', 'publish', 'trial'),
  notify: fc.constantFrom('vm', 'object', 'interval'),
  accessible: fc.constantFrom('all', 'namespace-only'),
});

function drawScenario(draw: Draw): Scenario {
  const hosts = draw(hostList);
  const hostNames = hosts.map((one) => one.name);
  const vms = drawVms(draw, hosts);
  const times = <T>(max: number, make: () => T): T[] =>
    Array.from({ length: draw(fc.nat(max)) }, make);
  const steps = times(6, () => drawStep(draw, hosts, vms)).toSorted((a, b) => a.atMs - b.atMs);
  const vmNames = vms.map((vm) => vm.name);
  const checks = vms.length === 0 ? [] : times(6, () => drawCheck(draw, hosts, vmNames));
  return {
    name: draw(text),
    seed: draw(fc.oneof(fc.constant(1), fc.maxSafeNat())),
    pending: draw(fc.option(text)),
    durationMs: defaultDurationMs(steps, checks) + draw(fc.constantFrom(0, 1, 60_000)),
    cluster: {
      hosts,
      networks: draw(fc.constantFrom('separate', 'shared')),
      options: draw(fc.constantFrom({}, { leaseDuration: 6000, heartbeatInterval: 333 })),
      drift: draw(
        fc.dictionary(
          fc.constantFrom(...hostNames),
          fraction(0.1).map((d) => 0 - d),
        ),
      ),
      loss: { storage: draw(fraction(1)), ha: draw(fc.constantFrom(0, 0.001)) },
      backend: draw(fc.constantFrom('builtin', 'ceph')),
      guest: draw(fc.constantFrom('qemu', 'process')),
    },
    strategies: draw(fc.oneof(fc.constant(productStrategies), strategies)),
    vms,
    steps,
    expect: checks,
  };
}

describe('writing', () => {
  it('is read as the same scenario', () => {
    // A function for each draw: for a function it knows already, `gen` compares all earlier values.
    const property = fc.property(fc.gen(), fc.array(fc.string()), (gen, comment) => {
      const scenario = drawScenario((arbitrary) => gen(() => arbitrary));
      expect(readScenario(writeScenario(scenario, comment))).toEqual(scenario);
    });
    fc.assert(property, { numRuns: 300, endOnFailure: true });
  });

  it('gives a file as people write it', () => {
    const file = `# Seed 5 of a search.
#
# Second line.
name: "Half: of it"
pending: remote SET
duration: 2500ms
cluster: {hosts: 3, options: {leaseDuration: 5s}, drift: {h1: -0.05%}, loss: {ha: 100%}}
strategies: {access: trial}
vms:
  - {name: web, count: 2, disks: [8GiB], policy: {failuresToTolerate: 0}}
  - {name: web-4, after: [web-1], powered: off}
steps:
  - {at: 500ms, partition: both, groups: [[h1], [h2, h3]]}
  - {at: 1s, heal: all}
expect:
  - {at: 1s, vm: "*-2", state: running, on: [h1]}
`;
    const comment = ['Seed 5 of a search.\n', 'Second line.'];
    expect(writeScenario(readScenario(file), comment)).toBe(file);
  });

  it('finds a pattern for VMs of a check, or names them', () => {
    const scenario = readScenario(
      'name: x\ncluster: {hosts: 3}\nvms: [{name: a, count: 3}, {name: b}]',
    );
    const check = (vms: readonly string[]): Check[] => [
      { kind: 'restartedWithin', vms, withinMs: 8000, text: 'all come back' },
    ];
    const written = (vms: readonly string[]) =>
      readScenario(writeScenario({ ...scenario, expect: check(vms) })).expect.map(
        (one) => one.text,
      );
    expect(written(['a-1', 'a-2', 'a-3'])).toEqual(['vm a-* restartedWithin 8s']);
    expect(written(['a-1', 'a-2', 'a-3', 'b'])).toEqual(['vm * restartedWithin 8s']);
    expect(written(['b'])).toEqual(['vm b restartedWithin 8s']);
    expect(written([])).toEqual([]);
    expect(written(['a-1', 'b'])).toEqual(['vm a-1 restartedWithin 8s', 'vm b restartedWithin 8s']);
  });
});
