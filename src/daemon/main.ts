// The host daemon: reads its configuration, takes the ports of this machine, and makes a host of
// them. It runs until a signal says stop; its guests do not notice.

import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createHost, type Host } from '../host/create-host.ts';
import { createClock } from '../platform/clock.ts';
import { openDeviceFolder, openLocalDisk } from '../platform/disk.ts';
import { smallFile } from '../platform/durable-file.ts';
import type { TlsCredentials } from '../platform/identity.ts';
import { createLog } from '../platform/log.ts';
import { type Members, openMembers, readMembers } from '../platform/members.ts';
import { createRandom } from '../platform/random.ts';
import { createStreams } from '../platform/streams.ts';
import { createTlsTransport } from '../platform/tls-transport.ts';
import type { Clock } from '../ports/clock.ts';
import type { DevicePort } from '../ports/device.ts';
import type { GuestDriver } from '../ports/guests.ts';
import type { Log } from '../ports/log.ts';
import { createProcessDriver } from '../process-guest/driver.ts';
import type { BootImage } from '../qemu/command-line.ts';
import { createQemuDriver } from '../qemu/driver.ts';
import { type DeviceConfig, type HostConfig, readConfig, statePaths } from './config.ts';
import { createJoinTokens } from './join-tokens.ts';
import { pointLog } from './points.ts';
import { serveUntilStopped } from './serve.ts';

/** Resolves when the daemon was told to stop and has stopped; rejects where it can not start. */
export async function runDaemon(configFile: string): Promise<void> {
  while ((await runOnce(configFile)) === 'again');
}

async function runOnce(configFile: string): Promise<'stopped' | 'again'> {
  const config = await readConfig(configFile);
  const log = createLog({ host: config.name, ...config.log });
  const paths = statePaths(config.dataDir);
  const clock = createClock();
  const random = createRandom();
  const members = await openMembers(paths.members);
  await tellSite(config, members);
  const tokens = createJoinTokens(config, members);
  const credentials = await readCredentials(config);
  const disk = await openLocalDisk(paths.store);
  let host: Host | null = null;
  let restart: (reason: string) => void = () => {};
  const restartWanted = new Promise<string>((resolve) => {
    restart = resolve;
  });
  const network = (name: string, address: string) =>
    createTlsTransport({
      self: config.name,
      network: name,
      address,
      credentials,
      clock,
      random,
      log,
      // Between two heartbeats a session may well be silent.
      idleTimeoutMs: Math.max(2000, 4 * config.timings.heartbeatIntervalMs),
      onJoin: async (request, ticket) => {
        const answer = await tokens.accept(request, ticket);
        host?.membersChanged();
        return answer;
      },
    });
  const storageNetwork = network('storage', config.storage.address);
  const haNetwork = network('HA', config.ha.address);
  try {
    await storageNetwork.listen();
    await haNetwork.listen();
    const guests = await openGuests(config, clock, log);
    const ports = {
      clock,
      random,
      log,
      storageNetwork,
      haNetwork,
      disk,
      devices: config.devices.map(deviceOf),
      streams: createStreams(),
      guests,
      probe: pointLog(log.child('points')),
      restart,
    };
    host = await createHost(ports, {
      cluster: config.cluster,
      name: config.name,
      kind: config.kind,
      members: {
        list: () => members.list(),
        all: () => [...members.all()],
        remove: (host) => members.remove(host),
        tell: (told, teller) => members.merge(readMembers(told), teller),
      },
      policyFile: smallFile(paths.policies),
      timings: config.timings,
      socketPath: (vm, diskName) => join(diskSockets(config), `${vm}.${diskName}`),
      capacityBytes: config.capacity.diskBytes,
      diskClass: config.capacity.diskClass,
      thresholds: {
        nearFullAtPercent: config.capacity.nearFullAtPercent,
        fullAtPercent: config.capacity.fullAtPercent,
      },
    });
    return await serveUntilStopped({
      restart: restartWanted,
      manager: host.manager,
      hostCommands: { createToken: async () => (await tokens.create()).token },
      log,
      socketPath: config.api.socket,
      stop: async () => host?.stop(),
    });
  } finally {
    await Promise.all([storageNetwork.stop(), haNetwork.stop()]);
    disk.close();
  }
}

/** The configuration has the last word on where this host is; its entry tells the others. */
async function tellSite({ name, site }: HostConfig, members: Members): Promise<void> {
  const own = members.get(name);
  if (own === undefined || (own.site ?? null) === site) return;
  const { site: _, ...entry } = own;
  await members.merge([site === null ? entry : { ...entry, site }], name);
}

function deviceOf({ path, class: deviceClass, capacityBytes, id }: DeviceConfig): DevicePort {
  return {
    name: path,
    id,
    class: deviceClass,
    capacityBytes,
    async open() {
      const disk = await openDeviceFolder(path);
      return { disk, close: () => disk.close() };
    },
  };
}

const diskSockets = (config: HostConfig) => join(config.runDir, 'disks');

async function openGuests(config: HostConfig, clock: Clock, log: Log): Promise<GuestDriver> {
  await mkdir(diskSockets(config), { recursive: true, mode: 0o700 });
  const { cpus, memoryBytes } = config.capacity;
  const { driver, accelerator } = config.hypervisor;
  const made = (program: string) => join(import.meta.dirname, '..', program);
  const options = {
    host: config.name,
    runDir: config.runDir,
    guardPath: made('qemu/guard'),
    clock,
    log,
    bootImages: bootImages(config),
    capacity: {
      ...(cpus === null ? {} : { cpus }),
      ...(memoryBytes === null ? {} : { memoryBytes }),
    },
  };
  if (driver === 'process') {
    return createProcessDriver({ ...options, guestPath: made('process-guest/process-guest') });
  }
  return createQemuDriver({ ...options, ...(accelerator === 'auto' ? {} : { accelerator }) });
}

function bootImages(config: HostConfig): Record<string, BootImage> {
  const images = Object.entries(config.hypervisor.images);
  return Object.fromEntries(
    images.map(([name, { kernel, initrd, append }]) => [
      name,
      { kernel, append, ...(initrd === null ? {} : { initrd }) },
    ]),
  );
}

async function readCredentials(config: HostConfig): Promise<TlsCredentials> {
  const [ca, certificate, key] = await Promise.all(
    [config.tls.ca, config.tls.certificate, config.tls.key].map((file) => readFile(file, 'utf8')),
  );
  return { ca: ca ?? '', certificate: certificate ?? '', key: key ?? '' };
}
