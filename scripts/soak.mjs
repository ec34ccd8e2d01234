// `make soak`: real daemons and process-guests under random faults, for hours.
//
//   node scripts/soak.mjs [--hours 2] [--seed N] [--keep DIR]
//
// Each round is a scenario of its own, played by `bin/holdfast lab run`, which looks from outside all the time that no
// VM runs twice and no acknowledged number is lost. Its faults are drawn as those of `sim explore` are, as far as the lab
// can do them. After each batch of faults all is healed, and within a minute every VM must run and be protected, under
// one master of all. The seed of a round is one more than that of the round before, so a finding is played again with
// `make soak SEED=... HOURS=0`; on real machines the same faults need not find the same again.

import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.join(import.meta.dirname, '..');
const load = (file) => import(pathToFileURL(path.join(root, 'dist', file)).href);
const { drawFaults } = await load('simulator/explore/draw-faults.js');
const { SeededRandom } = await load('simulator/world/random.js');
const { readScenario } = await load('scenario/read.js');
const { writeScenario } = await load('scenario/write.js');

const { values } = parseArgs({
  options: {
    hours: { type: 'string', default: '2' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e6)) },
    keep: { type: 'string', default: path.join(root, 'build/soak') },
  },
});
const firstSeed = Number(values.seed);

const batches = 2;
const faultsMs = 60_000;
/** Within this all must be well again. */
const calmMs = 60_000;
/** Fewer are no story. */
const fewestFaults = 4;

/** Of one VM's guest in a round: were it to end more often, HA would wait before it starts it again. */
const mostEnds = 2;

const anytime = ['partition', 'isolate', 'block', 'heal', 'killGuest', 'hangGuest'];

/** What ends with the batch ends by `mend`. A host whose power is lost has no daemon to stop or to start, and so on. */
function possible(steps, hosts, endMs) {
  const off = new Set();
  const stopped = new Set();
  const full = new Set();
  const slow = new Set();
  const done = [];
  for (const step of steps) {
    const { kind, host } = step;
    const isUp = !off.has(host) && !stopped.has(host);
    if (kind === 'crash' && !off.has(host)) {
      off.add(host);
      stopped.delete(host);
    } else if (kind === 'boot' && off.has(host)) off.delete(host);
    else if (kind === 'stopDaemon' && isUp) stopped.add(host);
    else if (kind === 'startDaemon' && stopped.has(host)) stopped.delete(host);
    else if (kind === 'freeze' && isUp) {
      done.push({ ...step, forMs: Math.min(step.forMs, endMs - step.atMs) });
      continue;
    } else if (kind === 'fillDisk' && !off.has(host)) full.add(host);
    else if (kind === 'freeDisk' && !off.has(host) && full.has(host)) full.delete(host);
    else if (kind === 'slowDisk') slow.add(host);
    else if (!anytime.includes(kind)) continue;
    done.push(step);
  }
  const mend = [
    { atMs: endMs, kind: 'heal', network: 'both' },
    ...hosts.filter((host) => off.has(host)).map((host) => ({ atMs: endMs, kind: 'boot', host })),
    ...hosts
      .filter((host) => stopped.has(host))
      .map((host) => ({ atMs: endMs, kind: 'startDaemon', host })),
    ...[...full].map((host) => ({ atMs: endMs, kind: 'freeDisk', host })),
    ...[...slow].map((host) => ({ atMs: endMs, kind: 'slowDisk', host, byMs: 0 })),
  ];
  return { done, mend };
}

function drawBatch(random, stage) {
  const names = stage.hosts.map(({ name }) => name);
  for (let attempt = 0; ; attempt += 1) {
    const steps = drawFaults(random.stream(`attempt ${attempt}`), stage);
    const drawn = possible(steps, names, stage.durationMs);
    // Each seed leaves kinds of faults out, and some have mostly such as the lab can not do.
    if (drawn.done.length >= fewestFaults) return drawn;
  }
}

