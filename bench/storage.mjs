// How fast the object store is, beside what others do on the same machine at the same time:
// `make bench-storage`, or
//
//   node bench/storage.mjs [set|get|flip|disk ...] [--dist DIR] [--repetitions N] [--seconds S]
//                          [--folder DIR] [--without etcd,ceph,nbdkit,qemu-nbd] [--profile DIR]
//
// Each repetition measures every system once, one after the other, and only what was measured in the
// same repetition is divided: on a busy machine the ratios stay, the figures do not. How to read the
// result stands in bench/README.md.
//
// Everything runs on loopback in one temporary folder (`--folder` chooses the device) and ends with
// the benchmark. `--profile` writes a processor profile of each of our processes per measurement.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { startCeph } from './storage/ceph.mjs';
import { startCluster } from './storage/cluster.mjs';
import { load as loadEtcd, put, range, startEtcd } from './storage/etcd.mjs';
import { openNbd } from './storage/nbd.mjs';
import { cpuUs, end, endAll, makeFolder, start, waitFor } from './storage/processes.mjs';
import { median } from './storage/samples.mjs';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dist: { type: 'string', default: path.join(import.meta.dirname, '..', 'dist') },
    repetitions: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    folder: { type: 'string' },
    without: { type: 'string', default: '' },
    profile: { type: 'string' },
  },
});
const repetitions = Number(options.repetitions);
const ms = Number(options.seconds) * 1000;
const dist = path.resolve(options.dist);
const without = new Set(options.without.split(','));
const folder = makeFolder(options.folder);
const warmUpMs = 500;
const MiB = 2 ** 20;
const diskBytes = 512 * MiB;

/** Of each measurement, per system, one result per repetition. */
const results = new Map();

const isThere = (program) =>
  process.env.PATH.split(':').some((directory) => existsSync(path.join(directory, program)));

function has(system, ...programs) {
  if (without.has(system)) return false;
  const missing = programs.filter((program) => !isThere(program));
  if (missing.length === 0) return true;
  console.log(`without ${system}: ${missing.join(', ')} is not installed (scripts/setup.sh bench)`);
  return false;
}

/** Measures one system once. The processor time of `children` is told per operation. */
async function measure(what, system, children, work) {
  const before = children.map(cpuUs);
  const figures = await work();
  const costs = children.map((child, index) => cpuUs(child) - before[index]);
  // What ran during the warm-up counts as well, and its operations are not counted: by share.
  const part = figures.warmShare ?? 1;
  const perOperation = costs.map((cost) => (cost * part) / figures.count);
  const systems = results.get(what) ?? new Map();
  results.set(what, systems);
  const all = systems.get(system) ?? [];
  systems.set(system, all);
  all.push({
    ...figures,
    cpuUs: perOperation.reduce((sum, one) => sum + one, 0) + (figures.clientCpuUs ?? 0),
    costs: perOperation,
  });
  process.stderr.write('.');
}

async function profiled(hosts, what, work) {
  if (options.profile === undefined) return work();
  await mkdir(options.profile, { recursive: true });
  for (const { ask } of hosts) await ask('profile', { file: null });
  try {
    return await work();
  } finally {
    for (const { name, ask } of hosts) {
      const file = path.join(
        path.resolve(options.profile),
        `${what}.${name}.cpuprofile`.replaceAll(/[ /,]+/g, '-'),
      );
      await ask('profile', { file });
    }
  }
}

const round = (value) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

function print(what) {
  const systems = results.get(what);
  if (systems === undefined) return;
  console.log(`\n${what}`);
  for (const [system, all] of systems) {
    const of = (key) => round(median(all.map((one) => one[key])));
    const parts =
      (all[0].costs ?? []).length > 1
        ? ` (${all[0].costs.map((_, index) => round(median(all.map((one) => one.costs[index])))).join(' + ')})`
        : '';
    const cpu = all[0].cpuUs > 0 ? `, CPU ${of('cpuUs')} us each${parts}` : '';
    console.log(
      `  ${system.padEnd(22)} ${of('perSecond').padStart(7)}/s, median ${of('p50')} ms, 99% within ${of('p99')} ms${cpu}`,
    );
  }
}

