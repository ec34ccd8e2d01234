// The journal keeps a map of small texts (`key=value`), as the acceptor keeps registers. The model of
// each test is what was called back; whatever the disk does, a reopened journal must show for every
// key a value at least as new as the last one that was acknowledged, and only values that were given.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { SeededRandom } from '../../../test/support/seeded-random.ts';
import { SilentLog } from '../../../test/support/silent-log.ts';
import { VirtualClock } from '../../../test/support/virtual-clock.ts';
import { type HoldfastError, isError } from '../../model/errors.ts';
import { hostId } from '../../model/ids.ts';
import { DiskError } from '../../ports/disk.ts';
import { type Journal, type JournalBounds, journalFile, openJournal } from './journal.ts';

const folder = 'registers';
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);

class Bench {
  readonly clock = new VirtualClock();
  readonly disk = new MemoryDisk(this.clock);
  readonly log = new SilentLog();
  /** What the owner holds in memory in this run. */
  readonly state = new Map<string, number>();
  /** Greatest value per key that was acknowledged, or given, in any run. */
  readonly acknowledged = new Map<string, number>();
  readonly given = new Map<string, number>();
  journal!: Journal;
  #run = this.clock.process();
  #opened = 0;
  readonly bounds: Partial<JournalBounds>;

  constructor(bounds: Partial<JournalBounds> = {}) {
    this.bounds = bounds;
  }

  open(host = 'host-1'): Promise<Journal> {
    this.#opened += 1;
    return openJournal({
      disk: this.disk.attach(),
      folder,
      host: hostId(host),
      random: new SeededRandom(`${this.#opened}`),
      log: this.log,
      clock: this.#run,
      bounds: this.bounds,
    });
  }

  async start(): Promise<void> {
    this.#run.kill();
    this.#run = this.clock.process();
    this.state.clear();
    this.journal = await this.clock.wait(this.open());
    this.journal.begin(
      (entry) => {
        const [key, value] = text(entry).split('=') as [string, string];
        this.state.set(key, Number(value));
      },
      () => this.#live(),
    );
  }

  /** Starts while the power may go off again: true if it came up. */
  async tryStart(limitMs = 1000): Promise<boolean> {
    let settled = false;
    let failure: unknown = null;
    this.start().then(
      () => {
        settled = true;
      },
      (error: unknown) => {
        settled = true;
        failure = error;
      },
    );
    await this.clock.until(() => settled || this.disk.isOff, limitMs);
    if (failure !== null) throw failure as Error;
    return settled;
  }

  put(key: string, done: (error: HoldfastError | null) => void = () => {}): number {
    const value = (this.given.get(key) ?? 0) + 1;
    this.given.set(key, value);
    this.state.set(key, value);
    this.journal.append(bytes(`${key}=${value}`), (error) => {
      if (error === null) {
        this.acknowledged.set(key, Math.max(value, this.acknowledged.get(key) ?? 0));
      }
      done(error);
    });
    return value;
  }

  async putAll(count: number, keys = 3): Promise<void> {
    for (let index = 0; index < count; index += 1) {
      this.put(`k${index % keys}`);
      await this.clock.run(1);
    }
  }

  verify(): void {
    for (const [key, value] of this.acknowledged) {
      expect(this.state.get(key) ?? 0).toBeGreaterThanOrEqual(value);
    }
    for (const [key, value] of this.state)
      expect(value).toBeLessThanOrEqual(this.given.get(key) ?? 0);
  }

  current(): string {
    return journalFile(folder, this.journal.superblock.state.journalGeneration);
  }

  *#live(): Iterable<Uint8Array> {
    for (const [key, value] of this.state) yield bytes(`${key}=${value}`);
  }
}

async function rejection(bench: Bench, promise: Promise<unknown>): Promise<HoldfastError> {
  return bench.clock.wait(
    promise.then(
      () => expect.fail('was expected to fail'),
      (error: unknown) => error as HoldfastError,
    ),
  );
}