function draw(seed) {
  const random = new SeededRandom(`soak ${seed}`);
  const hosts = random.pick([5, 6]);
  const networks = random.pick(['separate', 'separate', 'separate', 'shared']);
  const batchMs = faultsMs + calmMs;
  const checked = Array.from({ length: batches }, (_, index) => (index + 1) * (batchMs / 1000));
  const group = Array.from({ length: hosts }, (_, index) => `h${index + 1}`);
  const quiet = readScenario(`
name: Soak ${seed}
duration: ${(batches * batchMs) / 1000}s
cluster: {hosts: ${hosts}, networks: ${networks}, guest: process}
vms:
  - {name: v, count: 6, memoryMiB: 16, disks: [4MiB]}
  - {name: wide, memoryMiB: 16, disks: [4MiB, 2MiB], policy: {failuresToTolerate: 1, stripes: 2}}
  - {name: safe, memoryMiB: 16, disks: [2MiB], policy: {failuresToTolerate: 2, stripes: 1}}
expect:
${checked
  .flatMap((at) => [
    `  - {at: ${at}s, vm: "*", state: running}`,
    `  - {at: ${at}s, protected: "*"}`,
    `  - {at: ${at}s, masters: [[${group.join()}]]}`,
  ])
  .join('\n')}
`);
  const stage = {
    hosts: quiet.cluster.hosts,
    vms: quiet.vms.map(({ name }) => name),
    durationMs: faultsMs,
    networks,
  };
  const drawn = Array.from({ length: batches }, (_, index) =>
    drawBatch(random.stream(`batch ${index}`), stage),
  );
  const ends = new Map();
  const counts = new Map();
  const count = (map, key) => map.set(key, (map.get(key) ?? 0) + 1).get(key);
  const isBearable = ({ kind, vm }) =>
    !['killGuest', 'hangGuest'].includes(kind) || count(ends, vm) <= mostEnds;
  const steps = drawn.flatMap(({ done, mend }, index) => {
    const faults = done.filter(isBearable);
    for (const { kind } of faults) count(counts, kind);
    return [...faults, ...mend].map((step) => ({ ...step, atMs: step.atMs + index * batchMs }));
  });
  return { text: writeScenario({ ...quiet, steps }), counts };
}

let lab = null;
let isInterrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    isInterrupted = true;
    // It removes itself.
    lab?.kill('SIGINT');
  });
}

async function play(seed) {
  const folder = path.join(values.keep, String(seed));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const { text, counts } = draw(seed);
  const file = path.join(folder, 'scenario.yaml');
  writeFileSync(file, text);
  const args = ['lab', 'run', file, '--logs', path.join(folder, 'logs')];
  const child = spawn(path.join(root, 'bin/holdfast'), args, { stdio: ['ignore', 'pipe', 'pipe'] });
  lab = child;
  let story = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes) => (story += bytes));
  }
  const status = await new Promise((resolve) => child.once('close', resolve));
  lab = null;
  writeFileSync(path.join(folder, 'story.log'), story);
  if (status === 0) rmSync(folder, { recursive: true });
  return { ok: status === 0, story, counts, folder };
}

const total = new Map();
const add = (what, count) => total.set(what, (total.get(what) ?? 0) + count);
const endAtMs = Date.now() + Number(values.hours) * 3_600_000;
const found = [];
console.log(`seed ${firstSeed}`);
for (let seed = firstSeed; seed === firstSeed || Date.now() < endAtMs; seed += 1) {
  const { ok, story, counts, folder } = await play(seed);
  if (isInterrupted) break;
  const restarts = story.match(/^restart: /gm)?.length ?? 0;
  const looks = /looked at (\d+) times/.exec(story)?.[1] ?? '?';
  const faults = [...counts].map(([kind, count]) => `${kind} ${count}`).join(', ');
  console.log(
    `${seed}: ${ok ? 'ok' : 'FOUND'}; ${faults}; ${restarts} restarts; ${looks} looks a second, load ${loadavg()[0].toFixed(1)}`,
  );
  add('rounds', 1);
  add('restarts', restarts);
  for (const [kind, count] of counts) add(kind, count);
  if (ok) continue;
  found.push(seed);
  for (const line of story.split('\n')) {
    if (/^broken:|FAILED|^failed|by itself|did not come/.test(line)) console.log(`    ${line}`);
  }
  console.log(`    kept in ${folder}`);
}
console.log(`\n${[...total].map(([what, count]) => `${what} ${count}`).join(', ')}`);
console.log(found.length === 0 ? 'nothing found' : `found with seeds ${found.join(', ')}`);
process.exitCode = isInterrupted ? 130 : found.length > 0 ? 1 : 0;
