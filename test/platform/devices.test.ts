// Further devices on real folders: made by an operator, found by the daemon, missed when they are gone, and
// never made by the daemon where there is nothing.

import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { addDevice } from '../../src/daemon/add-device.ts';
import { readConfig } from '../../src/daemon/config.ts';
import { hostId, type StoreId, storeId } from '../../src/model/ids.ts';
import { openDeviceFolder, openLocalDisk } from '../../src/platform/disk.ts';
import type { DevicePort } from '../../src/ports/device.ts';
import { syncFile, writeTo } from '../../src/ports/disk-calls.ts';
import { measured } from '../../src/storage/devices/measured-disk.ts';
import { type HostDevices, openDevices } from '../../src/storage/devices/pool.ts';
import { usualThresholds } from '../../src/storage/fill.ts';
import { SilentLog } from '../support/silent-log.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

let folder: string;
let configFile: string;
const closing: (() => void)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hf-devices-'));
  configFile = join(folder, 'config.yaml');
  await writeFile(
    configFile,
    `# kept
cluster: lab
name: h1
dataDir: data
storage: {address: "127.0.0.1:7400"}
ha: {address: "127.0.0.1:7401"}
tls: {ca: ca, certificate: crt, key: key}
`,
  );
});
afterEach(async () => {
  for (const close of closing.splice(0)) close();
  await rm(folder, { recursive: true, force: true });
});

const at = (name: string) => join(folder, name);

async function made(name: string): Promise<string> {
  await mkdir(at(name), { recursive: true });
  const { device } = await addDevice({
    configFile,
    path: at(name),
    class: 'fast',
    sharesFileSystem: true,
  });
  return device;
}

function port(name: string, id: StoreId | null): DevicePort {
  return {
    name,
    id,
    class: 'fast',
    capacityBytes: null,
    async open() {
      const disk = await openDeviceFolder(at(name));
      return { disk, close: () => disk.close() };
    },
  };
}

interface Host {
  readonly clock: VirtualClock;
  readonly pool: HostDevices;
  readonly told: string[];
  end(): void;
  look(isSo: () => boolean): Promise<void>;
}

