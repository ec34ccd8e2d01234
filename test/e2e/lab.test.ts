// The lab as its user meets it: a scenario on real daemons, what is said of it, and nothing left behind, however
// it ends.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ScenarioResult } from '../../src/scenario/scenario.ts';
import { until } from './support/real-cluster.ts';

const program = fileURLToPath(new URL('../../bin/holdfast', import.meta.url));
const guest = fileURLToPath(new URL('../../dist/process-guest/process-guest', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hf-lab-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Started {
  readonly child: ChildProcess;
  readonly text: { out: string; err: string };
  readonly ended: Promise<number | null>;
}

function holdfast(...args: string[]): Started {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const text = { out: '', err: '' };
  child.stdout.on('data', (bytes: Buffer) => (text.out += bytes.toString()));
  child.stderr.on('data', (bytes: Buffer) => (text.err += bytes.toString()));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { child, text, ended };
}

function scenario(text: string): string {
  const file = join(folder, 'scenario.yaml');
  writeFileSync(file, text);
  return file;
}

/** What it is called in all that it makes; empty as long as it has not said so. */
function nameOf({ text }: Started): string {
  return /hflab-\w+/.exec(text.out + text.err)?.[0] ?? '';
}

function processesOf(name: string): string[] {
  const pids = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid));
  return pids.flatMap((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      return line.includes(name) ? [`${pid} ${line}`] : [];
    } catch {
      return [];
    }
  });
}

/** What there still is of a lab: its entry, its folder, its namespaces, its processes. */
function leftOf(name: string): string[] {
  const list = (path: string) => (existsSync(path) ? readdirSync(path) : []);
  const id = name.slice('hflab-'.length);
  return [
    ...list('/run/holdfast-lab').filter((file) => file.startsWith(id)),
    ...['/tmp', '/run/netns'].flatMap((path) => list(path).filter((it) => it.startsWith(name))),
    ...processesOf(name),
  ];
}

const quiet = `
name: Nothing happens
duration: 60s
cluster: {hosts: 3, networks: shared, guest: process}
vms: [{name: web, on: h1, memoryMiB: 32, disks: [4MiB]}]
`;

