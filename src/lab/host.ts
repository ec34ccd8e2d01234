// One host of a lab: a folder, a network namespace, and a daemon that can be killed, frozen and started again.
//
// What a power cut of a part of a machine can not be: the kernel goes on, so its clocks do not begin anew, and what
// was not synced is lost only where the host has a device of its own (devices.ts). That the host falls
// silent is done first, by pulling its cables: a kernel whose processes are killed would say so to the other
// hosts.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parse, stringify } from 'yaml';
import { type ApiClient, createClient } from '../api/client.ts';
import { HoldfastError } from '../model/errors.ts';
import type { Network, ScenarioDevice, ScenarioHost } from '../scenario/scenario.ts';
import { LabDevice } from './devices.ts';
import {
  addressOf,
  besideHosts,
  inHost,
  inodeOf,
  namespaceOf,
  processesIn,
  setLinks,
} from './namespaces.ts';
import { readArguments, readOrNull, signal } from './processes.ts';
import { holdfast, run } from './program.ts';

const ports = { storage: 7440, ha: 7441 } as const;
/** A frozen daemon does not answer; nobody waits long for that. */
const questionTimeoutMs = 2000;
const endTimeoutMs = 5000;

export interface HostOptions {
  readonly lab: string;
  readonly labFolder: string;
  readonly index: number;
  readonly host: ScenarioHost;
  readonly networks: readonly Network[];
}

/** Keys of a host's configuration, and groups of keys. */
export type HostSettings = Record<string, string | object>;

/** What `cluster init` and `host join` write of it (cli/built-in-guest.ts). */
interface BuiltInGuest {
  readonly hypervisor: { readonly images: { readonly counter: { append: string } } };
}

export class LabHost {
  readonly name: string;
  readonly folder: string;
  readonly configFile: string;
  readonly runDir: string;
  readonly socket: string;
  /** What its daemons say, one after the other. */
  readonly log: string;
  readonly inode: number;
  readonly client: ApiClient;
  /** A daemon that stands still is not asked. */
  isFrozen = false;
  readonly #options: HostOptions;
  /** Those that something may befall. */
  readonly #devices = new Map<string, LabDevice>();
  #isPowered = true;
  #daemon: number | null = null;
  /** Daemons that were meant to end. */
  readonly #ended = new Set<number>();

  constructor(options: HostOptions) {
    const { lab, labFolder, host } = options;
    this.#options = options;
    this.name = host.name;
    this.folder = join(labFolder, host.name);
    this.configFile = join(this.folder, 'config.yaml');
    this.runDir = join(this.folder, 'run');
    this.socket = join(this.runDir, 'api.sock');
    this.log = join(labFolder, `${host.name}.log`);
    this.client = createClient([this.socket], { questionTimeoutMs });
    const inode = inodeOf(namespaceOf(lab, host.name));
    if (inode === null) throw new Error(`there is no network namespace of ${host.name}`);
    this.inode = inode;
  }

  /** Makes the host's folder with the commands that a user has; `token` of a cluster that it joins. */
  async make(settings: HostSettings, token: string | null): Promise<void> {
    const { lab, host, index, networks } = this.#options;
    const network = (name: Network): string =>
      `${addressOf(networks.includes(name) ? name : 'storage', index)}:${ports[name]}`;
    const command =
      token === null
        ? ['cluster', 'init', '--name', 'lab', '--host', host.name]
        : ['host', 'join', '--token-file', '-', '--name', host.name, '--kind', host.kind];
    await run(
      [
        ...inHost(lab, host.name),
        ...[process.execPath, holdfast, ...command, '--dir', this.folder],
        ...['--storage-address', network('storage'), '--ha-address', network('ha')],
        ...(host.site === null ? [] : ['--site', host.site]),
      ],
      token ?? '',
    );
    this.configure({ runDir: 'run', api: { socket: 'run/api.sock' }, ...settings });
    mkdirSync(this.runDir, { recursive: true, mode: 0o700 });
    // In memory, as `/run` is: a start makes a dozen files there, which a disk would have to find places for.
    await run(['mount', '-t', 'tmpfs', '-o', 'mode=0700', 'holdfast-lab', this.runDir]);
    writeFileSync(join(this.folder, 'context.yaml'), stringify({ sockets: [this.socket] }));
  }

  /** Changes keys, and keys of groups, of its configuration; a daemon reads it when it starts. */
  configure(settings: HostSettings): void {
    const config = parse(readFileSync(this.configFile, 'utf8')) as HostSettings;
    for (const [key, value] of Object.entries(settings)) {
      config[key] = typeof value === 'string' ? value : { ...(config[key] as object), ...value };
    }
    writeFileSync(this.configFile, stringify(config));
  }

  /** How long its built-in guests pause between two numbers that they write; before its daemon runs for the first time. */
  paceGuests(intervalMs: number): void {
    const config = parse(readFileSync(this.configFile, 'utf8')) as BuiltInGuest;
    config.hypervisor.images.counter.append += ` holdfast.interval_ms=${intervalMs}`;
    writeFileSync(this.configFile, stringify(config));
  }

  /** Gives its main device a file system of its own; before its daemon runs for the first time. */
  async ownMainDevice(canBeSlow: boolean): Promise<void> {
    await this.#install(mainDevice, join(this.folder, 'data', 'store'), mainDevice, canBeSlow);
  }