/** How many times as fast `ours` is; `by` latency where that is what counts. */
function goal(what, ours, theirs, atLeast = null) {
  const systems = results.get(what);
  const mine = systems?.get(ours);
  const other = systems?.get(theirs);
  if (mine === undefined || other === undefined) return;
  const ratios = mine.map((one, index) => one.perSecond / other[index].perSecond);
  const ratio = median(ratios);
  const verdict =
    atLeast === null ? '' : `; goal ${String(atLeast)}: ${ratio >= atLeast ? 'reached' : 'MISSED'}`;
  console.log(
    `  = ${ours} : ${theirs} = ${round(ratio)} (${round(Math.min(...ratios))} to ${round(Math.max(...ratios))})${verdict}`,
  );
}

const children = (hosts) => hosts.map(({ child }) => child);

async function cluster(name, network) {
  const own = path.join(folder, name);
  await mkdir(own, { recursive: true });
  return startCluster({ dist, folder: own, network });
}

/** What HA keeps of a protected VM is about so long. */
const protection = 'p'.repeat(300);

async function benchSet() {
  const hosts = await cluster('set', '127.0.3');
  const [{ ask }] = hosts;
  const names = Array.from({ length: 1000 }, (_, index) => `vm-${index}`);
  const vms = await ask('create', { names, disks: [] });
  const folderOf = path.join(folder, 'etcd');
  const etcd = has('etcd', 'etcd')
    ? await startEtcd({ folder: folderOf, network: '127.0.4' })
    : null;
  const value = JSON.stringify({ turn: 1000, value: protection });
  const depths = [1, 32, 128, 1000];
  const what = (inFlight) => `SET, ${inFlight} in flight`;
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    for (const inFlight of depths) {
      await profiled(hosts, what(inFlight), () =>
        measure(what(inFlight), 'holdfast', children(hosts), () =>
          ask('set', { vms, inFlight, ms, value: protection }),
        ),
      );
      if (etcd === null) continue;
      const request = (index) =>
        put(`vm-${String(index % 1000).padStart(6, '0')}/ha/protection`, value);
      await measure(what(inFlight), 'etcd put', etcd.members, () =>
        loadEtcd({ client: etcd.client, inFlight, ms, request }),
      );
    }
  }
  for (const inFlight of depths) {
    print(what(inFlight));
    goal(what(inFlight), 'holdfast', 'etcd put', inFlight === 32 || inFlight === 128 ? 5 : null);
  }
  etcd?.client.close();
  for (const child of [...children(hosts), ...(etcd?.members ?? [])]) await end(child);
}

/** A cluster whose directories know `count` VMs with one disk each, all with a protection record. */
async function crowd(hosts, template, from, to) {
  // All in step: hosts whose directories differ for longer than a heartbeat compare them as a whole.
  for (let index = from; index < to; index += 1000) {
    const part = { template, from: index, to: Math.min(to, index + 1000) };
    await Promise.all(hosts.map(({ ask }) => ask('learn', part)));
  }
  // While they learn they are late with heartbeats, and so not within reach of each other.
  for (const { ask, child } of hosts) {
    const isThere = async () => (await ask('accessible')) === to;
    // To ask is work for the host: not more often than it can do it.
    await waitFor(`${to} VMs are accessible`, isThere, child, 120_000, 1000);
  }
}

async function templateOf(hosts) {
  const [{ ask }] = hosts;
  const policy = { failuresToTolerate: 1, stripes: 1 };
  const disks = [{ name: 'disk0', sizeBytes: MiB, policy }];
  const [vm] = await ask('create', { names: ['template-vm'], disks });
  await ask('set', { vms: [vm], inFlight: 1, ms: 1, value: protection });
  return ask('knowledge', { vm });
}

const large = 100_000;

async function benchGet({ flips }) {
  const hosts = await cluster(flips ? 'flip' : 'get', '127.0.5');
  const [{ ask }] = hosts;
  const template = await templateOf(hosts);
  await crowd(hosts, template, 1, 10_000);
  if (!flips) await benchGetOf(hosts, 10_000, true);
  await crowd(hosts, template, 10_000, large);
  if (!flips) await benchGetOf(hosts, large, false);
  else await benchFlip(hosts, ask);
  for (const child of children(hosts)) await end(child);
}

