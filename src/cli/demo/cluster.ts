// The demo's cluster: one folder, one loopback address and one real daemon per host. The first host
// makes the cluster, the others join it with tokens, through the same code as on real machines.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdir, open, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ApiClient, createClient } from '../../api/client.ts';
import { initCluster, joinCluster, type OptionalSettings } from '../../daemon/cluster-init.ts';
import { readConfig } from '../../daemon/config.ts';
import { signal as sendSignal } from '../../lab/processes.ts';
import { waitUntil } from '../../lab/waiting.ts';
import { HoldfastError } from '../../model/errors.ts';
import { builtInGuestSettings } from '../built-in-guest.ts';
import { demoMarker } from './processes.ts';
import type { Reporter } from './reporter.ts';

/** The program as it was built; the daemons run it. */
export const program = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));

const storagePort = 7440;
const haPort = 7441;
const startTimeoutMs = 60_000;

export interface DemoHost {
  readonly name: string;
  readonly folder: string;
  readonly configFile: string;
  readonly runDir: string;
  readonly socket: string;
  readonly daemon: number;
}

export interface DemoCluster {
  readonly hosts: readonly DemoHost[];
  /** Asks whichever host answers. */
  readonly client: ApiClient;
  readonly accelerator: string;
}

export interface ClusterOptions {
  readonly folder: string;
  readonly hosts: number;
  readonly reporter: Reporter;
  readonly signal: AbortSignal;
  /** A daemon ended by itself. */
  readonly onDaemonExit: (host: string, why: string) => void;
}

/** Where the hosts' sockets will be, before there are any. */
export function socketsOf(folder: string, hosts: number): string[] {
  return hostNames(hosts).map((name) => join(folder, name, 'run', 'api.sock'));
}

export async function startCluster(options: ClusterOptions): Promise<DemoCluster> {
  const { folder, reporter, signal } = options;
  const names = hostNames(options.hosts);
  const network = await findNetwork(names.length);
  const hosts: DemoHost[] = [];
  for (const [index, name] of names.entries()) {
    signal.throwIfAborted();
    const address = `${network}.${index + 1}`;
    const host = {
      dir: join(folder, name),
      name,
      storageAddress: `${address}:${storagePort}`,
      haAddress: `${address}:${haPort}`,
      settings: settings(),
    };
    const first = hosts[0];
    const { configFile } =
      first === undefined
        ? await initCluster({ ...host, cluster: 'demo' })
        : await joinCluster({ ...host, token: await createClient([first.socket]).createToken() });
    hosts.push(await startHost(configFile, host.dir, options));
    reporter.say(`started ${name} on ${address}`);
  }
  const client = createClient(hosts.map((host) => host.socket));
  await waitForCluster(hosts, signal);
  const { master, accelerator } = await client.cluster();
  reporter.say(`the cluster is complete; ${master} is master, guests run with ${accelerator}`);
  return { hosts, client, accelerator };
}

const hostNames = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `host-${index + 1}`);

function settings(): OptionalSettings {
  return { runDir: 'run', api: { socket: 'run/api.sock' }, ...builtInGuestSettings() };
}

async function startHost(
  configFile: string,
  folder: string,
  { folder: demoFolder, signal, onDaemonExit }: ClusterOptions,
): Promise<DemoHost> {
  const config = await readConfig(configFile);
  await mkdir(config.runDir, { recursive: true, mode: 0o700 });
  const logFile = join(folder, 'daemon.log');
  const log = await open(logFile, 'a', 0o600);
  signal.throwIfAborted();
  const child = spawn(process.execPath, [program, 'host', 'run', '--config', configFile], {
    cwd: folder,
    // A group of its own: Ctrl-C is for the demo, which then ends everything in order.
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
    env: { ...process.env, [demoMarker]: demoFolder },
  });
  await log.close();
  let ended: string | null = null;
  child.once('error', (error) => (ended = error.message));
  child.once('exit', (code, name) => {
    ended = name === null ? `exit status ${code}` : `signal ${name}`;
    void lastLine(logFile).then((line) => onDaemonExit(config.name, `${ended}; ${line}`));
  });
  child.unref();
  const client = createClient([config.api.socket], { questionTimeoutMs: 2000 });
  await waitUntil(
    `${config.name} answers`,
    async () => {
      if (ended !== null) {
        const why = `${ended}; ${await lastLine(logFile)}`;
        throw new HoldfastError('unreachable', `The daemon of ${config.name} ended: ${why}`);
      }
      await client.cluster();
      return null;
    },
    { timeoutMs: startTimeoutMs, signal },
  );
  return {
    name: config.name,
    folder,
    configFile,
    runDir: config.runDir,
    socket: config.api.socket,
    daemon: pidOf(child),
  };
}

function pidOf(child: ChildProcess): number {
  if (child.pid === undefined) throw new Error('the daemon could not be started');
  return child.pid;
}

async function lastLine(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text.trim().split('\n').at(-1) || 'it said nothing';
}

/** Every host sees every host, and all have the same master. */
async function waitForCluster(hosts: readonly DemoHost[], signal: AbortSignal): Promise<void> {
  const missing = async (): Promise<string | null> => {
    const masters = new Set<string | null>();
    for (const host of hosts) {
      const status = await createClient([host.socket]).cluster();
      masters.add(status.master);
      const up = status.hosts.filter(
        ({ state, storage }) =>
          (state === 'master' || state === 'connectedToMaster') && storage === 'reachable',
      );
      if (up.length < hosts.length)
        return `${host.name} sees ${up.length} of ${hosts.length} hosts`;
    }
    return masters.size === 1 && !masters.has(null) ? null : 'there is no common master';
  };
  await waitUntil('the cluster is complete', missing, { timeoutMs: startTimeoutMs, signal });
}

/** Three bytes of a loopback network on which nobody uses the demo's ports; so several demos can run
 * at once, and no outgoing connection takes a port away (those come from 127.0.0.1). */
async function findNetwork(hosts: number): Promise<string> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const network = `127.${randomInt(1, 255)}.${randomInt(0, 256)}`;
    const free = await Promise.all(
      Array.from({ length: hosts }, (_, index) => `${network}.${index + 1}`).flatMap((address) => [
        isFree(address, storagePort),
        isFree(address, haPort),
      ]),
    );
    if (free.every(Boolean)) return network;
  }
  throw new Error(`no loopback addresses with free ports ${storagePort} and ${haPort} were found`);
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host, port }, () => server.close(() => resolve(true)));
  });
}

/** For `process.on('exit')`: nothing may be awaited there. */
export function killAtExit(pids: readonly number[]): void {
  for (const pid of pids) sendSignal(pid, 'SIGKILL');
}
