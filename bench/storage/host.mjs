// One host's object store in a process of its own, put together as the daemon does it (TLS, files,
// journal, NBD sockets), without HA and guests. The benchmark asks over the process's channel. The
// SETs are made in here, as HA makes them: it lives in the same process as the store.

import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Samples } from './samples.mjs';

const dist = process.argv[2];
const load = (file) => import(pathToFileURL(path.join(dist, file)).href);
const [{ createClock }, { openLocalDisk }, { createLog }, { createRandom }, { createStreams }] =
  await Promise.all(
    ['clock', 'disk', 'log', 'random', 'streams'].map((name) => load(`platform/${name}.js`)),
  );
const { createTlsTransport } = await load('platform/tls-transport.js');
const { createPeer } = await load('peer/peer.js');
const { createStore } = await load('storage/store.js');
const { noProbe } = await load('ports/probe.js');
const { timings } = await load('model/limits.js');

let longestTurnMs = 0;
/** Heartbeats are sent each `heartbeatIntervalMs`; how much later than that one was heard at most. */
let latestBeatMs = 0;
const heardAt = new Map();

function timed(callback) {
  return (...args) => {
    const began = performance.now();
    callback(...args);
    longestTurnMs = Math.max(longestTurnMs, performance.now() - began);
  };
}

let store = null;
let session = null;
const commands = {
  async begin({ name, folder, members, credentials }) {
    const system = createClock();
    const clock = {
      ...system,
      after: (delayMs, callback) => system.after(delayMs, timed(callback)),
      defer: (callback) => system.defer(timed(callback)),
    };
    const random = createRandom();
    const log = createLog({ host: name, level: 'info', file: null });
    const self = members.find((member) => member.host === name);
    const network = { self: name, network: 'storage', address: self.address };
    const tls = createTlsTransport({ ...network, credentials, clock, random, log });
    await tls.listen();
    const transport = {
      ...tls,
      start: (events) => tls.start({ ...events, frame: timed(events.frame) }),
    };
    const whole = createPeer({ self: name, network: 'storage', transport, clock, log });
    const peer = {
      ...whole,
      on: (type, handler) =>
        whole.on(type, type === 'storage.heartbeat' ? noting(handler) : handler),
    };
    store = await createStore({
      peer,
      clock,
      random,
      log,
      probe: noProbe,
      disk: await openLocalDisk(path.join(folder, 'store')),
      streams: createStreams(),
      timings,
      members: () => members.map(({ host }) => ({ host, kind: 'full' })),
      socketPath: (vm, disk) => path.join(folder, `${vm}.${disk}`),
      capacityBytes: null,
      emit: () => {},
    });
    store.onLease({
      extended() {},
      lapsed: (_, stoodStill) => stoodStill(),
      regained() {},
      lost() {},
    });
    whole.start();
    tls.setPeers(
      new Map(members.filter(({ host }) => host !== name).map((one) => [one.host, one.address])),
    );
    store.start();
    store.releaseForgotten();
  },
  reachable: () => store.hosts().filter((one) => one.reachable && one.store === 'ok').length,
  async create({ names, disks, placement }) {
    const vms = [];
    const rest = names.entries();
    const worker = async () => {
      for (const [index, name] of rest) {
        vms[index] = await store.createVm(
          {
            name,
            cpus: 1,
            memoryBytes: 2 ** 30,
            boot: 'disk',
            disks,
            protected: true,
            priority: 'medium',
          },
          placement,
        );
      }
    };
    await Promise.all(Array.from({ length: 32 }, worker));
    return vms;
  },
  async set({ vms, inFlight, ms, value }) {
    const samples = new Samples();
    const began = performance.now();
    const until = began + ms;
    const worker = async (first) => {
      for (let index = first, turn = 0; performance.now() < until; index += inFlight, turn += 1) {
        const asked = performance.now();
        await store.setMetadata(vms[index % vms.length], 'ha', 'protection', { turn, value });
        samples.add(performance.now() - asked);
      }
    };
    await Promise.all(Array.from({ length: inFlight }, (_, index) => worker(index)));
    return samples.figures(performance.now() - began);
  },
  knowledge: ({ vm }) => store.knowledge(vm),
  /** Fills the directory, as messages of other hosts do: copies of the template VM. */
  async learn({ template, from, to }) {
    for (let index = from; index < to; index += 500) {
      const entries = [];
      for (let copy = index; copy < Math.min(to, index + 500); copy += 1) {
        entries.push(...cloned(template, copy));
      }
      store.learn(entries);
      await new Promise((resolve) => setImmediate(resolve));
    }
  },
  accessible: () => store.getMetadata('ha', 'protection').values.length,
  async get({ repetitions, expect }) {
    const samples = new Samples();
    let elapsedMs = 0;
    let broken = 0;
    while (samples.count < repetitions) {
      const asked = performance.now();
      const { length: size } = store.getMetadata('ha', 'protection').values;
      const tookMs = performance.now() - asked;
      if (size === expect) {
        samples.add(tookMs);
        elapsedMs += tookMs;
      } else {
        // On a machine that is too busy for heartbeats a host goes out of reach, even within a GET.
        broken += 1;
        if (broken === 20) throw new Error(`GET of ${size} VMs instead of ${expect}`);
      }
      // Heartbeats must get their turn.
      await new Promise((resolve) => setTimeout(resolve, size === expect ? 0 : 1000));
    }
    return samples.figures(elapsedMs);
  },
  async open({ vm }) {
    const epoch = await store.lock(vm);
    const { disks } = await store.openDisks(vm, { epoch, guestRuns: false, onWritesLost() {} });
    return disks[0];
  },
  extremes() {
    const extremes = { longestTurnMs, latestBeatMs };
    longestTurnMs = 0;
    latestBeatMs = 0;
    return extremes;
  },
  /** After a pause of the whole process, or of another, its beats are late for that reason. */
  forgetBeats: () => heardAt.clear(),
  async profile({ file }) {
    if (file === null) {
      session = new Session();
      session.connect();
      await session.post('Profiler.enable');
      await session.post('Profiler.setSamplingInterval', { interval: 200 });
      await session.post('Profiler.start');
    } else {
      const { profile } = await session.post('Profiler.stop');
      session.disconnect();
      writeFileSync(file, JSON.stringify(profile));
    }
  },
};

function noting(handler) {
  return (from, ...rest) => {
    const now = performance.now();
    const before = heardAt.get(from);
    if (before !== undefined) {
      latestBeatMs = Math.max(latestBeatMs, now - before - timings.heartbeatIntervalMs);
    }
    heardAt.set(from, now);
    handler(from, ...rest);
  };
}

/** The records of a VM under other names. */
function cloned(template, copy) {
  const text = JSON.stringify(template);
  const names = template.flatMap(({ record }) => [record.id, record.vm]);
  const name = template[0].record.name;
  let changed = text.replaceAll(`"${name}"`, `"${name}-${copy}"`);
  for (const id of new Set(names)) changed = changed.replaceAll(id, `${id}${copy}`);
  return JSON.parse(changed);
}

process.on('message', async ({ id, command, options }) => {
  try {
    process.send({ id, answer: (await commands[command](options ?? {})) ?? null });
  } catch (error) {
    process.send({ id, error: error.stack ?? String(error) });
  }
});
// The benchmark is gone, and nobody else wants this process.
process.once('disconnect', () => process.exit());
