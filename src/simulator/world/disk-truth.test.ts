import { beforeEach, expect, it } from 'vitest';
import { DiskTruth, stampBlock } from './disk-truth.ts';

let truth: DiskTruth;
beforeEach(() => {
  truth = new DiskTruth(1);
  truth.booted();
});

const write = (serial: number) => truth.write(0, 3, serial);
const reads = (serial: number) =>
  truth.check(0, 3, stampBlock({ vm: 1, disk: 0, block: 3, serial, epoch: 1 }));

it.each([1, 2, 3])('lets a boot find any of what the one before has not flushed (%i)', (serial) => {
  const boot = truth.booted();
  truth.flushed([write(1)], boot);
  truth.acknowledged(write(2), false, boot);
  write(3);
  truth.booted();
  expect(reads(0)).toContain('holds write 0, and write 1 was flushed');
  expect(reads(serial)).toBe(null);
});

it('holds a boot to what it was told', () => {
  const boot = truth.booted();
  truth.acknowledged(write(1), false, boot);
  write(2);
  expect(reads(2)).toBe(null);
  expect(reads(1)).toContain('holds write 1, and write 2 was acknowledged');
  truth.booted();
  expect(reads(1)).toBe(null);
});

it('holds later boots to what one has found of those before it', () => {
  write(1);
  write(2);
  truth.booted();
  expect(reads(1)).toBe(null);
  truth.booted();
  expect(reads(2)).toContain('holds write 2, and write 1 was flushed');
});

it('holds later boots to no more than that', () => {
  write(1);
  expect(reads(1)).toBe(null); // its own
  truth.booted();
  expect(truth.check(0, 3, new Uint8Array(4096))).toBe(null);
});
