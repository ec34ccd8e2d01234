import { describe, expect, it } from 'vitest';
import { readScenario, ScenarioError } from './read.ts';

/** The message for a bad file. */
function problemsOf(text: string): string[] {
  try {
    readScenario(text);
  } catch (error) {
    expect(error).toBeInstanceOf(ScenarioError);
    const { message, problems } = error as ScenarioError;
    expect(problems).toHaveLength(message.split('\n').length);
    return message.split('\n');
  }
  return [];
}

/** Six hosts, the VMs web-1 to web-3 and db, and what is given, from line 6 on. */
const withVms = (rest: string, cluster = '{hosts: 6}') => `name: test
cluster: ${cluster}
vms:
  - {name: web, count: 3}
  - {name: db}
${rest}`;

describe('no scenario at all', () => {
  it.each([
    ['', 'line 1: the file is empty'],
    ['# nothing\n', 'line 1: the file is empty'],
    ['- a\n', /^line 1: expected a map with the keys name, .*, found a list$/],
    ['text', /^line 1: expected a map .*, found "text"$/],
    ['name: a\ncluster: {hosts: 3\nvms: []', /^line 3: no valid YAML: /],
    ['name: *a\n', 'line 1: no valid YAML: *a repeats nothing: no &a is above'],
    ['name: !foo a\n', /^line 1: no valid YAML: Unresolved tag: !foo/],
    ['name: a\n---\nname: b\n', /^line 2: a second YAML document begins here/],
    ['a: '.concat('['.repeat(100_000)), 'line 1: no valid YAML: nested too deeply'],
  ])('%j', (text, problem) => {
    expect(problemsOf(text)[0]).toMatch(problem);
  });

  it('a file that means far more than it says', () => {
    const levels = Array.from({ length: 9 }, (_, level) => {
      const items = Array(9)
        .fill(level === 0 ? 'x' : `*a${level - 1}`)
        .join(', ');
      return `a${level}: &a${level} [${items}]`;
    });
    expect(problemsOf(levels.join('\n'))).toEqual([
      'line 2: too many aliases: an anchor may be repeated 100 times, anchors in anchors multiply',
    ]);
  });

  it('a list inside of itself', () => {
    expect(problemsOf('name: &a [*a]\ncluster: {hosts: 3}')).toEqual([
      'line 1: name: expected a line of text, found a list',
    ]);
  });
});

describe('keys', () => {
  it.each([
    ['nme: x', 'line 6: nme: unknown key, did you mean name?'],
    ['frobnicate: x', /^line 6: frobnicate: unknown key; known here: name, seed, /],
    ['seed: 1\nseed: 2', 'line 7: seed: this key stands here twice'],
    ['5: x', 'line 6: keys are text, found 5'],
    ['? [a]\n: x', 'line 6: keys are text, found something else'],
    ['steps: [{at: 1s, crsh: h1}]', 'line 6: steps[0].crsh: unknown key, did you mean crash?'],
    [
      'steps: [{at: 1s, crash: h1, on: h2}]',
      /^line 6: steps\[0\]\.on: unknown key; known here: crash, at$/,
    ],
    [
      'steps: [{at: 1s}]',
      /^line 6: steps\[0\]: a step needs one of the keys partition, block, .* or maintenance$/,
    ],
    [
      'steps: [{at: 1s, crash: h1, boot: h1}]',
      'line 6: steps[0]: a step has one of these keys: crash, boot',
    ],
    ['steps: [crash]', 'line 6: steps[0]: expected a step: a map, found "crash"'],
    ['steps:', 'line 6: steps: expected a list, found nothing'],
    ['strategies: {acces: trial}', 'line 6: strategies.acces: unknown key, did you mean access?'],
    ['strategies: {__proto__: x}', /^line 6: strategies\.__proto__: unknown key/],
  ])('%s', (text, problem) => {
    const problems = problemsOf(withVms(text));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(problem);
  });

  it('missing ones are named where they should be', () => {
    expect(problemsOf('vms:\n  - {count: 2}\n  - cpus: 2\n    memoryMiB: 64\n')).toEqual([
      'line 1: name: is missing',
      'line 1: cluster: is missing',
      'line 2: vms[0].name: is missing',
      'line 3: vms[1].name: is missing',
    ]);
  });
});