async function benchGetOf(hosts, count, besideEtcd) {
  const what = `GET of ${count} VMs`;
  const [{ ask, child }] = hosts;
  const isBeside = besideEtcd && has('etcd', 'etcd');
  const etcd = isBeside
    ? await startEtcd({ folder: path.join(folder, 'etcd-get'), network: '127.0.6' })
    : null;
  const key = (index) => `ha/protection/vm-${String(index).padStart(6, '0')}`;
  const value = JSON.stringify({ turn: 1000, value: protection });
  if (etcd !== null) {
    let next = 0;
    const call = () =>
      new Promise((resolve, reject) => {
        const { path: method, message } = put(key(next++), value);
        etcd.client.call(method, message, (error) =>
          error === null ? resolve() : reject(new Error(error.message)),
        );
      });
    const worker = async () => {
      while (next < count) await call();
    };
    await Promise.all(Array.from({ length: 64 }, worker));
  }
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    await profiled([hosts[0]], what, () =>
      measure(what, 'holdfast', [child], () => ask('get', { repetitions: 20, expect: count })),
    );
    if (etcd === null) continue;
    const request = () => range('ha/protection/', 'ha/protection0');
    await measure(what, 'etcd range', etcd.members, () =>
      loadEtcd({ client: etcd.client, inFlight: 1, ms: Math.min(ms, 1000), request }),
    );
  }
  print(what);
  goal(what, 'holdfast', 'etcd range', 10);
  etcd?.client.close();
  for (const member of etcd?.members ?? []) await end(member);
}

/** host-3 stands still until it counts as unreachable, then goes on. What the others do about it is
 * one turn of their event loops; the longest turn without that is told beside it. */
async function benchFlip(hosts, ask) {
  const third = hosts[2].child;
  const seen = { quiet: [], gone: [], back: [] };
  const longest = async () => (await ask('extremes')).longestTurnMs;
  const pause = (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs));
  await pause(6000); // what was learned is compared and written
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    await longest();
    await pause(3000);
    seen.quiet.push(await longest());
    await profiled([hosts[0]], 'flip', async () => {
      process.kill(third.pid, 'SIGSTOP');
      await waitFor(
        'host-3 counts as gone',
        async () => (await ask('reachable')) === 2,
        null,
        10_000,
      );
      await pause(100);
      seen.gone.push(await longest());
      process.kill(third.pid, 'SIGCONT');
      await waitFor('host-3 is back', async () => (await ask('reachable')) === 3, null, 20_000);
      await pause(100);
      seen.back.push(await longest());
    });
    process.stderr.write('.');
  }
  console.log(
    `\naccessibility of ${large} VMs when one of three hosts comes or goes: the longest turn`,
  );
  for (const [name, all] of Object.entries(seen)) {
    const middle = median(all);
    const verdict =
      name === 'quiet' ? '' : `; goal under 5 ms: ${middle < 5 ? 'reached' : 'MISSED'}`;
    console.log(
      `  ${name.padEnd(22)} ${round(middle)} ms (${round(Math.min(...all))} to ${round(Math.max(...all))})${verdict}`,
    );
  }
}

const shapes = [
  { what: '4 KiB writes, depth 16', write: true, blockBytes: 4096, depth: 16 },
  { what: '4 KiB writes, depth 1', write: true, blockBytes: 4096, depth: 1 },
  {
    what: '4 KiB writes, depth 16, each durable',
    write: true,
    blockBytes: 4096,
    depth: 16,
    fua: true,
  },
  { what: '4 KiB reads, depth 16', write: false, blockBytes: 4096, depth: 16 },
  { what: '1 MiB writes, depth 4', write: true, blockBytes: MiB, depth: 4 },
  {
    what: '1 MiB writes, depth 4, each durable',
    write: true,
    blockBytes: MiB,
    depth: 4,
    fua: true,
  },
  { what: '1 MiB reads, depth 4', write: false, blockBytes: MiB, depth: 4 },
];

