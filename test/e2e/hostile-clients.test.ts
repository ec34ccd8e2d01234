// Clients that mean harm, on the real socket of a real daemon: beside them one client is served as if it
// were alone, new ones are let in, and the daemon stays as large as it was.

import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createClient } from '../../src/api/client.ts';
import { NbdClient } from '../crash/nbd-client.ts';
import { CMD, clientFlags, enter, goData, OPT, optionOf, requestOf } from '../nbd/client-wire.ts';
import { DiskServices, type Service, Tools } from './support/disk-service.ts';
import { RealCluster } from './support/real-cluster.ts';

const MiB = 1024 * 1024;
const host = 'host-1';

let cluster: RealCluster;
let services: DiskServices;
let service: Service;
const open = new Set<Socket>();

beforeAll(async () => {
  cluster = new RealCluster();
  services = new DiskServices(cluster, 'db/disk0');
  await cluster.start(1);
  const policy = { failuresToTolerate: 0, stripes: 1 };
  const disks = [{ sizeBytes: 64 * MiB, policy }];
  await createClient([cluster.socket(host)]).createVm({ name: 'db', memoryBytes: 96 * MiB, disks });
  service = await services.serve(host);
});
afterAll(async () => {
  for (const socket of open) socket.destroy();
  await services.endAll();
  await cluster.end();
});

/** Connects and says something; reads nothing unless told to. */
function attacker(...words: Uint8Array[]): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect({ path: service.socket });
    open.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => open.delete(socket));
    socket.once('connect', () => {
      for (const word of words) socket.write(word);
      resolve(socket);
    });
    socket.once('error', () => resolve(socket));
  });
}

function memoryMiB(): number {
  const pid = cluster.daemons.get(host)?.pid;
  const [, kib] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) / 1024;
}

/** Writes and reads until it is told to end; says how often. */
async function neighbour(isOver: () => boolean): Promise<number> {
  const client = await NbdClient.open(service.socket, 'disk0');
  let turns = 0;
  while (!isOver() || turns < 5) {
    const offset = (turns % 64) * MiB;
    const data = Buffer.alloc(65_536, turns + 1);
    await client.write(offset, data, turns % 8 === 0);
    expect((await client.read(offset, data.length)).equals(data)).toBe(true);
    turns += 1;
  }
  client.close();
  return turns;
}

const huge = 2 ** 32 - 1;
const noise = Buffer.alloc(MiB, 'Hold fast!');
const garbage = (bytes: number) => noise.subarray(0, bytes);
const attacks: Record<string, () => Promise<unknown>> = {
  'words that are no protocol': () =>
    each(100, () => attacker(garbage(4096)).then((socket) => socket.resume())),
  'options of 4 GiB': () =>
    each(50, () => attacker(clientFlags(), optionOf(OPT.GO).fill(255, 12), garbage(65_536))),
  'requests for too much': () =>
    each(50, () =>
      attacker(
        enter(),
        requestOf(CMD.READ, { length: huge }),
        requestOf(CMD.WRITE, { length: huge }),
        requestOf(CMD.READ, { offset: 2n ** 64n - 1n, length: huge }),
        requestOf(99, { length: huge }),
        garbage(64),
      ),
    ),
  'half of a handshake, and silence': () => each(300, () => attacker(clientFlags())),
  'half of a frame, and silence': () =>
    each(40, () => attacker(enter(), requestOf(CMD.WRITE, { length: 32 * MiB }), garbage(MiB))),
  'reads that nobody takes': () =>
    each(24, () => {
      const reads = Array.from({ length: 10 }, () => requestOf(CMD.READ, { length: 16 * MiB }));
      return attacker(enter(), ...reads).then((socket) => socket.pause());
    }),
  'thousands of connections': () =>
    each(3000, async (index) => {
      const socket = await attacker(index % 2 === 0 ? enter() : clientFlags());
      if (index % 3 === 0) socket.destroy();
    }),
  'an option that was cut off': () =>
    each(50, async () => {
      const socket = await attacker(
        clientFlags(),
        optionOf(OPT.GO, goData('disk0')).subarray(0, 9),
      );
      socket.destroy();
    }),
};

async function each(count: number, one: (index: number) => Promise<unknown>): Promise<void> {
  for (let index = 0; index < count; index += 20) {
    const some = Array.from({ length: Math.min(20, count - index) }, (_, at) => one(index + at));
    await Promise.all(some);
  }
}

it.each(Object.keys(attacks))('%s', async (name) => {
  const before = memoryMiB();
  let isOver = false;
  const served = neighbour(() => isOver);
  await attacks[name]?.();
  // The attackers and the neighbour are still there, and somebody new comes.
  await new Tools(cluster.folder).done('nbdinfo', service.uri);
  isOver = true;
  expect(await served).toBeGreaterThan(0);
  // More than the bounds say, because garbage is collected late; they are tested in test/nbd.
  expect(memoryMiB() - before).toBeLessThan(1024);
  for (const socket of open) socket.destroy();
  expect(service.process.exitCode).toBe(null);
});