describe('clusters', () => {
  it.each([
    [
      '{hosts: 0}',
      'cluster.hosts: expected a number of hosts from 1 to 64, or a list of hosts, found 0',
    ],
    [
      '{hosts: 65}',
      'cluster.hosts: expected a number of hosts from 1 to 64, or a list of hosts, found 65',
    ],
    ['{hosts: {}}', 'cluster.hosts: expected a number of hosts or a list of hosts, found a map'],
    ['{hosts: []}', 'cluster.hosts: expected 1 to 64 hosts, found 0'],
    ['{hosts: [{name: a}, {name: a}]}', 'cluster.hosts[1].name: there are two hosts a'],
    [
      '{hosts: [{name: a, kind: witness}]}',
      'cluster.hosts: at least one host must be of the kind full',
    ],
    [
      '{hosts: [{name: A}]}',
      'cluster.hosts[0].name: expected 1 to 63 lower-case letters, digits and inner hyphens, found "A"',
    ],
    [
      '{hosts: [{name: a, kind: half}]}',
      'cluster.hosts[0].kind: expected full or witness, found "half"',
    ],
    [
      '{hosts: [{name: a, memoryMiB: 0.3}]}',
      'cluster.hosts[0].memoryMiB: expected a number from 1 to 67108864, in whole bytes, found 0.3',
    ],
    [
      '{hosts: 3, options: {leaseDuraton: 4s}}',
      'cluster.options.leaseDuraton: unknown key, did you mean leaseDuration?',
    ],
    [
      '{hosts: 3, options: {leaseDuration: 4}}',
      'cluster.options.leaseDuration: expected a duration such as 500ms (ms, s, m or h), found 4',
    ],
    [
      '{hosts: 3, options: {leaseDuration: 2s}}',
      'cluster.options: leaseDuration must exceed safetyMargin by more than two heartbeat intervals',
    ],
    [
      '{hosts: 3, options: {resyncRetry: 0s}}',
      'cluster.options.resyncRetry: expected at least 1ms, found "0s"',
    ],
    ['{hosts: 3, drift: {h4: 1%}}', 'cluster.drift.h4: there is no host "h4", did you mean h1?'],
    ['{hosts: 3, drift: {h1: 11%}}', 'cluster.drift.h1: expected -10% to 10%, found "11%"'],
    [
      '{hosts: 3, drift: {h1: 0.01}}',
      'cluster.drift.h1: expected a percentage such as 0.5%, found 0.01',
    ],
    ['{hosts: 3, loss: {ha: 101%}}', 'cluster.loss.ha: expected 0% to 100%, found "101%"'],
    ['{hosts: 3, loss: {ha: -1%}}', 'cluster.loss.ha: expected 0% to 100%, found "-1%"'],
    ['{hosts: 3, networks: joint}', 'cluster.networks: expected separate or shared, found "joint"'],
  ])('%s', (cluster, problem) => {
    expect(problemsOf(`name: test\ncluster: ${cluster}`)).toEqual([`line 2: ${problem}`]);
  });
});

