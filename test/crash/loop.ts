// kill -9 at random points, over and over, on real daemons with real files, journals and TLS. A driver
// outside writes to disks by NBD, sets counters in metadata, and makes and removes VMs; each round kills
// some daemons, starts them again, perhaps kills them again meanwhile, and then asks from outside: is
// every acknowledged write and SET still there, do all copies that count hold the same bytes, does each
// daemon start without complaint?
//
// The choices follow from the seed; what they meet does not, because time is real here.

import { copyFileSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SeededRandom } from '../support/seeded-random.ts';
import { difference, unnamedFiles } from './copies.ts';
import { CounterLoad } from './counter-load.ts';
import { Daemons } from './daemons.ts';
import { DiskLoad } from './disk-load.ts';
import { Findings, sleep, within } from './findings.ts';
import { VmLoad } from './vm-load.ts';

const MiB = 1024 * 1024;
/** All of it would be over in seconds; only a hang takes so long. */
const patienceMs = 90_000;

const disks = [
  { vm: 'plain', sizeBytes: 16 * MiB, policy: { failuresToTolerate: 1, stripes: 1, thick: false } },
  {
    vm: 'striped',
    sizeBytes: 12 * MiB,
    policy: { failuresToTolerate: 1, stripes: 2, thick: false },
  },
  { vm: 'thick', sizeBytes: 8 * MiB, policy: { failuresToTolerate: 1, stripes: 1, thick: true } },
];

export interface CrashRun {
  readonly rounds: number;
  readonly seed: number;
  readonly hosts: number;
  readonly print: (line: string) => void;
}

export async function crashLoop({ rounds, seed, hosts, print }: CrashRun): Promise<Findings> {
  const random = new SeededRandom(seed);
  const findings = new Findings();
  const daemons = new Daemons(hosts, random.stream('hosts'), findings);
  const loads: { quiet(move: boolean): Promise<void>; resume(): void; end(): Promise<void> }[] = [];
  try {
    await daemons.begin();
    const world = await World.make(daemons, random, findings);
    loads.push(...world.loads);
    for (let round = 1; round <= rounds; round += 1) {
      const before = findings.violations.length;
      const began = performance.now();
      const did = await world.round(round === rounds);
      findings.count('rounds');
      const bad = findings.violations.slice(before).map((text) => `\n  VIOLATION ${text}`);
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      print(`round ${round}: ${did}; ${seconds} s${bad.join('')}`);
    }
  } finally {
    await Promise.race([Promise.all(loads.map((load) => load.end())), sleep(5000)]);
    await daemons.end();
  }
  return findings;
}

class World {
  readonly #daemons: Daemons;
  readonly #random: SeededRandom;
  readonly #findings: Findings;
  readonly #disks: DiskLoad[];
  readonly #counters: CounterLoad[];
  readonly #vms: VmLoad;

