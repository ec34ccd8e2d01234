// How long VMs are gone when something fails: `make bench-failover`, or
//
//   node bench/failover.mjs [crash] [many] [ha] [storage] [load] [--failures N] [--qemu] [--vms 100,200] [--minutes 30]
//
// Each part writes scenarios, has `bin/holdfast lab run` play them on real daemons, and prints what was measured beside
// the goal. It judges nothing: machines are noisy, and this one may do other work.
//
// crash: five hosts lose their power one after the other, and get it back; whoever is master at that moment is known
// from the hosts. Of each failure the slowest VM counts, from the loss of power to the start of the guest's process.
// many: one host with many process-guests dies. ha, storage: what must not happen, with guests counted that it did to.
// load: nothing happens, but that so many guests write, with no pause, that the processors have nothing left; only when
// it is asked for.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const root = path.join(import.meta.dirname, '..');
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    failures: { type: 'string', default: '25' },
    qemu: { type: 'boolean', default: false },
    vms: { type: 'string', default: '100,200' },
    minutes: { type: 'string', default: '30' },
  },
});
const failures = Number(values.failures);
const guest = values.qemu ? 'qemu' : 'process';
/** The built-in guest needs this much in QEMU. */
const memoryMiB = values.qemu ? 96 : 16;

const folder = mkdtempSync(path.join(tmpdir(), 'hf-failover-'));
let lab = null;