describe('VMs', () => {
  const witnesses = '{hosts: [{name: a}, {name: b}, {name: c}, {name: w, kind: witness}]}';

  it.each([
    [
      '{name: Web}',
      'name: expected 1 to 63 lower-case letters, digits and inner hyphens, found "Web"',
    ],
    ['{name: web-2}', 'name: there are two VMs web-2'],
    ['{name: v, count: 0}', 'count: expected a whole number from 1 to 100000, found 0'],
    ['{name: v, count: 99999}', null],
    ['{name: v, cpus: 1.5}', 'cpus: expected a whole number from 1 to 512, found 1.5'],
    [
      '{name: v, memoryMiB: 8}',
      'memoryMiB: expected a number from 16 to 16777216, in whole bytes, found 8',
    ],
    ['{name: v, disks: []}', 'disks: expected a list of 1 to 16, found 0'],
    ['{name: v, disks: 8GiB}', 'disks: expected a list, found "8GiB"'],
    [
      '{name: v, disks: [8GB]}',
      'disks[0]: expected a size such as 96MiB (B, KiB, MiB, GiB, TiB, or bytes without a unit), found "8GB"',
    ],
    [
      '{name: v, disks: [1025KiB]}',
      'disks[0]: expected a multiple of 4096 bytes from 1048576 (1MiB) to 68169720922112 (62TiB), found "1025KiB"',
    ],
    [
      '{name: v, policy: {failuresToTolerate: 4}}',
      'policy.failuresToTolerate: expected a whole number from 0 to 3, found 4',
    ],
    [
      '{name: v, policy: {failuresToTolerate: 3}}',
      'policy: failuresToTolerate 3 needs 7 hosts, 4 of them full; the cluster has 6, 6 of them full',
    ],
    ['{name: v, on: h7}', 'on: there is no host "h7", did you mean h1?'],
    [
      '{name: v, components: [h1, h2]}',
      'components: expected the 3 hosts of failuresToTolerate 1 (2 with data, then 1 that only vote), found 2',
    ],
    ['{name: v, components: [h1, h2, h1]}', 'components[2]: h1 stands here twice'],
    [
      '{name: v, objects: {disk1: [h1, h2, h3]}}',
      'objects.disk1: the VM has no object "disk1", did you mean disk0?',
    ],
    [
      '{name: v, objects: {disk0: [h1]}}',
      'objects.disk0: expected the 3 hosts of failuresToTolerate 1 (2 with data, then 1 that only vote), found 1',
    ],
    [
      '{name: v, required: [disk0, disk1]}',
      'required[1]: the VM has no object "disk1", did you mean disk0?',
    ],
    [
      '{name: v, storage: shared, components: [h1, h2, h3]}',
      'components: a VM on shared storage has no disk objects',
    ],
    ['{name: v, protected: on}', 'protected: expected true or false, found "on"'],
    ['{name: v, powered: true}', 'powered: expected on or off, found true'],
    [
      '{name: v, priority: urgent}',
      'priority: expected highest, high, medium, low or lowest, found "urgent"',
    ],
    ['{name: v, after: [dv]}', 'after[0]: there is no VM "dv", did you mean db?'],
    ['{name: v, after: [v]}', 'after: VMs that wait for each other never start: v after v'],
    [
      '{name: v, count: 2, after: [v-1]}',
      'after: VMs that wait for each other never start: v after v',
    ],
    ['{name: v, separate: ""}', 'separate: expected a line of text, found ""'],
  ])('%s', (vm, problem) => {
    const expected =
      problem === null
        ? 'line 6: vms[2]: with this there are more than 100000 VMs, the limit'
        : `line 6: vms[2].${problem}`;
    expect(problemsOf(withVms(`  - ${vm}`))).toEqual([expected]);
  });

  it('a circle of VMs that wait for each other', () => {
    const vms = '{name: a, after: [b]}, {name: b, count: 2, after: [c]}, {name: c, after: [b-2]}';
    expect(problemsOf(`name: test\ncluster: {hosts: 3}\nvms: [${vms}]`)).toEqual([
      'line 3: vms[1].after: VMs that wait for each other never start: b after c after b',
    ]);
  });

  it('names that are too long when counted', () => {
    const name = 'v'.repeat(62);
    expect(problemsOf(`name: test\ncluster: {hosts: 3}\nvms: [{name: ${name}, count: 2}]`)).toEqual(
      [`line 3: vms[0].name: ${name}-2 is longer than 63 characters`],
    );
  });

  it.each([
    ['{name: v, on: w}', 'on: w is a witness, and these run no VMs'],
    ['{name: v, components: [a, w, b]}', 'components: w is a witness, and these hold no data'],
    [
      '{name: v, policy: {failuresToTolerate: 2}}',
      'policy: failuresToTolerate 2 needs 5 hosts, 3 of them full; the cluster has 4, 3 of them full',
    ],
  ])('witnesses: %s', (vm, problem) => {
    expect(problemsOf(`name: test\ncluster: ${witnesses}\nvms: [${vm}]`)).toEqual([
      `line 3: vms[0].${problem}`,
    ]);
  });

  it('a witness may vote', () => {
    const vms = '[{name: v, components: [a, b, w]}]';
    expect(problemsOf(`name: test\ncluster: ${witnesses}\nvms: ${vms}`)).toEqual([]);
  });
});