async function benchDisk() {
  const hosts = await cluster('disk', '127.0.7');
  const systems = [];
  const [{ ask }] = hosts;
  const add = async (system, client, processes) => {
    systems.push({ system, processes, run: (shape) => client.run({ ...shape, ms, warmUpMs }) });
    await client.run({ write: true, blockBytes: MiB, depth: 4, ms: null });
  };
  const disk = async (name, failuresToTolerate, placedOn) => {
    const policy = { failuresToTolerate, stripes: 1 };
    const disks = [{ name: 'disk0', sizeBytes: diskBytes, policy }];
    const [vm] = await ask('create', {
      names: [name],
      disks,
      placement: { objectHosts: { disk0: placedOn } },
    });
    const { socket, name: exportName } = await ask('open', { vm });
    return openNbd({ path: socket, name: exportName });
  };
  await add(
    'holdfast, 2 copies',
    await disk('mirrored', 1, ['host-1', 'host-2', 'host-3']),
    children(hosts),
  );
  await add('holdfast, local', await disk('local', 0, ['host-1']), children(hosts));
  const qemuArgs = ['-t', '-f', 'raw', '--cache=writeback'];
  for (const { system, args } of [
    { system: 'qemu-nbd', args: (file, socket) => [...qemuArgs, '-k', socket, file] },
    { system: 'nbdkit', args: (file, socket) => ['-f', '-U', socket, 'file', file] },
  ]) {
    if (!has(system, system)) continue;
    const file = path.join(folder, `${system}.img`);
    const socket = path.join(folder, `${system}.sock`);
    await writeFile(file, '');
    execFileSync('truncate', ['-s', String(diskBytes), file]);
    const child = start(system, args(file, socket), { log: path.join(folder, `${system}.log`) });
    await waitFor(`${system} listens`, () => existsSync(socket), child);
    await add(system, await openNbd({ path: socket }), [child]);
  }
  if (has('ceph', 'ceph-osd', 'ceph-mon', 'ceph-mgr', 'rbd', 'fio')) {
    try {
      const ceph = await startCeph({
        folder: path.join(folder, 'ceph'),
        network: '127.0.2',
        sizeBytes: diskBytes,
      });
      await ceph.load({ write: true, blockBytes: MiB, depth: 4, ms: null });
      // Each write of RBD is durable on both copies before it is answered: there is no other kind.
      systems.push({
        system: 'ceph rbd, 2 copies',
        processes: ceph.daemons,
        run: (shape) => ceph.load({ ...shape, ms, warmUpMs }),
      });
    } catch (error) {
      console.log(`without ceph: it could not be started: ${error.message}`);
    }
  }
  let latestBeatMs = 0;
  for (const { ask: tell } of hosts) {
    await tell('forgetBeats');
    await tell('extremes');
  }
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    for (const shape of shapes) {
      for (const { system, processes, run } of systems) {
        const isOurs = system.startsWith('holdfast');
        const work = () =>
          measure(shape.what, system, processes, async () => {
            const figures = await run(shape);
            return { ...figures, warmShare: ms / (ms + warmUpMs) };
          });
        await (isOurs ? profiled(hosts, `${shape.what} ${system}`, work) : work());
        for (const { ask: tell } of hosts) {
          const { latestBeatMs: latest } = await tell('extremes');
          if (isOurs) latestBeatMs = Math.max(latestBeatMs, latest);
        }
      }
    }
  }
  for (const { what, write, fua } of shapes) {
    print(what);
    const small = what.startsWith('4 KiB writes, depth 16');
    goal(what, 'holdfast, 2 copies', 'ceph rbd, 2 copies', small && write ? (fua ? 3 : 8) : null);
    goal(what, 'holdfast, local', 'qemu-nbd', small && !fua ? 1.5 : null);
    goal(what, 'holdfast, 2 copies', 'qemu-nbd');
    goal(what, 'holdfast, local', 'nbdkit');
  }
  const verdict = latestBeatMs < 250 ? 'reached' : 'MISSED';
  console.log(
    `\nthe latest heartbeat while our disks were under load: ${round(latestBeatMs)} ms late; goal 250 ms: ${verdict}`,
  );
}

const sections = {
  set: benchSet,
  get: () => benchGet({ flips: false }),
  flip: () => benchGet({ flips: true }),
  disk: benchDisk,
};
const chosen = positionals.length > 0 ? positionals : Object.keys(sections);

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    void endAll().finally(() => process.exit(130));
  });
}
try {
  for (const name of chosen) {
    const section = sections[name];
    if (section === undefined)
      throw new Error(`there is no section ${name}: ${Object.keys(sections).join(', ')}`);
    await section();
  }
} catch (error) {
  console.error(`\n${error.stack}`);
  process.exitCode = 1;
} finally {
  await endAll();
  // Connections of our own may still be open.
  process.exit();
}