describe('group commit', () => {
  it('calls back only after the sync, and shares one sync among what collects meanwhile', async () => {
    const bench = new Bench();
    await bench.start();
    const before = bench.disk.syncs;
    const done: string[] = [];
    bench.put('first', () => done.push('first'));
    for (let index = 0; index < 100; index += 1)
      bench.put(`k${index}`, () => done.push(`k${index}`));
    bench.clock.advance(0.4);
    expect(done).toEqual([]);
    bench.clock.advance(0.1);
    expect(done).toEqual(['first']);
    bench.clock.advance(1);
    expect(done.length).toBe(101);
    expect(bench.disk.syncs - before).toBe(2);
  });

  it('writes lazy entries with the next batch, or at the close', async () => {
    const bench = new Bench();
    await bench.start();
    bench.journal.appendLazily(bytes('lazy=1'));
    bench.clock.advance(100);
    const before = bench.disk.syncs;
    bench.put('k');
    bench.clock.advance(10);
    expect(bench.disk.syncs - before).toBe(1);
    bench.journal.appendLazily(bytes('late=1'));
    await bench.clock.wait(bench.journal.close());
    const refused: unknown[] = [];
    bench.journal.append(bytes('x=1'), (error) => refused.push(error?.code));
    bench.clock.advance(1);
    expect(refused).toEqual(['stopped']);
    await bench.start();
    expect([...bench.state]).toEqual([
      ['lazy', 1],
      ['k', 1],
      ['late', 1],
    ]);
  });

  it('gives every opening a new incarnation and keeps the rest of the superblock', async () => {
    const bench = new Bench();
    await bench.start();
    const first = bench.journal.superblock.state;
    await bench.clock.wait(bench.journal.superblock.update({ longestLeaseMs: 7000 }));
    bench.disk.cutPower();
    await bench.start();
    const second = bench.journal.superblock.state;
    expect(second.store).toBe(first.store);
    expect(second.incarnation).toBe(first.incarnation + 1);
    expect(second.longestLeaseMs).toBe(7000);
  });

  it('a new store does not begin with the numbers of the one that it replaces', async () => {
    const bench = new Bench();
    await bench.start();
    const first = bench.journal.superblock.state;
    bench.disk.files.clear();
    bench.disk.cutPower();
    await bench.start();
    const second = bench.journal.superblock.state;
    expect(second.store).not.toBe(first.store);
    expect(Math.abs(second.incarnation - first.incarnation)).toBeGreaterThan(1000);
  });
});

