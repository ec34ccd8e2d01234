// The daemons of a real cluster as something to kill. It knows which of them answer, notices one that
// ends without having been killed, and reads what each says in its log: an error, or anything that is
// no log line at all, is a complaint.

import { type ChildProcess } from 'node:child_process';
import { readFileSync, watch } from 'node:fs';
import { join } from 'node:path';
import { type ApiClient, createClient } from '../../src/api/client.ts';
import { RealCluster } from '../e2e/support/real-cluster.ts';
import type { SeededRandom } from '../support/seeded-random.ts';
import { type Findings, within } from './findings.ts';

/** Short ones, so that many rounds fit; their relations are those of the defaults. */
const timings = `timings:
  heartbeatInterval: 200ms
  leaseDuration: 1600ms
  safetyMargin: 400ms
  suspectAfter: 600ms
  failAfter: 1000ms
  componentTimeout: 800ms
  directorySync: 2s
  resyncRetry: 400ms
  repairDelay: 6s
  repairInterval: 500ms
  bitmapClear: 800ms
  scrubInterval: 20s
`;
/** Far beyond what a start takes. */
const startLimitMs = 60_000;

export class Daemons {
  readonly hosts: readonly string[];
  readonly cluster = new RealCluster();
  readonly #findings: Findings;
  readonly #random: SeededRandom;
  readonly #children = new Map<string, ChildProcess>();
  readonly #killed = new WeakSet<ChildProcess>();
  readonly #clients = new Map<string, ApiClient>();
  readonly #up = new Set<string>();
  /** How much of each log was read. */
  readonly #read = new Map<string, number>();

  constructor(count: number, random: SeededRandom, findings: Findings) {
    this.hosts = Array.from({ length: count }, (_, index) => `host-${index + 1}`);
    this.#random = random;
    this.#findings = findings;
  }

  async begin(): Promise<void> {
    // No guest is started, so nobody needs to try what it would run with.
    const edit = (config: string): string =>
      `${config.replace('hypervisor:', 'hypervisor:\n  accelerator: tcg')}${timings}`;
    await this.cluster.start(this.hosts.length, edit);
    for (const host of this.hosts) {
      const socket = this.cluster.socket(host);
      const client = createClient([socket], { questionTimeoutMs: 3000, commandTimeoutMs: 15_000 });
      this.#clients.set(host, client);
      this.#up.add(host);
    }
    for (const [host, child] of this.cluster.daemons) this.#watch(host, child);
  }

  async end(): Promise<void> {
    for (const child of this.#children.values()) this.#killed.add(child);
    await this.cluster.end();
  }

  client(host: string): ApiClient {
    return this.#clients.get(host) as ApiClient;
  }

  isUp(host: string): boolean {
    return this.#up.has(host);
  }

  anyHost = (): { readonly host: string; readonly client: ApiClient } | null => {
    if (this.#up.size === 0) return null;
    const host = this.#random.pick([...this.#up]);
    return { host, client: this.client(host) };
  };

  /** SIGKILL; resolves when the process is gone. */
  async kill(host: string): Promise<void> {
    this.#up.delete(host);
    const child = this.#children.get(host);
    if (child === undefined) return;
    this.#children.delete(host);
    this.#killed.add(child);
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  /** Resolves when it answers, or was killed again. */
  async start(host: string): Promise<void> {
    const child = this.cluster.spawn(host);
    this.#watch(host, child);
    const client = this.client(host);
    const answers = await within(startLimitMs, async () => {
      if (this.#killed.has(child) || child.exitCode !== null) return true;
      return client.cluster().then(
        () => true,
        () => false,
      );
    });
    if (!answers) this.#findings.violation(`${host} does not answer after its start`);
    else if (!this.#killed.has(child) && child.exitCode === null) this.#up.add(host);
  }

  #watch(host: string, child: ChildProcess): void {
    this.#children.set(host, child);
    child.once('exit', (code, signal) => {
      if (this.#killed.has(child)) return;
      this.#up.delete(host);
      this.#findings.violation(`${host} ended by itself (${signal ?? code})`);
    });
  }

  /** Resolves when this host begins to write a checkpoint of its journal, or the time is over. */
  checkpointBegins(host: string, limitMs: number): Promise<boolean> {
    const folder = join(this.cluster.folder, host, 'data', 'store', 'registers');
    return new Promise((resolve) => {
      const done = (seen: boolean): void => {
        clearTimeout(timer);
        watcher.close();
        resolve(seen);
      };
      const timer = setTimeout(() => done(false), limitMs);
      const watcher = watch(folder, (event, name) => {
        if (event === 'rename' && name?.startsWith('journal.') === true) done(true);
      });
    });
  }

  /** Reads what the daemons have said since it was last called. */
  listen(): void {
    for (const host of this.hosts) {
      const text = readFileSync(this.cluster.log(host), 'utf8');
      const from = this.#read.get(host) ?? 0;
      const whole = text.lastIndexOf('\n') + 1;
      this.#read.set(host, whole);
      for (const line of text.slice(from, whole).split('\n')) {
        if (line !== '') this.#judge(host, line);
      }
    }
  }

  #judge(host: string, line: string): void {
    let said: { level: string; message: string; event?: string };
    try {
      said = JSON.parse(line) as typeof said;
    } catch {
      this.#findings.violation(`${host} said: ${line}`);
      return;
    }
    const { level, message, event } = said;
    if (level === 'error' || event === 'storage.badBlock' || event === 'storage.unreadable') {
      this.#findings.violation(`${host} complained: ${message}`);
    } else if (level === 'warn') this.#findings.warned(message);
    if (event === 'storage.rebuild') this.#findings.count('copies rebuilt on another host');
    if (event === 'storage.voterReplaced') this.#findings.count('voters replaced');
    if (event === 'storage.resync' || event === 'storage.copyRestored') {
      this.#findings.count('copies brought up to date');
    }
  }
}