describe('steps', () => {
  it.each([
    ['crash: h9', 'crash: there is no host "h9", did you mean h1?'],
    ['crash: 1', 'crash: expected the name of a host, found 1'],
    [
      'partition: foo, groups: [[h1], [h2]]',
      'partition: expected ha, storage or both, found "foo"',
    ],
    ['partition: ha', 'groups: is missing'],
    ['partition: ha, groups: [[h1, h2], [h2]]', 'groups[1][0]: h2 stands here twice'],
    ['partition: ha, groups: [[h1], []]', 'groups[1]: expected a list of at least 1, found 0'],
    [
      'partition: ha, groups: [h1, h2]',
      'groups[0]: expected a list, found "h1"',
      'groups[1]: expected a list, found "h2"',
    ],
    [
      'partition: ha, groups: [[h1, h2, h3, h4, h5, h6]]',
      'groups: all hosts are in one group, so nothing is partitioned',
    ],
    ['block: ha, from: h1, to: h1', 'to: a host always reaches itself'],
    ['isolate: h1', 'network: is missing'],
    ['heal: both', 'heal: expected ha, storage or all, found "both"'],
    ['freeze: h1', 'for: is missing'],
    ['freeze: h1, for: 0s', 'for: expected at least 1ms, found "0s"'],
    ['freeze: h1, for: 25d', 'for: expected a duration such as 500ms (ms, s, m or h), found "25d"'],
    ['freeze: h1, for: 1000h', 'for: expected at most 24 days, found "1000h"'],
    ['killGuest: web', 'killGuest: there is no VM "web"; web stands for 3 VMs, web-1 to web-3'],
    ['killGuest: web-4', 'killGuest: there is no VM "web-4", did you mean web-1?'],
    ['powerOn: db, via: h0', 'via: there is no host "h0", did you mean h1?'],
    ['migrate: db', 'to: is missing'],
    ['slowDisk: h1, by: 5', 'by: expected a duration such as 500ms (ms, s, m or h), found 5'],
    ['maintenance: h1, on: yes', 'on: expected true or false, found "yes"'],
  ])('%s', (step, ...problems) => {
    const expected = problems.map((problem) => `line 7: steps[0].${problem}`);
    expect(problemsOf(withVms(`steps:\n  - {at: 1s, ${step}}`))).toEqual(expected);
  });

  it('must come before the end', () => {
    const text = withVms(
      'duration: 90s\nsteps:\n  - {at: 91s, crash: h1}\n  - {crash: h1}\n  - {at: -1s, crash: h1}',
    );
    expect(problemsOf(text)).toEqual([
      'line 8: steps[0].at: 91s is after the end of the run (duration: 90s)',
      'line 9: steps[1].at: is missing',
      'line 10: steps[2].at: expected a duration such as 500ms (ms, s, m or h), found "-1s"',
    ]);
  });
});