describe('loss of power', () => {
  it('keeps what was acknowledged, whatever happens to the un-synced writes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.integer({ min: 0, max: 40 }), async (seed, appends) => {
        const random = new SeededRandom(seed);
        const bench = new Bench({ checkpointBytes: 4096, checkpointFactor: 2, batchBytes: 600 });
        await bench.start();
        for (let run = 0; run < 3; run += 1) {
          for (let index = 0; index < appends; index += 1) {
            bench.put(`k${random.below(5)}`);
            await bench.clock.run(random.next());
          }
          if (random.chance(0.2)) bench.disk.kill(random);
          else bench.disk.cutPower(random);
          await bench.start();
          bench.verify();
        }
      }),
      { numRuns: 150 },
    );
  });

  it('is readable when the power goes at any byte of any file, also while it is being opened', async () => {
    // One run to see how many bytes it writes in all, then one run per power cut at each byte.
    const life = async (bench: Bench): Promise<void> => {
      if (!(await bench.tryStart())) return;
      for (let index = 0; index < 14 && !bench.disk.isOff; index += 1) {
        bench.put(`k${index % 3}`);
        bench.put(`m${index % 2}`);
        await bench.clock.run(2);
      }
    };
    const bounds = { checkpointBytes: 2048, checkpointFactor: 1 };
    const measure = new Bench(bounds);
    await life(measure);
    expect(measure.journal.superblock.state.journalGeneration).toBeGreaterThan(2);
    const total = measure.disk.writtenBytes;
    for (let cut = 0; cut < total; cut += cut % 512 < 48 ? 1 : 29) {
      const bench = new Bench(bounds);
      bench.disk.cutPowerAfter(cut);
      await life(bench);
      bench.disk.cutPower(cut % 2 === 0 ? 'keep' : new SeededRandom(cut));
      // And once more while it recovers.
      bench.disk.cutPowerAfter(cut % 1400);
      await bench.tryStart();
      bench.disk.cutPower(cut % 3 === 0 ? new SeededRandom(cut) : 'keep');
      await bench.start();
      bench.verify();
      await bench.putAll(3);
      bench.disk.cutPower();
      await bench.start();
      bench.verify();
    }
  });

  it('drops a torn end, says where, and wipes it', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(4);
    const size = bench.disk.bytesOf(bench.current()).length;
    for (let index = 0; index < 60; index += 1) bench.put(`long-key-number-${index}`);
    bench.disk.cutPowerAfter(700);
    bench.clock.advance(5);
    bench.disk.cutPower('keep');
    // Two batches: the first one short (whole), the second one torn.
    await bench.start();
    bench.verify();
    const line = bench.log.find('warn', 'torn');
    expect(line?.fields).toMatchObject({ file: bench.current(), offset: size + 512 });
    expect(bench.disk.bytesOf(bench.current()).length).toBe(size + 512);
  });
});

describe('damage', () => {
  it('is told from a torn end: file, offset and number of the batch', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(10);
    for (const offset of [3 * 512 + 4, 3 * 512 + 30, 3 * 512 + 35]) {
      bench.disk.cutPower();
      bench.disk.damage(bench.current(), offset);
      const error = await rejection(bench, bench.open());
      expect(isError(error, 'store-damaged')).toBe(true);
      expect(error.message).toContain(bench.current());
      expect(error.message).toContain('byte 1536');
      expect(error.message).toContain('batch 4 ');
      bench.disk.damage(bench.current(), offset);
    }
  });

  it('is noticed even where only a torn batch follows, by its header', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(2);
    for (let index = 0; index < 200; index += 1) bench.put(`long-key-number-${index}`);
    await bench.clock.run(0.6);
    bench.disk.cutPowerAfter(1000);
    bench.clock.advance(5);
    bench.disk.cutPower('keep');
    bench.disk.damage(bench.current(), 2 * 512 + 33);
    expect((await rejection(bench, bench.open())).code).toBe('store-damaged');
  });

  it('of the last batch is noticed after an orderly end', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(3);
    await bench.clock.wait(bench.journal.close());
    bench.disk.damage(bench.current(), 2 * 512 + 33);
    expect((await rejection(bench, bench.open())).message).toContain('batch 3 ');
  });

  it('of any single byte never makes the journal serve what was not acknowledged as such', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.integer({ min: 1, max: 255 }), async (position, mask) => {
        const bench = new Bench();
        await bench.start();
        await bench.putAll(8);
        bench.disk.cutPower();
        const name = bench.current();
        const size = bench.disk.bytesOf(name).length;
        const offset = position % size;
        bench.disk.damage(name, offset, mask);
        const opened = await bench.clock.wait(
          bench.start().then(
            () => true,
            (error: unknown) => {
              expect(isError(error, 'store-damaged')).toBe(true);
              return false;
            },
          ),
        );
        if (!opened) return;
        // Not noticed: it hit the padding, or the very last batch, which then looks torn.
        if (offset < size - 512) bench.verify();
      }),
      { numRuns: 100 },
    );
  });

  it('of one superblock copy is survived; of both it is not', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(2);
    bench.disk.cutPower();
    bench.disk.damage(`${folder}/superblock.a`, 20);
    await bench.start();
    bench.verify();
    bench.disk.cutPower();
    bench.disk.damage(`${folder}/superblock.b`, 20);
    await bench.start();
    bench.verify();
    bench.disk.cutPower();
    bench.disk.damage(`${folder}/superblock.a`, 20);
    bench.disk.damage(`${folder}/superblock.b`, 20);
    expect((await rejection(bench, bench.open())).code).toBe('store-damaged');
  });

  it('is a journal without superblock, and a superblock without its journal', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(2);
    bench.disk.cutPower();
    const journal = bench.disk.files.get(bench.current());
    bench.disk.files.delete(bench.current());
    expect((await rejection(bench, bench.open())).message).toContain('is missing');
    bench.disk.files.clear();
    bench.disk.files.set(bench.current(), journal as NonNullable<typeof journal>);
    expect((await rejection(bench, bench.open())).code).toBe('store-damaged');
  });

  it('the store of another host is refused', async () => {
    const bench = new Bench();
    await bench.start();
    bench.disk.cutPower();
    const error = await rejection(bench, bench.open('host-2'));
    expect(error.code).toBe('bad-request');
    expect(error.message).toContain('belongs to host host-1');
  });
});

