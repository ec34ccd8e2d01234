// Load on the metadata of one VM: a counter that is set by compare-and-set, through any host. Each value
// is used once. A SET whose outcome is not known leaves two values possible, until one that follows
// from one of them is acknowledged: from then on the other can not turn up any more.

import type { ApiClient, ApiError } from '../../src/api/client.ts';
import type { JsonValue } from '../../src/model/json.ts';
import type { SeededRandom } from '../support/seeded-random.ts';
import { type Findings, sleep } from './findings.ts';

const service = 'crash-test';
const key = 'counter';
/** That many rounds over all possible values, none of which is there, are no coincidence. */
const patience = 20;

export class CounterLoad {
  readonly vm: string;
  /** Why a SET was not acknowledged, the last time. */
  refusal = '';
  readonly #random: SeededRandom;
  readonly #findings: Findings;
  readonly #anyHost: () => { readonly client: ApiClient } | null;
  #possible: (number | null)[] = [null];
  #last = 0;
  #refusals = 0;
  #isLarge = false;
  #isEnded = false;
  #isQuiet = false;
  #running: Promise<void> = Promise.resolve();
  #whenQuiet: (() => void)[] = [];

  constructor(
    vm: string,
    random: SeededRandom,
    findings: Findings,
    anyHost: () => { readonly client: ApiClient } | null,
  ) {
    this.vm = vm;
    this.#random = random;
    this.#findings = findings;
    this.#anyHost = anyHost;
  }

  /** Makes the VM's record large, so that few changes fill a journal. */
  async makeLarge(client: ApiClient): Promise<void> {
    const value = 'x'.repeat(12_000);
    for (let index = 0; index < 10; index += 1) {
      const change = { vm: this.vm, service, key: `ballast-${index}`, value };
      const [outcome] = await client.setMetadata([change]);
      if (outcome?.done !== true) throw new Error(`no ballast: ${outcome?.message}`);
    }
    this.#isLarge = true;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Resolves when exactly one value is possible; the counter stays there. */
  quiet(): Promise<void> {
    this.#isQuiet = true;
    return new Promise((resolve) => this.#whenQuiet.push(resolve));
  }

  resume(): void {
    this.#isQuiet = false;
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    await this.#running;
  }

  /** What GET says on this host is what it must be. */
  async isSeenBy(client: ApiClient): Promise<boolean> {
    const { values } = await client.metadata(service, key, [this.vm]);
    return values[0]?.value === this.#possible[0] || (values.length === 0 && this.#last === 0);
  }

  async #run(): Promise<void> {
    while (!this.#isEnded) {
      const asked = this.#anyHost();
      const isSure = this.#possible.length === 1;
      if (this.#isQuiet && isSure) for (const resolve of this.#whenQuiet.splice(0)) resolve();
      if (asked !== null && !(this.#isQuiet && isSure)) await this.#set(asked.client);
      await sleep(this.#isLarge ? 2 : 15);
    }
  }

  async #set(client: ApiClient): Promise<void> {
    const expected: JsonValue = this.#random.pick(this.#possible);
    this.#last += 1;
    const value = this.#last;
    let code: string | null;
    try {
      const [outcome] = await client.setMetadata([{ vm: this.vm, service, key, value, expected }]);
      code = outcome?.code ?? null;
    } catch (error) {
      if ((error as ApiError).code === 'unreachable') return; // it was not sent
      code = 'outcome-unknown';
    }
    if (code === null) {
      this.#possible = [value];
      this.#refusals = 0;
      this.#findings.count('SETs acknowledged');
    } else if (code !== 'conflict') {
      this.refusal = code;
      this.#possible.push(value);
    } else if (this.#possible.length === 1) this.#lost(`${JSON.stringify(expected)} is gone`);
    else {
      this.#refusals += 1;
      if (this.#refusals > patience * this.#possible.length) this.#lost('none of those is there');
    }
  }

  #lost(what: string): void {
    const possible = this.#possible.map((one) => JSON.stringify(one)).join(', ');
    this.#findings.violation(
      `counter of ${this.vm}: ${what}, where only ${possible} can be: an acknowledged SET is lost`,
    );
    this.#isEnded = true;
    for (const resolve of this.#whenQuiet.splice(0)) resolve();
  }
}