describe('checks', () => {
  it.each([
    [
      'at: 1s, vm: db',
      ': a check needs one of the keys state, never, masters, protected, restartedWithin or counter',
    ],
    ['at: 1s, vm: db, state: running, never: off', ': a check has one of these keys: state, never'],
    ['vm: db, state: running', '.at: is missing'],
    [
      'at: 1s, vm: db, state: gone',
      '.state: expected running, off, waiting or paused, found "gone"',
    ],
    ['at: 1s, vm: db, state: running, on: h1', '.on: expected a list, found "h1"'],
    ['at: 1s, vm: db, state: off, on: [h1]', '.on: a VM that is off is on no host'],
    ['at: 1s, vm: db, state: running, for: lock', '.for: only a VM that is waiting waits for lock'],
    [
      'at: 1s, vm: db, state: waiting, for: luck',
      '.for: expected storage, capacity, lock, dependency or retry, found "luck"',
    ],
    ['at: 1s, vm: "x-*", state: running', '.vm: no VM matches x-*'],
    [
      'at: 1s, vm: web, state: running',
      '.vm: there is no VM "web"; web stands for 3 VMs, web-1 to web-3',
    ],
    [
      'at: 1s, vm: [db], state: running',
      '.vm: expected a VM, or a pattern of VMs such as web-*, found a list',
    ],
    ['at: 2m, protected: db', '.at: 2m is after the end of the run (duration: 1m)'],
    ['from: 5s, to: 5s, vm: db, never: running', '.to: must be later than `from`'],
    ['at: 1s, masters: [[h1], [h1]]', '.masters[1][0]: h1 stands here twice'],
    ['vm: db, restartedWithin: 0s', '.restartedWithin: expected at least 1ms, found "0s"'],
    [
      'counter: restarts, max: 1',
      /^\.counter: expected restartAttempts, .* or resumes, found "restarts"$/,
    ],
    ['counter: elections', ': a counter needs min or max'],
    ['counter: elections, min: 2, max: 1', '.max: must not be less than min'],
    ['counter: elections, max: -1', '.max: expected a whole number of at least 0, found -1'],
  ])('%s', (check, problem) => {
    const problems = problemsOf(withVms(`duration: 60s\nexpect:\n  - {${check}}`));
    expect(problems).toHaveLength(1);
    const start = 'line 8: expect[0]';
    expect(problems[0]?.slice(0, start.length)).toBe(start);
    expect(problems[0]?.slice(start.length)).toMatch(problem);
  });
});

describe('many problems', () => {
  it('are all reported, in the order of the lines', () => {
    const text = `expect:
  - {at: 1s, vm: nobody, state: running}
steps:
  - {at: 1s, crash: h7}
vms:
  - {name: v, cpus: many, prio: low}
cluster: {hosts: 3, drift: {h4: 1%}, colour: red}
name: ""
`;
    expect(problemsOf(text)).toEqual([
      'line 2: expect[0].vm: there is no VM "nobody"',
      'line 4: steps[0].crash: there is no host "h7", did you mean h1?',
      'line 6: vms[0].prio: unknown key; known here: name, count, on, cpus, memoryMiB, disks, policy, components, objects, required, storage, protected, priority, after, separate, readyWhen, affinity, isolationResponse, whenHung, powered',
      'line 6: vms[0].cpus: expected a whole number from 1 to 512, found "many"',
      'line 7: cluster.colour: unknown key; known here: hosts, networks, options, drift, loss, backend, guest',
      'line 7: cluster.drift.h4: there is no host "h4", did you mean h1?',
      'line 8: name: expected a line of text, found ""',
    ]);
  });

  it('names are not looked for in lists that could not be read', () => {
    const text = `name: test
cluster: {hosts: many}
vms: [{name: v, on: h1}, {name: w, count: some}]
steps: [{at: 1s, crash: h1}, {at: 1s, killGuest: w-1}]
`;
    expect(problemsOf(text)).toEqual([
      'line 2: cluster.hosts: expected a number of hosts from 1 to 64, or a list of hosts, found "many"',
      'line 3: vms[1].count: expected a whole number from 1 to 100000, found "some"',
    ]);
  });
});