describe('a device that fails', () => {
  it('full: refuses, acknowledges nothing of the batch, and goes on when there is space', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(2);
    bench.disk.capacityBytes = bench.disk.usedBytes() + 100;
    const errors: unknown[] = [];
    bench.put('k0', (error) => errors.push(error?.code));
    bench.put('k1', (error) => errors.push(error?.code));
    await bench.clock.run(10);
    expect(errors).toEqual(['disk-full', 'disk-full']);
    bench.disk.capacityBytes = Number.POSITIVE_INFINITY;
    await bench.putAll(2);
    expect(bench.acknowledged.get('k0')).toBe(3);
    bench.disk.cutPower();
    await bench.start();
    bench.verify();
  });

  it.each([
    ['full', 'disk-full'],
    ['failed', 'disk-error'],
  ] as const)(
    '%s while the store is made or opened: told as that, whatever met it',
    async (kind, code) => {
      const bench = new Bench();
      /** Lets each operation of a start fail in turn, until one start needs no more of them. */
      async function startWithFaults(): Promise<number> {
        for (let last = 1; ; last += 1) {
          let count = 0;
          bench.disk.fault = () => {
            count += 1;
            return count === last ? new DiskError(kind, 'it does not work') : null;
          };
          const error = await bench.clock.wait(
            bench.open().then(
              () => null,
              (why: unknown) => why,
            ),
          );
          bench.disk.fault = () => null;
          if (count < last) return last;
          if (error !== null) expect(error).toMatchObject({ code });
          bench.disk.cutPower();
        }
      }
      expect(await startWithFaults()).toBeGreaterThan(10);
      await bench.start();
      await bench.putAll(2);
      bench.disk.cutPower();
      expect(await startWithFaults()).toBeGreaterThan(10);
      await bench.start();
      bench.verify();
    },
  );

  it('full during a checkpoint: the old journal goes on, and the checkpoint is made later', async () => {
    const bench = new Bench({ checkpointBytes: 2048, checkpointFactor: 1 });
    await bench.start();
    bench.disk.fault = ({ kind, file }) =>
      kind === 'write' && file === journalFile(folder, 2)
        ? new DiskError('full', 'no space')
        : null;
    await bench.putAll(12);
    expect(bench.current()).not.toBe(journalFile(folder, 2));
    expect(bench.journal.superblock.state.journalGeneration).toBeGreaterThan(2);
    bench.disk.cutPower();
    await bench.start();
    bench.verify();
  });

  it('a failed sync: everything is refused until the restart, and what was read then is durable', async () => {
    const bench = new Bench();
    await bench.start();
    await bench.putAll(2);
    bench.disk.fault = ({ kind }) =>
      kind === 'sync' ? new DiskError('failed', 'I/O error') : null;
    const errors: unknown[] = [];
    bench.put('k0', (error) => errors.push(error?.code));
    bench.put('k1', (error) => errors.push(error?.code));
    await bench.clock.run(5);
    bench.disk.fault = () => null;
    bench.put('k2', (error) => errors.push(error?.code));
    await bench.clock.run(5);
    expect(errors).toEqual(['disk-error', 'disk-error', 'disk-error']);
    expect(bench.journal.failure?.code).toBe('disk-error');
    // The daemon restarts; the kernel still shows the batch whose sync failed.
    bench.disk.kill();
    await bench.start();
    expect(bench.state.get('k0')).toBe(2);
    for (const [key, value] of bench.state) bench.acknowledged.set(key, value);
    await bench.putAll(2);
    bench.disk.cutPower();
    await bench.start();
    bench.verify();
  });

  it('a failed sync of the superblock leaves one good copy on the disk', async () => {
    for (let failing = 1; failing <= 4; failing += 1) {
      const bench = new Bench();
      await bench.start();
      const first = bench.journal.superblock.state.incarnation;
      await bench.putAll(2);
      let syncs = 0;
      bench.disk.fault = ({ kind, file }) => {
        if (kind !== 'sync' || !file.includes('superblock')) return null;
        syncs += 1;
        return syncs === failing ? new DiskError('failed', 'I/O error') : null;
      };
      for (let change = 0; change < 5; change += 1) {
        await bench.clock.wait(
          bench.journal.superblock.update({ longestLeaseMs: change }).catch(() => {}),
        );
      }
      bench.disk.fault = () => null;
      bench.disk.kill();
      await bench.start();
      bench.disk.cutPower(new SeededRandom(failing));
      await bench.start();
      bench.verify();
      expect(bench.journal.superblock.state.incarnation).toBe(first + 2);
    }
  });

  it('the incarnation never goes back, also if the power goes after a failed sync', async () => {
    for (let cut = 0; cut < 1600; cut += 37) {
      const bench = new Bench();
      await bench.start();
      bench.disk.cutPower();
      await bench.start();
      const second = bench.journal.superblock.state.incarnation;
      bench.disk.fault = ({ kind }) => (kind === 'sync' ? new DiskError('failed', 'I/O') : null);
      await bench.clock.wait(
        bench.journal.superblock.update({ longestLeaseMs: 1 }).catch(() => {}),
      );
      bench.disk.fault = () => null;
      // The daemon restarts on what the kernel still shows, and the power fails meanwhile.
      bench.disk.kill();
      bench.disk.cutPowerAfter(cut);
      const opened = await bench.tryStart();
      const least = opened ? bench.journal.superblock.state.incarnation : second;
      bench.disk.cutPower('keep');
      await bench.start();
      expect(bench.journal.superblock.state.incarnation).toBeGreaterThan(least);
    }
  });
});

describe('a checkpoint', () => {
  it('bounds the file, loses no append made meanwhile, and delays none for long', async () => {
    const bench = new Bench({ checkpointBytes: 64 * 1024, checkpointFactor: 2, batchBytes: 4096 });
    await bench.start();
    let slowestMs = 0;
    let acknowledged = 0;
    for (let index = 0; index < 3000; index += 1) {
      const beganMs = bench.clock.now();
      bench.put(`key-${index % 100}-${'x'.repeat(50)}`, (error) => {
        expect(error).toBe(null);
        acknowledged += 1;
        slowestMs = Math.max(slowestMs, bench.clock.now() - beganMs);
      });
      await bench.clock.run(0.3);
    }
    await bench.clock.run(20);
    expect(acknowledged).toBe(3000);
    expect(bench.journal.superblock.state.journalGeneration).toBeGreaterThan(5);
    expect(bench.disk.usedBytes()).toBeLessThan(80 * 1024);
    // One sync of its own batch, two of the checkpoint's end and one of the superblock.
    expect(slowestMs).toBeLessThan(4);
    bench.disk.cutPower();
    await bench.start();
    bench.verify();
    expect(bench.state.size).toBe(100);
  });
});