  private constructor(daemons: Daemons, random: SeededRandom, findings: Findings) {
    this.#daemons = daemons;
    this.#random = random.stream('rounds');
    this.#findings = findings;
    const { anyHost } = daemons;
    const { folder } = daemons.cluster;
    this.#disks = disks.map(({ vm, sizeBytes, policy }, number) => {
      const own = random.stream(vm);
      return new DiskLoad({
        folder,
        vm,
        number,
        sizeBytes,
        isThick: policy.thick,
        random: own,
        findings,
        anyHost,
      });
    });
    this.#counters = disks.map(
      ({ vm }) => new CounterLoad(vm, random.stream(`counter/${vm}`), findings, anyHost),
    );
    this.#vms = new VmLoad(findings, anyHost);
  }

  static async make(daemons: Daemons, random: SeededRandom, findings: Findings): Promise<World> {
    const world = new World(daemons, random, findings);
    const client = daemons.client('host-1');
    for (const { vm, sizeBytes, policy } of disks) {
      await client.createVm({ name: vm, memoryBytes: 96 * MiB, disks: [{ sizeBytes }], policy });
    }
    await world.#counters[0]?.makeLarge(client);
    for (const load of world.loads) load.start();
    return world;
  }

  get loads(): (DiskLoad | CounterLoad | VmLoad)[] {
    return [...this.#disks, ...this.#counters, this.#vms];
  }

  /** Says in a few words what it did. */
  async round(isLast: boolean): Promise<string> {
    const random = this.#random;
    for (const load of this.loads) load.resume();
    await sleep(random.below(900));
    const victims = this.#victims();
    const killed: string[] = [];
    await Promise.all(
      victims.map(async (host) => {
        // Together, or one shortly after the other.
        if (random.chance(0.4)) await sleep(random.below(400));
        killed.push(await this.#kill(host));
      }),
    );
    await Promise.all(victims.map((host) => this.#bringBack(host, killed)));
    if (random.chance(0.3)) await this.#disturbResync(killed);
    await this.#judge(isLast);
    return killed.join(', ');
  }

  #victims(): string[] {
    const { hosts } = this.#daemons;
    const dice = this.#random.next();
    const count = dice < 0.6 ? 1 : dice < 0.85 ? 2 : hosts.length;
    const rest = [...hosts];
    return Array.from({ length: count }, () => {
      const [host] = rest.splice(this.#random.below(rest.length), 1);
      return host as string;
    });
  }

  async #kill(host: string): Promise<string> {
    const isCheckpoint =
      this.#random.chance(0.15) && (await this.#daemons.checkpointBegins(host, 5000));
    const isServing = this.#disks.some((one) => one.host === host);
    return this.#killNow(host, isCheckpoint ? 'checkpoint' : isServing ? 'serving' : 'under load');
  }

  async #killNow(host: string, when: string): Promise<string> {
    await this.#daemons.kill(host);
    this.#findings.count(`kills: ${when}`);
    return `${host} (${when})`;
  }

  async #bringBack(host: string, killed: string[]): Promise<void> {
    const random = this.#random;
    // Long enough, now and then, for its copies to be rebuilt elsewhere: the others go on meanwhile.
    const isLong = random.chance(0.07);
    await sleep(isLong ? 6500 + random.below(3000) : random.below(1500));
    for (let again = random.chance(0.35) ? 1 + random.below(2) : 0; again > 0; again -= 1) {
      const started = this.#daemons.start(host);
      await sleep(100 + random.below(1400));
      const when = this.#daemons.isUp(host) ? 'just started' : 'starting';
      killed.push(await this.#killNow(host, when));
      await started;
    }
    await this.#daemons.start(host);
  }

  /** One of the two ends of a copy that is being brought up to date, if there is one in a moment. */
  async #disturbResync(killed: string[]): Promise<void> {
    const victims: string[] = [];
    await within(2500, async () => {
      // Who serves it knows how its copies are.
      const objects = this.#disks.flatMap(({ vm, host }) =>
        host === null ? [] : this.#daemons.client(host).object(`${vm}/disk0`),
      );
      for (const result of await Promise.allSettled(objects)) {
        if (result.status === 'rejected') continue;
        const { components } = result.value;
        if (!components.some(({ state }) => state === 'resyncing')) continue;
        victims.push(...components.map(({ host }) => host));
      }
      return victims.length > 0;
    });
    if (victims.length === 0) return;
    const host = this.#random.pick(victims);
    killed.push(await this.#killNow(host, 'resync'));
    await this.#daemons.start(host);
  }

  async #judge(isLast: boolean): Promise<void> {
    const random = this.#random;
    const findings = this.#findings;
    const clients = this.#daemons.hosts.map((host) => this.#daemons.client(host));
    const waiting = [
      ...this.#disks.map((one) => {
        const done = one.quiet(isLast || random.chance(0.5));
        return this.#inTime(`${one.vm}/disk0 is served and read`, done, () => one.refusal);
      }),
      ...this.#counters.map((one) =>
        this.#inTime(`the counter of ${one.vm} stands`, one.quiet(), () => one.refusal),
      ),
      this.#inTime('no VM is being made or removed', this.#vms.quiet(), () => ''),
    ];
    await Promise.all(waiting);
    for (const counter of this.#counters) {
      const seen = Promise.all(
        clients.map(async (client) => {
          while (!(await counter.isSeenBy(client))) await sleep(50);
        }),
      );
      await this.#inTime(`every host sees the counter of ${counter.vm}`, seen, () => '');
    }
    let disagreement: string | null = null;
    const agree = await within(patienceMs, async () => {
      disagreement = await this.#vms.disagreement(clients);
      return disagreement === null;
    });
    if (!agree) findings.violation(`${disagreement}`);
    if (isLast || random.chance(0.4)) await this.#compareCopies();
    if (isLast) await this.#findLeftovers();
    this.#daemons.listen();
  }

  async #inTime(what: string, done: Promise<unknown>, why: () => string): Promise<void> {
    const isDone = await Promise.race([done.then(() => true), sleep(patienceMs)]);
    if (isDone === true) return;
    this.#findings.violation(`not within ${patienceMs / 1000} s: ${what}; last: ${why()}`);
    this.#keepLogs();
  }

  /** For whoever has to find out why: the folder of the cluster goes with the run. */
  #keepLogs(): void {
    const { cluster, hosts } = this.#daemons;
    const kept = mkdtempSync(join(tmpdir(), 'hf-crash-logs-'));
    for (const host of hosts) copyFileSync(cluster.log(host), join(kept, `${host}.log`));
    this.#findings.violation(`(the logs until then are in ${kept})`);
  }

  async #compareCopies(): Promise<void> {
    const { folder } = this.#daemons.cluster;
    const client = this.#daemons.client(this.#random.pick(this.#daemons.hosts));
    for (const { vm } of disks) {
      let state = '';
      const isInSync = await within(patienceMs, async () => {
        const object = await client.object(`${vm}/disk0`);
        state = object.components.map((one) => `${one.host} ${one.state}`).join(', ');
        return object.components.every((one) => one.state === 'active');
      });
      if (!isInSync) {
        this.#findings.violation(`${vm}/disk0 is not in sync again: ${state}`);
        continue;
      }
      const found = difference(folder, await client.object(`${vm}/disk0`));
      if (found !== null) this.#findings.violation(`${vm}/disk0: ${found}`);
      this.#findings.count('disks whose copies were compared in the files');
    }
  }

  async #findLeftovers(): Promise<void> {
    const client = this.#daemons.client(this.#daemons.hosts[0] as string);
    const { folder } = this.#daemons.cluster;
    let left: string[] = [];
    await within(15_000, async () => {
      left = unnamedFiles(folder, this.#daemons.hosts, await client.objects());
      return left.length === 0;
    });
    for (const one of left) this.#findings.violation(`no record names ${one}`);
  }
}
