// A scenario's cluster on this machine: namespaces, hosts and daemons, brought up with the commands that a
// user has. The first full host makes the cluster, the others join it with tokens.

import { type ApiClient, createClient } from '../api/client.ts';
import { defaultHost } from '../scenario/defaults.ts';
import type { Scenario, ScenarioHost, Step } from '../scenario/scenario.ts';
import { Cuts } from './cuts.ts';
import { type HostSettings, LabHost } from './host.ts';
import type { LabRecord } from './labs.ts';
import { inHost, makeNamespaces } from './namespaces.ts';
import { run } from './program.ts';
import { waitUntil } from './waiting.ts';

const upWithinMs = 90_000;

export interface ClusterOptions {
  readonly lab: LabRecord;
  readonly scenario: Scenario;
  /** Of the guests between two numbers that they write; null: as long as they do by themselves. */
  readonly guestIntervalMs: number | null;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
  /** A daemon ended that nobody had told to. */
  readonly onDaemonExit: (host: string, why: string) => void;
}

export class LabCluster {
  readonly lab: LabRecord;
  readonly scenario: Scenario;
  readonly hosts: readonly LabHost[];
  readonly cuts: Cuts;
  /** Asks whichever host answers. */
  readonly client: ApiClient;
  readonly #options: ClusterOptions;

  private constructor(options: ClusterOptions, hosts: readonly LabHost[], cuts: Cuts) {
    this.#options = options;
    this.lab = options.lab;
    this.scenario = options.scenario;
    this.hosts = hosts;
    this.cuts = cuts;
    this.client = createClient(hosts.map((host) => host.socket));
  }

  static async start(options: ClusterOptions): Promise<LabCluster> {
    const { lab, scenario, say } = options;
    const { cluster } = scenario;
    const names = cluster.hosts.map(({ name }) => name);
    const cuts = new Cuts(names, cluster.networks, cluster.loss);
    const { networks } = cuts;
    await makeNamespaces({ lab: lab.id, hosts: names, networks });
    const hosts = cluster.hosts.map(
      (host, index) => new LabHost({ lab: lab.id, labFolder: lab.folder, index, host, networks }),
    );
    const made = new LabCluster(options, hosts, cuts);
    await made.filter();
    say(`${names.length} hosts in ${lab.folder}, each with ${networks.join(' and ')} network`);
    await made.#bringUp();
    return made;
  }

  host(name: string): LabHost {
    const found = this.hosts.find((host) => host.name === name);
    if (found === undefined) throw new Error(`there is no host ${name}`);
    return found;
  }

  startDaemon(host: LabHost): void {
    host.startDaemon((why) => this.#options.onDaemonExit(host.name, why));
  }

  /** Lets the networks carry what `cuts` says. */
  async filter(): Promise<void> {
    const { id } = this.lab;
    const apply = (host: LabHost) =>
      run([...inHost(id, host.name), 'nft', '-f', '-'], this.cuts.rules(host.name));
    await Promise.all(this.hosts.map(apply));
  }

  async #bringUp(): Promise<void> {
    const { signal, say, scenario } = this.#options;
    const specOf = (host: LabHost) =>
      scenario.cluster.hosts.find(({ name }) => name === host.name) as ScenarioHost;
    const first = this.hosts.find((host) => specOf(host).kind === 'full');
    if (first === undefined) throw new Error('a cluster needs a host that is no witness');
    await this.#make(first, settingsOf(scenario, specOf(first), null), null);
    await this.#devices(first);
    await this.#boot(first);
    signal.throwIfAborted();
    const { accelerator } = await first.client.cluster();
    await Promise.all(
      this.hosts.map(async (host) => {
        if (host === first) return;
        const token = await first.client.createToken();
        await this.#make(host, settingsOf(scenario, specOf(host), accelerator), token);
        await this.#devices(host);
        await this.#boot(host);
      }),
    );
    first.configure(settingsOf(scenario, specOf(first), accelerator));
    await waitUntil('the cluster is complete', () => this.#missing(), {
      timeoutMs: upWithinMs,
      signal,
    });
    say(`the cluster is complete; guests run with ${accelerator}`);
  }

  async #make(host: LabHost, settings: HostSettings, token: string | null): Promise<void> {
    await host.make(settings, token);
    const { guestIntervalMs } = this.#options;
    if (guestIntervalMs !== null) host.paceGuests(guestIntervalMs);
  }

  /** Its further ones, and a file system of its own for the main one where a step takes that. */
  async #devices(host: LabHost): Promise<void> {
    const { cluster, steps } = this.scenario;
    const own = steps.filter((step) => befallsMainDevice(step, host.name));
    if (own.length > 0) {
      await host.ownMainDevice(isSlowed(own)).catch((error: Error) => {
        if (own.some(({ kind }) => kind !== 'crash')) throw error;
        this.#options.say(`what is not synced survives crashes of ${host.name}: ${error.message}`);
      });
    }
    const spec = cluster.hosts.find(({ name }) => name === host.name);
    for (const device of spec?.devices ?? []) {
      const its = steps.filter(
        (step) => 'device' in step && step.device === device.name && step.host === host.name,
      );
      await host.addDevice(device, isSlowed(its));
    }
  }

  async #boot(host: LabHost): Promise<void> {
    const { signal } = this.#options;
    signal.throwIfAborted();
    this.startDaemon(host);
    const answers = async (): Promise<null> => {
      await host.client.cluster();
      return null;
    };
    await waitUntil(`${host.name} answers`, answers, { timeoutMs: upWithinMs, signal });
  }

  /** Every host sees every host, and all have the same master. */
  async #missing(): Promise<string | null> {
    const masters = new Set<string | null>();
    for (const { name, client } of this.hosts) {
      const status = await client.cluster();
      masters.add(status.master);
      const up = status.hosts.filter(
        ({ state, storage }) =>
          (state === 'master' || state === 'connectedToMaster') && storage === 'reachable',
      );
      if (up.length < this.hosts.length) {
        return `${name} sees ${up.length} of ${this.hosts.length} hosts`;
      }
    }
    return masters.size === 1 && !masters.has(null) ? null : 'there is no common master';
  }
}

const isSlowed = (steps: readonly Step[]): boolean => steps.some(({ kind }) => kind === 'slowDisk');

function befallsMainDevice(step: Step, host: string): boolean {
  switch (step.kind) {
    case 'crash':
      return step.host === host;
    case 'slowDisk':
    case 'fillDisk':
    case 'freeDisk':
    case 'failDisk':
    case 'repairDisk':
      return step.host === host && step.device === undefined;
    default:
      return false;
  }
}

/** `accelerator`: what the first host has found out, so that the others need not. */
function settingsOf(
  { cluster }: Scenario,
  host: ScenarioHost,
  accelerator: string | null,
): HostSettings {
  const timings = Object.entries(cluster.options).map(([name, ms]) => [name, `${ms}ms`]);
  return {
    capacity: {
      cpus: host.cpus,
      memory: host.memoryBytes,
      ...(host.diskBytes === defaultHost.diskBytes ? {} : { disk: host.diskBytes }),
      ...(host.diskClass === undefined ? {} : { diskClass: host.diskClass }),
    },
    timings: Object.fromEntries(timings),
    log: { level: 'debug' },
    hypervisor:
      cluster.guest === 'process'
        ? { driver: 'process' }
        : accelerator === null
          ? {}
          : { accelerator },
  };
}