/** Namespaces are root's alone; whoever tests without root has tested everything else. */
describe.runIf(process.getuid?.() === 0)('lab run', () => {
  it('runs a scenario on real daemons, and holds it against what it saw', async () => {
    const file = scenario(`
name: A split, and a host dies
duration: 16s
cluster: {hosts: 4, guest: process}
vms: [{name: v, count: 3, on: h1, memoryMiB: 32, disks: [4MiB], components: [h2, h3, h4]}]
steps:
  - {at: 1s, partition: both, groups: [[h1], [h2, h3, h4]]}
  - {at: 12s, heal: all}
expect:
  - {at: 11s, vm: "v-*", state: running, on: [h2, h3, h4]}
  - {at: 11s, masters: [[h1], [h2, h3, h4]]}
  - {at: 11s, protected: "v-*"}
  - {from: 0s, to: 16s, vm: "v-*", never: waiting}
  - {vm: "v-*", restartedWithin: 8s}
  - {counter: pauses, min: 3, max: 3}
`);
    const lab = holdfast('lab', 'run', '--json', file);
    const { text, ended } = lab;
    expect({ status: await ended, ...text }).toMatchObject({ status: 1 });
    const result = JSON.parse(text.out.trimEnd().split('\n').at(-1) ?? '') as ScenarioResult;
    expect(result).toMatchObject({ executor: 'lab', simulatedMs: 16_000 });
    // That nobody waits is not true, and is seen not to be: their locks must end first.
    expect(result.checks.filter(({ ok }) => !ok).map(({ check }) => check)).toEqual([
      'from 0s to 16s vm v-* never waiting',
    ]);
    expect(result.invariants).toEqual([
      { name: 'single-instance', violations: 0 },
      { name: 'no-lost-write', violations: 0 },
    ]);
    expect(result.recoveries.map(({ vm, from }) => `${vm} ${from}`).sort()).toEqual([
      'v-1 h1',
      'v-2 h1',
      'v-3 h1',
    ]);
    for (const one of result.recoveries) {
      const { failedAtMs, detectedAtMs, lockFreeAtMs, placedAtMs, startedAtMs, guestReadyAtMs } =
        one;
      const times = [
        failedAtMs,
        detectedAtMs,
        lockFreeAtMs,
        placedAtMs,
        startedAtMs,
        guestReadyAtMs,
      ];
      expect(times).not.toContain(null);
      expect(times).toEqual(times.toSorted((a, b) => (a ?? 0) - (b ?? 0)));
    }
    expect(leftOf(nameOf(lab))).toEqual([]);
  });

  it('has storage that all hosts see, and one instance goes on with what it holds', async () => {
    const file = scenario(`
name: Disks at a path, one host cut off, then one dead
duration: 16s
cluster: {hosts: 3, guest: process}
vms:
  - {name: cut, on: h1, storage: shared, memoryMiB: 32, disks: [4MiB], affinity: {hosts: [h1, h3], required: true}}
  - {name: dead, on: h2, storage: shared, memoryMiB: 32, disks: [4MiB], affinity: {hosts: [h2, h3], required: true}}
steps:
  - {at: 1s, isolate: h1, network: both}
  - {at: 7s, heal: all}
  - {at: 9s, crash: h2}
expect:
  - {at: 7s, vm: cut, state: running, on: [h3]}
  - {at: 16s, vm: "*", state: running, on: [h3]}
  - {vm: "*", restartedWithin: 8s}
  - {counter: pauses, min: 1, max: 1}
  - {counter: resumes, max: 0}
  - {counter: restartAttempts, min: 2, max: 2}
`);
    const { text, ended } = holdfast('lab', 'run', '--json', file);
    expect({ status: await ended, ...text }).toMatchObject({ status: 0 });
    const result = JSON.parse(text.out.trimEnd().split('\n').at(-1) ?? '') as ScenarioResult;
    expect(result.invariants).toEqual([
      { name: 'single-instance', violations: 0 },
      { name: 'no-lost-write', violations: 0 },
    ]);
    expect(result.recoveries.map(({ vm, from, to }) => `${vm} ${from} ${to}`)).toEqual([
      'cut h1 h3',
      'dead h2 h3',
    ]);
  });

  it('sees that a VM runs twice', async () => {
    const lab = holdfast('lab', 'run', scenario(quiet));
    const { child, text, ended } = lab;
    await until('time 0', () => text.out.includes('time 0'));
    const name = nameOf(lab);
    // A guest of this VM in the place of another host; it needs no more than to be there.
    const vm = readdirSync(`/tmp/${name}/h1/run`).find((it) => /^[0-9a-f]{32}$/.test(it));
    const sockets = ['--qmp', `path=${folder}/q`, '--port', `${folder}/p`];
    spawn(
      'nsenter',
      [`--net=/run/netns/${name}-h2`, '--', guest, ...sockets, '--append', `vm=${vm}`],
      { stdio: 'ignore', detached: true },
    );
    await until('it is seen', () => text.out.includes('BROKEN: single-instance: web runs on'));
    child.kill('SIGINT');
    expect({ status: await ended, left: leftOf(name), err: text.err }).toEqual({
      status: 1,
      left: [],
      err: expect.stringContaining('interrupted by SIGINT'),
    });
  });

  it('leaves nothing behind when it is killed itself', async () => {
    const lab = holdfast('lab', 'run', scenario(quiet));
    const daemons = () => processesOf(nameOf(lab)).filter((line) => line.includes('host run'));
    await until('daemons run', () => nameOf(lab) !== '' && daemons().length > 1);
    lab.child.kill('SIGKILL');
    await lab.ended;
    await until('nothing is left', () => leftOf(nameOf(lab)).length === 0);
  });
});