  /** A further device, as an operator adds one. */
  async addDevice(wanted: ScenarioDevice, canBeSlow: boolean): Promise<void> {
    const { name } = wanted;
    await this.#install(name, join(this.folder, 'devices', name), `device-${name}`, canBeSlow);
    await this.#makeOurs(wanted);
  }

  async #install(name: string, place: string, images: string, canBeSlow: boolean): Promise<void> {
    const throttleIn = canBeSlow ? besideHosts(this.#options.lab) : null;
    const device = new LabDevice(place, join(this.folder, images), throttleIn);
    await device.install();
    this.#devices.set(name, device);
  }

  device(name = mainDevice): LabDevice {
    const found = this.#devices.get(name);
    if (found === undefined) throw new Error(`${this.name} has no device ${name} of its own`);
    return found;
  }

  /** An empty device is in the place of a further one that failed. */
  async replaceDevice(name: string): Promise<void> {
    await this.device(name).install();
    const { devices = [] } = this.#options.host;
    await this.#makeOurs(devices.find((one) => one.name === name) as ScenarioDevice);
  }

  async #makeOurs({ name, class: deviceClass, diskBytes }: ScenarioDevice): Promise<void> {
    const { lab, host } = this.#options;
    await run([
      ...inHost(lab, host.name),
      ...[process.execPath, holdfast, 'host', 'add-device', this.device(name).place],
      ...['--class', deviceClass, '--capacity', String(diskBytes), '--config', this.configFile],
    ]);
  }

  /** Some program of the host runs: its power is on. */
  processes(): number[] {
    return processesIn(new Set([this.inode]));
  }

  get daemon(): number | null {
    return this.#daemon;
  }

  /** Starts its daemon; `onExit` hears of an end that nobody meant. */
  startDaemon(onExit: (why: string) => void): void {
    const { lab, host } = this.#options;
    const log = openSync(this.log, 'a', 0o600);
    const [program = '', ...args] = [
      ...inHost(lab, host.name),
      ...[process.execPath, holdfast, 'host', 'run', '--config', this.configFile],
    ];
    const child = spawn(program, args, {
      cwd: this.folder,
      // A group of its own: Ctrl-C is for the lab, which then ends everything in order.
      detached: true,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.#daemon = child.pid ?? null;
    this.isFrozen = false;
    watch(child, (why) => {
      if (this.#daemon === child.pid) this.#daemon = null;
      if (!this.#ended.has(child.pid ?? 0)) onExit(`${why}; ${this.#lastWords()}`);
    });
    child.unref();
  }

  /** kill -9 of the daemon alone. */
  stopDaemon(): void {
    if (this.#daemon === null) return;
    this.#ended.add(this.#daemon);
    signal(this.#daemon, 'SIGKILL');
    this.#daemon = null;
    this.isFrozen = false;
  }

  freeze(): void {
    if (this.#daemon === null) return;
    this.isFrozen = true;
    signal(this.#daemon, 'SIGSTOP');
  }

  thaw(): void {
    if (this.#daemon === null || !this.isFrozen) return;
    this.isFrozen = false;
    signal(this.#daemon, 'SIGCONT');
  }

  /** Its power is lost: it falls silent, and then all of it ends without a word. */
  async crash(): Promise<void> {
    const { lab, networks } = this.#options;
    this.#isPowered = false;
    await setLinks(lab, this.name, networks, false);
    if (this.#daemon !== null) this.#ended.add(this.#daemon);
    this.#daemon = null;
    this.isFrozen = false;
    const giveUpAtMs = Date.now() + endTimeoutMs;
    // Until nothing is found any more: a process may just have been forked.
    for (let left = this.processes(); left.length > 0; left = this.processes()) {
      if (Date.now() > giveUpAtMs) {
        throw new HoldfastError('timeout', `Processes ${left.join(', ')} of ${this.name} live on`);
      }
      for (const pid of left) signal(pid, 'SIGKILL');
      await delay(2);
    }
    for (const device of this.#devices.values()) await device.losePower();
  }

  /** Its power is back. */
  async powerOn(): Promise<void> {
    const { lab, networks } = this.#options;
    this.#isPowered = true;
    for (const device of this.#devices.values()) await device.getPower();
    await setLinks(lab, this.name, networks, true);
  }

  get isPowered(): boolean {
    return this.#isPowered;
  }

  /** The process that runs this VM here; its guard is another one. */
  guestOf(vm: string): number | null {
    const guests = this.processes().filter((pid) => guestIn(readArguments(pid), [vm]) !== null);
    return guests[0] ?? null;
  }

  /** Of its daemons; nothing where the lab is being removed. */
  #lastWords(): string {
    return readOrNull(this.log)?.trim().split('\n').at(-1) || 'it said nothing';
  }
}

/** Which of the VMs this is the command line of the guest of; null: of none. A guard is no guest. */
export function guestIn(args: readonly string[], vms: readonly string[]): string | null {
  const program = (args[0] ?? '').split('/').at(-1) ?? '';
  if (!guestPrograms.test(program)) return null;
  return vms.find((vm) => args.some((arg) => arg.includes(vm))) ?? null;
}

/** No name of a device in a scenario. */
const mainDevice = '.main';
const guestPrograms = /^(qemu-system-|process-guest$)/;

function watch(child: ChildProcess, onEnd: (why: string) => void): void {
  child.once('error', (error) => onEnd(error.message));
  child.once('exit', (code, name) => onEnd(name === null ? `exit status ${code}` : `${name}`));
}
