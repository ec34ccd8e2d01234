// The host daemon: reads its configuration, takes the ports of this machine, and makes a host of
// them. It runs until a signal says stop; its guests do not notice.

import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createHost } from '../host/create-host.ts';
import { createClock } from '../platform/clock.ts';
import { openLocalDisk } from '../platform/disk.ts';
import type { TlsCredentials } from '../platform/identity.ts';
import { createLog } from '../platform/log.ts';
import { openMembers, readMembers } from '../platform/members.ts';
import { createRandom } from '../platform/random.ts';
import { createStreams } from '../platform/streams.ts';
import { createTlsTransport } from '../platform/tls-transport.ts';
import type { BootImage } from '../qemu/command-line.ts';
import { createQemuDriver } from '../qemu/driver.ts';
import { type HostConfig, readConfig, statePaths } from './config.ts';
import { createJoinTokens } from './join-tokens.ts';
import { serveUntilStopped } from './serve.ts';

/** Resolves when the daemon was told to stop and has stopped; rejects where it can not start. */
export async function runDaemon(configFile: string): Promise<void> {
  const config = await readConfig(configFile);
  const log = createLog({ host: config.name, ...config.log });
  const paths = statePaths(config.dataDir);
  const clock = createClock();
  const random = createRandom();
  const members = await openMembers(paths.members);
  const tokens = createJoinTokens(config, members);
  const credentials = await readCredentials(config);
  const disk = await openLocalDisk(paths.store);
  const network = (name: string, address: string) =>
    createTlsTransport({
      self: config.name,
      network: name,
      address,
      credentials,
      clock,
      random,
      log,
      onJoin: async (request, ticket) => {
        const answer = await tokens.accept(request, ticket);
        host.membersChanged();
        return answer;
      },
    });
  const storageNetwork = network('storage', config.storage.address);
  const haNetwork = network('HA', config.ha.address);
  await storageNetwork.listen();
  await haNetwork.listen();
  const diskSockets = join(config.runDir, 'disks');
  await mkdir(diskSockets, { recursive: true, mode: 0o700 });
  const { capacity } = config;
  const { accelerator } = config.hypervisor;
  const guests = await createQemuDriver({
    runDir: config.runDir,
    guardPath: join(import.meta.dirname, '..', 'qemu', 'guard'),
    clock,
    log: log.child('qemu'),
    bootImages: bootImages(config),
    ...(accelerator === 'auto' ? {} : { accelerator }),
    capacity: {
      ...(capacity.cpus === null ? {} : { cpus: capacity.cpus }),
      ...(capacity.memoryBytes === null ? {} : { memoryBytes: capacity.memoryBytes }),
    },
  });
  const ports = { clock, random, log, storageNetwork, haNetwork, disk, streams: createStreams(), guests };
  const host = await createHost(ports, {
    cluster: config.cluster,
    name: config.name,
    kind: config.kind,
    members: {
      list: () => members.list(),
      tell: (told, teller) => members.merge(readMembers(told), teller),
    },
    timings: config.timings,
    socketPath: (vm, diskName) => join(diskSockets, `${vm}.${diskName}`),
    capacityBytes: config.capacity.diskBytes,
  });
  await serveUntilStopped({
    manager: host.manager,
    hostCommands: { createToken: async () => (await tokens.create()).token },
    log,
    socketPath: config.api.socket,
    async stop() {
      await host.stop();
      disk.close();
    },
  });
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
