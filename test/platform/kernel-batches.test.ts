import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type FileCall, maxBatch, runBatch } from '../../src/platform/kernel-batches.ts';
import { cleanUp, temporaryFolder } from './fixture.ts';

type Outcome = readonly boolean[] | null | 'not now';

const batch = (kind: 'read' | 'write', fd: number, calls: readonly FileCall[]) =>
  new Promise<Outcome>((resolve) => {
    if (!runBatch(kind, fd, calls, resolve)) resolve('not now');
  });

it('a batch does what it reports to be done, and reports no less than that', async () => {
  const file = await open(join(await temporaryFolder(), 'file'), 'w+');
  cleanUp(() => file.close());
  const far = 5 * 2 ** 32;
  const written = Array.from({ length: maxBatch }, (_, index) => ({
    offset: far + index * 100,
    // A view within a buffer, as requests are.
    bytes: new Uint8Array(300).fill(index + 1).subarray(50, 150),
  }));
  const wrote = await batch('write', file.fd, written);
  if (wrote === 'not now') return; // this machine has no such calls: all goes the usual way
  expect(wrote).toEqual(written.map(() => true));
  const size = far + maxBatch * 100;
  expect((await file.stat()).size).toBe(size);

  const read = written.map(({ offset }) => ({ offset, bytes: new Uint8Array(100) }));
  read[3] = { offset: size - 10, bytes: new Uint8Array(100) };
  read[5] = { offset: size, bytes: new Uint8Array(100) };
  expect(await batch('read', file.fd, read)).toEqual(
    read.map((_, index) => index !== 3 && index !== 5),
  );
  for (const [index, { bytes }] of read.entries()) {
    if (index !== 3 && index !== 5) expect(bytes).toEqual(written[index]?.bytes);
  }
});

it('a file that does not take them is told apart from calls that failed', async () => {
  const calls = [{ offset: 0, bytes: new Uint8Array(1) }];
  expect(['not now', null]).toContainEqual(await batch('read', -1, calls));
});

it('more batches than the kernel shall hold at once are not taken', async () => {
  const file = await open(join(await temporaryFolder(), 'file'), 'w+');
  cleanUp(() => file.close());
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      batch('write', file.fd, [{ offset: index, bytes: new Uint8Array([index]) }]),
    ),
  );
  const bytes = await file.readFile();
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome !== 'not now') expect([outcome, bytes[index]]).toEqual([[true], index]);
  }
  expect(outcomes).toContain('not now');
});
