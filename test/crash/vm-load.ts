// VMs that come and go: one whose creation was acknowledged is known to every host, and one whose
// removal was acknowledged to none; what is not known lasts until everybody agrees.

import type { ApiClient } from '../../src/api/client.ts';
import { type Findings, sleep } from './findings.ts';

const MiB = 1024 * 1024;
const prefix = 'guest-';

export class VmLoad {
  readonly #findings: Findings;
  readonly #anyHost: () => { readonly client: ApiClient } | null;
  /** Name -> whether it must be there; null: nobody knows. */
  readonly #vms = new Map<string, boolean | null>();
  #last = 0;
  #isEnded = false;
  #isQuiet = false;
  #isIdle = true;
  #running: Promise<void> = Promise.resolve();

  constructor(findings: Findings, anyHost: () => { readonly client: ApiClient } | null) {
    this.#findings = findings;
    this.#anyHost = anyHost;
  }

  start(): void {
    this.#running = this.#run();
  }

  async quiet(): Promise<void> {
    this.#isQuiet = true;
    while (!this.#isIdle) await sleep(20);
  }

  resume(): void {
    this.#isQuiet = false;
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    await this.#running;
  }

  /** What is wrong with what these hosts know; null: nothing. */
  async disagreement(clients: readonly ApiClient[]): Promise<string | null> {
    const lists = await Promise.all(clients.map((client) => client.vms()));
    const names = lists.map((vms) =>
      vms.map((vm) => vm.name).filter((name) => name.startsWith(prefix)),
    );
    for (const [name, isThere] of this.#vms) {
      const seen = names.filter((list) => list.includes(name)).length;
      if (isThere === true && seen < names.length)
        return `${name} was created, and is not known to all`;
      if (isThere === false && seen > 0) return `${name} was removed, and is still known`;
      if (seen > 0 && seen < names.length)
        return `${name} is known to some hosts and not to others`;
    }
    for (const [name, isThere] of this.#vms) {
      if (isThere === null) this.#vms.set(name, names[0]?.includes(name) ?? false);
    }
    return null;
  }

  async #run(): Promise<void> {
    while (!this.#isEnded) {
      const asked = this.#anyHost();
      if (asked !== null && !this.#isQuiet) {
        this.#isIdle = false;
        await this.#change(asked.client);
        this.#isIdle = true;
      }
      await sleep(250);
    }
  }

  async #change(client: ApiClient): Promise<void> {
    const there = [...this.#vms].filter(([, isThere]) => isThere === true).map(([name]) => name);
    const [oldest] = there;
    if (there.length < 2 || oldest === undefined) {
      this.#last += 1;
      const name = `${prefix}${this.#last}`;
      this.#vms.set(name, null);
      const disks = [{ sizeBytes: 2 * MiB }];
      if (await this.#did(client.createVm({ name, memoryBytes: 96 * MiB, disks }))) {
        this.#vms.set(name, true);
        this.#findings.count('VMs created');
      }
    } else {
      this.#vms.set(oldest, null);
      if (await this.#did(client.removeVm(oldest))) {
        this.#vms.set(oldest, false);
        this.#findings.count('VMs removed');
      }
    }
  }

  async #did(command: Promise<unknown>): Promise<boolean> {
    try {
      await command;
      return true;
    } catch {
      return false;
    }
  }
}