/** The result of a run; a check that fails is a part of it. */
async function play(name, lines, options = []) {
  const file = path.join(folder, 'scenario.yaml');
  writeFileSync(file, `name: ${name}\n${lines.join('\n')}\n`);
  const child = spawn(path.join(root, 'bin/holdfast'), ['lab', 'run', '--json', ...options, file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  lab = child;
  let out = '';
  let err = '';
  child.stdout.on('data', (bytes) => (out += bytes));
  child.stderr.on('data', (bytes) => (err += bytes));
  await new Promise((resolve) => child.once('close', resolve));
  lab = null;
  if (out === '') throw new Error(`${name} did not come to its end:\n${err}`);
  const result = JSON.parse(out.trimEnd().split('\n').at(-1));
  for (const { name: invariant, violations } of result.invariants) {
    if (violations > 0) console.log(`BROKEN in ${name}: ${invariant}, ${violations} times`);
  }
  return result;
}

const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
const median = (list) => list.toSorted((a, b) => a - b)[Math.floor((list.length - 1) / 2)];

function row(what, goal, measured) {
  console.log(`| ${what} | ${goal} | ${measured} |`);
}

const hosts = ['h1', 'h2', 'h3', 'h4', 'h5'];
/** From one loss of power to the next, and to its return. Emulated guests boot for long. */
const cycleSeconds = values.qemu ? 30 : 16;
const bootSeconds = values.qemu ? 10 : 7;
/** In one lab; more of them in further ones. */
const mostInOneLab = 15;

async function crash() {
  const took = { ordinary: [], master: [] };
  let unknown = 0;
  for (let left = failures, first = 0; left > 0; left -= mostInOneLab, first += mostInOneLab) {
    const count = Math.min(left, mostInOneLab);
    // Each lab begins with another host, because the first one is its first master.
    const crashes = Array.from({ length: count }, (_, index) => ({
      host: hosts[(first / mostInOneLab + index) % hosts.length],
      atSeconds: 2 + index * cycleSeconds,
    }));
    const result = await play('Hosts lose their power in turn', [
      `duration: ${2 + count * cycleSeconds}s`,
      `cluster: {hosts: ${hosts.length}, guest: ${guest}}`,
      'vms:',
      ...hosts.map((host, index) => {
        const components = [0, 1, 2].map((next) => hosts[(index + next) % hosts.length]);
        return `  - {name: v${index + 1}, on: ${host}, memoryMiB: ${memoryMiB}, disks: [4MiB], components: [${components.join()}]}`;
      }),
      'steps:',
      ...crashes.flatMap(({ host, atSeconds }) => [
        `  - {at: ${atSeconds}s, crash: ${host}}`,
        `  - {at: ${atSeconds + bootSeconds}s, boot: ${host}}`,
      ]),
      'expect:',
      // Asked for its answer: who is master.
      ...crashes.map(({ atSeconds }) => `  - {at: ${atSeconds}s, masters: [[${hosts.join()}]]}`),
    ]);
    for (const [index, { host, atSeconds }] of crashes.entries()) {
      const master = /^masters (\w+)$/.exec(result.checks[index]?.saw ?? '')?.[1];
      const restarts = result.recoveries.filter(
        ({ failedAtMs }) => Math.abs(failedAtMs - atSeconds * 1000) < 1000,
      );
      if (restarts.length === 0) continue; // nothing ran there
      const ms = Math.max(
        ...restarts.map((one) => (one.startedAtMs ?? Number.POSITIVE_INFINITY) - one.failedAtMs),
      );
      if (master === undefined) unknown += 1;
      else took[master === host ? 'master' : 'ordinary'].push(ms);
    }
  }
  const text = (list) =>
    list.length === 0
      ? 'not seen'
      : `median ${seconds(median(list))}, worst ${seconds(Math.max(...list))}, of ${list.length}`;
  row(
    'power loss of an ordinary host, to the start of the guest',
    'median 4.5 s, worst of 20: 6 s',
    text(took.ordinary),
  );
  const more =
    took.ordinary.length === 0 || took.master.length === 0
      ? ''
      : `; median ${seconds(median(took.master) - median(took.ordinary))} more`;
  row("the same of the master's host", 'at most 1.5 s more', text(took.master) + more);
  if (unknown > 0) row('failures at which not one master answered', '', `${unknown}, left out`);
}

async function many() {
  for (const count of values.vms.split(',').map(Number)) {
    const watchedSeconds = 20 + Math.ceil(count / 6);
    const result = await play('A host with many VMs dies', [
      `duration: ${5 + watchedSeconds}s`,
      'cluster: {hosts: 4, guest: process}',
      'vms:',
      `  - {name: v, count: ${count}, on: h4, memoryMiB: 16, disks: [1MiB]}`,
      'steps:',
      '  - {at: 5s, crash: h4}',
    ]);
    const took = result.recoveries.flatMap(({ failedAtMs, startedAtMs }) =>
      startedAtMs === null ? [] : [startedAtMs - failedAtMs],
    );
    const inTime = took.filter((ms) => ms <= 15_000).length;
    const end =
      took.length < count ? `${took.length} in all` : `all after ${seconds(Math.max(...took))}`;
    row(
      `a host with ${count} process-guests dies: all run elsewhere`,
      count === 500 ? 'within 15 s' : '(500 within 15 s)',
      `${inTime} after 15 s, half after ${seconds(median(took))}, ${end}`,
    );
  }
}

const ofEach = [
  'vms:',
  ...hosts
    .slice(0, 4)
    .map((host) => `  - {name: v-${host}, on: ${host}, memoryMiB: ${memoryMiB}, disks: [4MiB]}`),
];

const counted = ({ counters: { pauses, resumes, restartAttempts } }) =>
  `${pauses} pauses, ${resumes} resumes, ${restartAttempts} restarts`;

async function ha() {
  const result = await play('The HA network alone splits', [
    'duration: 50s',
    `cluster: {hosts: 4, guest: ${guest}}`,
    ...ofEach,
    'steps:',
    '  - {at: 2s, partition: ha, groups: [[h1, h2], [h3, h4]]}',
    '  - {at: 32s, heal: all}',
  ]);
  row('HA network alone splits for 30 s, 4 VMs', '0 pauses, 0 restarts', counted(result));
}

async function storage() {
  const result = await play('The whole storage network is down', [
    'duration: 50s',
    `cluster: {hosts: 4, guest: ${guest}}`,
    ...ofEach,
    'steps:',
    '  - {at: 2s, partition: storage, groups: [[h1], [h2], [h3], [h4]]}',
    '  - {at: 32s, heal: all}',
    'expect:',
    '  - {at: 50s, vm: "*", state: running}',
  ]);
  const end = result.checks.at(-1)?.saw ?? '';
  row(
    'whole storage network down for 30 s, 4 VMs',
    '4 pauses, 4 resumes, 0 restarts',
    `${counted(result)}; 18 s later ${end}`,
  );
}

/** Of all processors since the machine was started, in ticks: busy, and all. */
function processorTime() {
  const [user, nice, system, idle, wait, ...others] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]
    .split(/ +/)
    .slice(1)
    .map(Number);
  const busy = user + nice + system + others.slice(0, 3).reduce((a, b) => a + b, 0);
  return { busy, all: busy + idle + wait };
}

async function load() {
  const count = Number(values.vms.split(',').at(-1));
  const before = processorTime();
  const { counters } = await play(
    'Many guests write',
    [
      `duration: ${Number(values.minutes) * 60}s`,
      `cluster: {hosts: 6, guest: ${guest}}`,
      'vms:',
      `  - {name: v, count: ${count}, memoryMiB: ${memoryMiB}, disks: [4MiB]}`,
    ],
    ['--guest-interval', '0'],
  );
  const after = processorTime();
  const busy = Math.round((100 * (after.busy - before.busy)) / (after.all - before.all));
  const what = `${count} guests write for ${values.minutes} min, processors ${busy}% busy`;
  row(what, '0 pauses, 0 restarts', counted({ counters }));
}

const parts = { crash, many, ha, storage, load };
const usual = ['crash', 'many', 'ha', 'storage'];
const chosen = positionals.length > 0 ? positionals : usual;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    // The lab removes itself.
    lab?.kill('SIGINT');
    process.exitCode = 130;
  });
}
try {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root })
    .toString()
    .trim();
  const average = () => loadavg()[0].toFixed(1);
  console.log(
    `commit ${commit}, ${cpus().length} processors, Node ${process.version}, guests: ${guest}, load average ${average()}\n`,
  );
  console.log('| what | goal | measured |\n|---|---|---|');
  for (const name of chosen) {
    const part = parts[name];
    if (part === undefined)
      throw new Error(`there is no part ${name}: ${Object.keys(parts).join(', ')}`);
    await part();
  }
  console.log(`\nload average at the end ${average()}`);
} catch (error) {
  console.error(error.message);
  process.exitCode ||= 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
