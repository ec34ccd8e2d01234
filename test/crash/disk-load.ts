// Load on one disk, by NBD, through whichever host serves it at present: `disk serve` on a host that
// is up, everything read and compared first, then random requests until the connection ends or
// somebody asks for quiet. Whoever kills hosts does not tell it.

import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { ApiClient } from '../../src/api/client.ts';
import type { SeededRandom } from '../support/seeded-random.ts';
import { type Findings, sleep } from './findings.ts';
import { ConnectionGone, NbdClient } from './nbd-client.ts';
import { blockBytes, StampedDisk } from './stamped-disk.ts';

const workers = 4;
/** Of one write; also what is read at once when everything is compared. */
const maxBlocks = 16;
const readBlocks = 64;
/** Between two requests of a worker: other tests want the machine, too. */
const breathMs = 8;

export interface LoadOptions {
  readonly folder: string;
  readonly vm: string;
  /** Tells this disk's blocks from those of the others. */
  readonly number: number;
  readonly sizeBytes: number;
  /** A thick disk keeps its space, and offers no TRIM. */
  readonly isThick: boolean;
  readonly random: SeededRandom;
  readonly findings: Findings;
  /** A host that is up, to be asked; null where none is. */
  readonly anyHost: () => { readonly host: string; readonly client: ApiClient } | null;
}

export class DiskLoad {
  readonly #options: LoadOptions;
  readonly #stamps: StampedDisk;
  readonly #busy = new Set<number>();
  #isQuiet = false;
  #isEnded = false;
  /** Leave the present host, and read everything through another. */
  #isMoving = false;
  #whenQuiet: (() => void)[] = [];
  #running: Promise<void> = Promise.resolve();
  /** Where it is served now. */
  host: string | null = null;
  /** Why it was not, the last time. */
  refusal = '';

  get vm(): string {
    return this.#options.vm;
  }

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#stamps = new StampedDisk(options.number, options.sizeBytes);
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Resolves when no request is under way and everything was read and compared. */
  quiet(move: boolean): Promise<void> {
    this.#isQuiet = true;
    this.#isMoving = move;
    return new Promise((resolve) => this.#whenQuiet.push(resolve));
  }

  resume(): void {
    this.#isQuiet = false;
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isEnded) {
      const asked = this.#options.anyHost();
      if (asked === null) await sleep(50);
      else await this.#serveBy(asked.host, asked.client);
    }
  }

  async #serveBy(host: string, client: ApiClient): Promise<void> {
    const { folder, vm, findings } = this.#options;
    const socket = join(folder, `${randomUUID().slice(0, 8)}.nbd`);
    const stop = new AbortController();
    let served: () => void = () => undefined;
    const isServed = new Promise<boolean>((resolve) => (served = () => resolve(true)));
    const ended = client
      .serveDisk(
        { vm, disk: 'disk0' },
        { socket, readOnly: false },
        { signal: stop.signal, onServing: served },
      )
      .then(
        (error) => error?.message ?? '',
        (error: unknown) => String(error),
      );
    let connections: NbdClient[] = [];
    try {
      if (await Promise.race([isServed, ended.then(() => false)])) {
        this.host = host;
        connections = await Promise.all([
          NbdClient.open(socket, 'disk0'),
          NbdClient.open(socket, ''),
        ]);
        await this.#use(connections);
      }
    } catch (error) {
      // An error that a guest would have seen is a finding; the end of the service is none.
      if (!(error instanceof ConnectionGone)) {
        findings.violation(`${vm}/disk0 on ${host}: ${(error as Error).message}`);
      }
    } finally {
      this.host = null;
      for (const one of connections) one.close();
      stop.abort();
      this.refusal = await ended;
      this.#busy.clear();
    }
    await sleep(50);
  }

  async #use(connections: readonly NbdClient[]): Promise<void> {
    await this.#compareAll(connections);
    this.#options.findings.count('disks opened and compared');
    for (;;) {
      if (this.#isMoving) {
        this.#isMoving = false;
        return;
      }
      if (this.#isQuiet) {
        for (const resolve of this.#whenQuiet.splice(0)) resolve();
        const gone = connections.map((one) => one.gone.then(() => true));
        while (this.#isQuiet && !this.#isEnded) {
          if (await Promise.race([...gone, sleep(20)])) throw new ConnectionGone('while quiet');
        }
      }
      if (this.#isEnded) return;
      const working = Array.from({ length: workers }, (_, index) =>
        this.#work(connections[index % connections.length] as NbdClient),
      );
      // All of them, or a request of one would still be under way in the next round.
      const results = await Promise.allSettled(working);
      for (const result of results) if (result.status === 'rejected') throw result.reason;
      if (this.#isQuiet && !this.#isMoving) await this.#compareAll(connections);
    }
  }

  async #work(connection: NbdClient): Promise<void> {
    const { random } = this.#options;
    while (!this.#isQuiet && !this.#isEnded) {
      const count = 1 + random.below(maxBlocks);
      const first = random.below(this.#stamps.blocks - count);
      const blocks = Array.from({ length: count }, (_, index) => first + index);
      if (!blocks.some((block) => this.#busy.has(block))) {
        for (const block of blocks) this.#busy.add(block);
        await this.#request(connection, first, count);
        for (const block of blocks) this.#busy.delete(block);
      }
      await sleep(breathMs);
    }
  }

  async #request(connection: NbdClient, first: number, count: number): Promise<void> {
    const { random, findings } = this.#options;
    const offset = first * blockBytes;
    const length = count * blockBytes;
    const dice = random.next();
    if (dice < 0.6) {
      const fua = random.chance(0.3);
      const { bytes, acknowledged } = this.#stamps.write(first, count);
      await connection.write(offset, bytes, fua);
      acknowledged(fua);
      findings.count('writes acknowledged');
    } else if (dice < 0.7) {
      const acknowledged = this.#stamps.zero(first, count);
      const canTrim = !this.#options.isThick;
      await connection.zero(offset, length, canTrim && random.chance(0.5) ? 'trim' : 'writeZeroes');
      acknowledged(false);
      findings.count('writes acknowledged');
    } else if (dice < 0.85) {
      const acknowledged = this.#stamps.flush();
      await connection.flush();
      acknowledged();
      findings.count('flushes acknowledged');
    } else {
      this.#compare(first, await connection.read(offset, length));
    }
  }

  async #compareAll(connections: readonly NbdClient[]): Promise<void> {
    const starts: number[] = [];
    for (let block = 0; block < this.#stamps.blocks; block += readBlocks) starts.push(block);
    const rest = starts.values();
    await Promise.all(
      connections.map(async (connection) => {
        for (const first of rest) {
          const bytes = await connection.read(first * blockBytes, readBlocks * blockBytes);
          this.#compare(first, bytes);
        }
      }),
    );
  }

  #compare(first: number, bytes: Buffer): void {
    const { vm, findings } = this.#options;
    for (const problem of this.#stamps.check(first, bytes)) {
      findings.violation(`${vm}/disk0, read through ${this.host}: ${problem}`);
    }
    findings.count('blocks read and compared', bytes.length / blockBytes);
  }
}