/** `ids`: what the configuration says of them. */
async function host(
  names: readonly string[],
  self = 'h1',
  ids: readonly StoreId[] = [],
): Promise<Host> {
  const clock = new VirtualClock();
  const told: string[] = [];
  const main = await openLocalDisk(at(`main of ${self}`));
  const pool = await openDevices({
    self: hostId(self),
    cluster: 'lab',
    clock,
    log: new SilentLog(),
    main: {
      disk: measured(main, clock),
      class: 'large',
      capacityBytes: null,
      id: () => storeId('main'),
      problem: () => null,
    },
    ports: names.map((name, index) => port(name, ids[index] ?? null)),
    thresholds: usualThresholds,
    placedBytes: () => 0,
    emit: (type, text) => told.push(`${type} ${text}`),
  });
  const end = () => {
    pool.stop();
    main.close();
  };
  closing.push(end);
  /** Looks as the daemon does every five seconds; what it does on real files takes real time. */
  async function look(isSo: () => boolean): Promise<void> {
    for (let tries = 0; !isSo(); tries += 1) {
      if (tries > 2000) throw new Error(`still not so: ${JSON.stringify(pool.report().devices)}`);
      // Seldom: a device that takes three intervals for an answer counts as silent.
      if (tries % 40 === 0) clock.advance(5000);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  return { clock, pool, told, look, end };
}

const problems = ({ pool }: Host) => pool.report().devices?.map(({ problem }) => problem);

it('makes a folder a device once, and names it in the configuration', async () => {
  const device = await made('nvme1');
  expect(await readFile(configFile, 'utf8')).toMatch(/^# kept$/m);
  const config = await readConfig(configFile);
  const entry = { path: at('nvme1'), class: 'fast', capacityBytes: null };
  expect(config.devices).toEqual([{ ...entry, id: device }]);
  // Once more, as after an interruption: it is the same one.
  expect(await made('nvme1')).toBe(device);
  expect((await readConfig(configFile)).devices).toHaveLength(1);
  await made('nvme2');
  expect((await readConfig(configFile)).devices).toHaveLength(2);

  const { pool } = await host(['nvme1']);
  expect(pool.report().devices).toMatchObject([{ id: device, problem: null }]);
  expect(pool.named(storeId(device))?.name).toBe('nvme1');
  await expect(made('nvme1')).rejects.toThrow(/a device that a daemon uses/);
});

it('makes no device of what is not mounted, in use for something else, or not there', async () => {
  await mkdir(at('files/inner'), { recursive: true });
  await writeFile(at('files/inner/letter'), 'dear');
  const add = (name: string, sharesFileSystem: boolean) =>
    addDevice({ configFile, path: at(name), class: 'large', sharesFileSystem });
  await expect(add('files', false)).rejects.toThrow(/nothing is mounted at .*files/);
  await expect(add('files', true)).rejects.toThrow(/not empty: there is inner\/letter/);
  await expect(add('none', true)).rejects.toThrow(/none can not be used: ENOENT/);
  expect((await readConfig(configFile)).devices).toEqual([]);
});

it('puts nothing in an empty mount point, and takes the device when it is there', async () => {
  await made('nvme1');
  await rename(at('nvme1'), at('unmounted'));
  await mkdir(at('nvme1'));
  const one = await host(['nvme1']);
  expect(problems(one)).toEqual([expect.stringContaining('no device of Holdfast is there')]);
  expect(await readdir(at('nvme1'))).toEqual([]);
  let looks = 0;
  await one.look(() => looks++ > 100);
  expect(await readdir(at('nvme1'))).toEqual([]);
  await rm(at('nvme1'), { recursive: true });
  await rename(at('unmounted'), at('nvme1'));
  await one.look(() => problems(one)?.[0] === null);
  expect(one.told.map((text) => text.split(' ')[0])).toEqual([
    'storage.deviceFailed',
    'storage.deviceBack',
  ]);
});

it('says which one is missing at the start, and believes a device more than the configuration', async () => {
  const [one, other] = [storeId(await made('nvme1')), storeId(await made('nvme2'))];
  const ids = ({ pool }: Host) => pool.report().devices?.map(({ id }) => id);
  await rename(at('nvme1'), at('taken-out'));
  const first = await host(['nvme1', 'nvme2'], 'h1', [one, other]);
  expect(ids(first)).toEqual([one, other]);
  expect(problems(first)).toEqual([expect.stringContaining('not mounted'), null]);
  first.end();
  // The other one is in its place, and then it in the place of the other.
  await rename(at('nvme2'), at('nvme1'));
  const alone = await host(['nvme1', 'nvme2'], 'h1', [one, other]);
  expect(ids(alone)).toEqual([other, null]);
  await rename(at('taken-out'), at('nvme2'));
  await alone.look(() => problems(alone)?.every((text) => text === null) === true);
  expect(ids(alone)).toEqual([other, one]);
  // An empty one in its place has another name, and so has its entry.
  alone.end();
  await rm(at('nvme2'), { recursive: true });
  const third = await made('nvme2');
  expect((await readConfig(configFile)).devices.map(({ id }) => id)).toEqual([one, third]);
});

it('notices that a device is gone, and counts what may be lost when it is back', async () => {
  const device = await made('nvme1');
  const one = await host(['nvme1']);
  const before = one.pool.named(storeId(device))?.disk.incarnation;
  expect(problems(one)).toEqual([null]);
  await rename(at('nvme1'), at('taken-out'));
  await one.look(() => problems(one)?.[0] !== null);
  expect(problems(one)).toEqual([expect.stringContaining('not there any more')]);
  expect(() => one.pool.named(storeId(device))?.disk).toThrow(/not there any more/);
  await rename(at('taken-out'), at('nvme1'));
  await one.look(() => problems(one)?.[0] === null);
  const after = one.pool.named(storeId(device))?.disk.incarnation;
  expect(after).not.toBe(before);
  // The next daemon knows it by the same name: nothing is lost by its start.
  one.end();
  const next = await host(['nvme1']);
  expect(next.pool.named(storeId(device))?.disk.incarnation).toBe(after);
});

it("refuses another host's device, and the copy of one of its own", async () => {
  await made('nvme1');
  await mkdir(at('nvme2'));
  await writeFile(at('nvme2/holdfast-device'), await readFile(at('nvme1/holdfast-device')));
  const copied = await host(['nvme1', 'nvme2']);
  expect(problems(copied)?.filter((text) => text === null)).toHaveLength(1);
  expect(problems(copied)?.find((text) => text !== null)).toMatch(
    /another device of this host says, too/,
  );
  copied.end();
  const other = await host(['nvme1'], 'h2');
  expect(problems(other)).toEqual(['it belongs to the host h1, and stays as it is']);
});

it('measures how long a write and its sync take, of what is written anyway', async () => {
  const device = await made('nvme1');
  const { clock, pool } = await host(['nvme1']);
  const latency = () => pool.report().devices?.[0]?.latencyMs;
  expect(latency()).toBeUndefined();
  const disk = pool.named(storeId(device))?.disk;
  const file = await disk?.open('components/x.data', { create: true });
  if (file === undefined) throw new Error('there is no disk');
  const written = writeTo(file, 0, new Uint8Array(100));
  clock.advance(3);
  await written;
  const synced = syncFile(file);
  clock.advance(20);
  await synced;
  await file.close();
  expect(latency()).toBe(23);
});
