// How fast virtual time runs, on one core: `make bench-sim`, or
//
//   node bench/sim-speed.mjs [small|large|all] [--dist DIR] [--hosts N] [--vms N] [--seconds S]
//
// `make` gives node --max-semi-space-size=64: nearly all that an event makes is garbage a millisecond of
// virtual time later, and in a young generation of 16 MiB too much of it is copied before that.
//
// small: six hosts with ten VMs that write; the goal is 500 times real time.
// large: 64 hosts with 10,000 quiet VMs; the goal is 5 times real time with at most 8 GiB, and that the
// VMs of the master's host run again when it loses its power; the goal for the turn in which the new master
// gets to know all protected VMs is 100 ms of real time. Set-up is timed apart from the steady state. On a busy
// machine the figures by processor time say more; they count the garbage collector's threads as well.

import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { crc32 } from 'node:zlib';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dist: { type: 'string', default: path.join(import.meta.dirname, '..', 'dist') },
    hosts: { type: 'string' },
    vms: { type: 'string' },
    seconds: { type: 'string' },
  },
});

const load = (file) => import(pathToFileURL(path.resolve(values.dist, file)).href);
const { World } = await load('simulator/world/world.js');
const { settlePromises, inOwnTurn } = await load('platform/promises.js');
const { timings } = await load('model/limits.js');
const { hostId } = await load('model/ids.js');

const sizes = {
  small: { hosts: 6, vms: 10, seconds: 300, workload: { intervalMs: 1000, blocks: 8 } },
  large: { hosts: 64, vms: 10_000, seconds: 30, workload: { intervalMs: 10_000, blocks: 0 } },
};

const GiB = 2 ** 30;
/** So many VMs are asked for at once while the cluster is set up. */
const batch = 200;

function run(name, size) {
  const world = new World({
    seed: 1,
    networks: 'separate',
    loss: { storage: 0, ha: 0 },
    timings,
    workload: size.workload,
    settle: settlePromises(),
    crc32,
    log: null,
    hosts: Array.from({ length: size.hosts }, (_, index) => ({
      name: `h${index + 1}`,
      kind: 'full',
      drift: 0,
      cpus: 64,
      memoryBytes: Math.max(512, (4 * size.vms) / size.hosts) * GiB,
      diskBytes: 8e12,
    })),
  });
  let misreads = 0;
  let mostGot = 0;
  world.observe({
    misread: () => (misreads += 1),
    reached(_, point) {
      if (point.at === 'ha.metadataGet') mostGot = Math.max(mostGot, point.values);
    },
  });
  const { time } = world;
  const results = { hosts: size.hosts, vms: size.vms };
  const timed = (what, work) => {
    const wall = performance.now();
    const cpu = process.cpuUsage();
    const before = { ms: time.now(), events: time.events };
    work();
    const wallMs = performance.now() - wall;
    const { user, system } = process.cpuUsage(cpu);
    const cpuMs = (user + system) / 1000;
    const virtualMs = time.now() - before.ms;
    const events = time.events - before.events;
    results[what] = { wall: virtualMs / wallMs, cpu: virtualMs / cpuMs };
    const residentMiB = process.memoryUsage.rss() / 2 ** 20;
    console.log(
      `${name} ${what.padEnd(10)} ${(wallMs / 1000).toFixed(1).padStart(7)} s for ${(virtualMs / 1000).toFixed(1).padStart(6)} s virtual` +
        ` = ${(virtualMs / wallMs).toFixed(1).padStart(6)}x (${(virtualMs / cpuMs).toFixed(1)}x by processor time),` +
        ` ${(events / wallMs).toFixed(0)}k events/s, resident ${residentMiB.toFixed(0)} MiB`,
    );
  };
  const until = (what, condition, limitMs, everyMs) => {
    if (!time.advanceUntil(condition, limitMs, everyMs)) throw new Error(`${what}: not in time`);
  };
  const names = Array.from({ length: size.vms }, (_, index) => `vm-${index + 1}`);
  const ask = (asked) => {
    for (let from = 0; from < names.length; from += batch) {
      const part = names.slice(from, from + batch);
      time.await(Promise.all(part.map((vm, index) => asked(vm, from + index))), 120_000);
    }
  };
  const hostOf = (index) => hostId(`h${1 + (index % size.hosts)}`);
  const managerOf = (index) => world.manager(hostOf(index));

  timed('boot', () => {
    for (const machine of world.machines) machine.powerOn();
    const isUp = (machine) => machine.host?.manager.status().master != null;
    until('boot', () => world.machines.every(isUp), 30_000, 100);
  });
  timed('create', () =>
    ask((vm, index) => {
      world.addVm(vm, [GiB]);
      const disks = [{ sizeBytes: GiB }];
      return managerOf(index).createVm({ name: vm, memoryBytes: GiB, disks });
    }),
  );
  timed('start', () => ask((vm, index) => managerOf(index).startVm(vm, { on: hostOf(index) })));
  const isProtected = () => {
    const { vms } = world.manager('h2').status();
    return vms.protected === size.vms && vms.running === size.vms;
  };
  timed('protect', () => until('protection', isProtected, 120_000, 500));
  timed('settle', () => time.advance(15_000));
  timed('steady', () => time.advance(size.seconds * 1000));
  timed('failover', () => {
    world.machine(world.manager('h2').status().master).cutPower();
    mostGot = 0;
    while (mostGot < size.vms / 2) {
      const begun = performance.now();
      time.step();
      if (mostGot < size.vms / 2) continue;
      const tookMs = (performance.now() - begun).toFixed(0);
      console.log(`${name} a new master knows ${mostGot} protected VMs after ${tookMs} ms`);
    }
    until('failover', isProtected, 120_000, 500);
  });
  timed('after', () => time.advance((size.seconds * 1000) / 3));
  if (misreads > 0) throw new Error(`${misreads} misreads`);
  const resident = process.resourceUsage().maxRSS / 2 ** 20;
  console.log(
    `${name}: ${size.hosts} hosts, ${size.vms} VMs: ${results.steady.wall.toFixed(1)} times real time (${results.steady.cpu.toFixed(1)} by processor time), at most ${resident.toFixed(2)} GiB resident`,
  );
}

const chosen = positionals[0] ?? 'all';
for (const [name, size] of Object.entries(sizes)) {
  if (chosen !== 'all' && chosen !== name) continue;
  const number = (given, otherwise) => (given === undefined ? otherwise : Number(given));
  const hosts = number(values.hosts, size.hosts);
  const vms = number(values.vms, size.vms);
  const seconds = number(values.seconds, size.seconds);
  // A turn of its own: nothing else may run between two events of virtual time.
  await inOwnTurn(() => run(name, { ...size, hosts, vms, seconds }));
}
