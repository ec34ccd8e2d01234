// NBD clients that we did not write, on a disk of which the other copy's host is killed and comes back
// meanwhile: they see a pause, and nothing else. Afterwards both copies hold the same bytes.

import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ApiClient, createClient } from '../../src/api/client.ts';
import type { ObjectReply } from '../../src/api/storage-schemas.ts';
import { difference } from '../crash/copies.ts';
import { DiskServices, type Service, Tools } from './support/disk-service.ts';
import { RealCluster, until } from './support/real-cluster.ts';

const MiB = 1024 * 1024;
const sizeMiB = 64;
const disk = 'db/disk0';

let cluster: RealCluster;
let services: DiskServices;
let tools: Tools;
let client: ApiClient;
let service: Service;
/** Has the copy that the serving host has not. */
let victim: string;

beforeAll(async () => {
  cluster = new RealCluster();
  services = new DiskServices(cluster, disk);
  tools = new Tools(cluster.folder);
  await cluster.start(3);
  await createClient([cluster.socket('host-1')]).createVm({
    name: 'db',
    memoryBytes: 96 * MiB,
    disks: [{ sizeBytes: sizeMiB * MiB }],
    hosts: ['host-1', 'host-2', 'host-3'],
  });
  victim = 'host-2';
  client = createClient([cluster.socket('host-1')]);
  service = await services.serve('host-1');
});
afterAll(async () => {
  await services.endAll();
  await cluster.end();
});

const stateOfCopy = async (host: string): Promise<string> => {
  const { components } = await client.object(disk);
  return components.find((one) => one.host === host)?.state ?? 'gone';
};

/** The other copy's daemon is killed, and started when the disk does without it; done when it counts again. */
async function killAndReturn(): Promise<void> {
  // Whoever uses it is in the middle of that by then.
  await new Promise((resolve) => void setTimeout(resolve, 300));
  cluster.killDaemon(victim);
  await until(
    'the disk does without the copy',
    async () => (await stateOfCopy(victim)) !== 'active',
  );
  await cluster.boot(victim);
  await until('the copy counts again', async () => (await stateOfCopy(victim)) === 'active');
}

/** Uses the disk from before the kill until after the return. */
async function meanwhile(use: () => Promise<void>): Promise<void> {
  let isBack = false;
  const disturbance = killAndReturn().then(() => (isBack = true));
  do await use();
  while (!isBack);
  await disturbance;
}

async function copiesAreEqual(): Promise<void> {
  let object: ObjectReply | null = null;
  await until('every copy counts', async () => {
    object = await client.object(disk);
    return object.components.every((one) => one.state === 'active');
  });
  expect(difference(cluster.folder, object as unknown as ObjectReply)).toBe(null);
}

it('nbdcopy and nbdinfo', async () => {
  const image = join(cluster.folder, 'image');
  await meanwhile(async () => {
    const half = (sizeMiB / 2) * MiB;
    writeFileSync(image, Buffer.concat([randomBytes(half), Buffer.alloc(half)]));
    await tools.done('nbdcopy', '--flush', '--connections=4', image, service.uri);
    await tools.done('nbdinfo', service.uri);
    await tools.done('nbdcopy', service.uri, 'out');
    await tools.done('cmp', image, 'out');
  });
  await copiesAreEqual();
});

it('qemu-img convert, check, compare and bench', async () => {
  const image = join(cluster.folder, 'image');
  await meanwhile(async () => {
    writeFileSync(image, Buffer.concat([randomBytes(16 * MiB), Buffer.alloc(16 * MiB)]));
    await tools.done('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', image, service.uri);
    expect(await tools.done('qemu-img', 'check', '-f', 'qcow2', service.uri)).toMatch(/No errors/);
    await tools.done('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', image, service.uri);
    const load = [
      '-w',
      '-c',
      '2000',
      '-d',
      '16',
      '-s',
      '4096',
      '--flush-interval=64',
      '--no-drain',
    ];
    await tools.done('qemu-img', 'bench', '-f', 'raw', ...load, service.uri);
  });
  await copiesAreEqual();
});

it('fio with verification', async () => {
  const common = ['--name=job', '--ioengine=nbd', `--uri=${service.uri}`, '--thread'];
  const verify = ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--do_verify=1'];
  const mixed = ['--bs=4k', '--iodepth=16', `--size=${sizeMiB}m`, '--io_size=16m', '--fsync=64'];
  let seed = 0;
  await meanwhile(async () => {
    seed += 1;
    const job = [...common, `--randseed=${seed}`, '--rw=randwrite', ...mixed, ...verify];
    await tools.done('fio', ...job);
  });
  await copiesAreEqual();
  expect(service.process.exitCode).toBe(null);
});
