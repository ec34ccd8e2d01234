// The driver for labs, with real processes: it does what the one for QEMU does.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { createProcessDriver } from '../../src/process-guest/driver.ts';
import type { GuestDriverOptions } from '../../src/qemu/driver.ts';
import { compileGuard, stateOf, tempFolder } from '../qemu/support.ts';
import { guestConformance, type OpenDriver } from '../support/guest-conformance.ts';
import {
  bootImages,
  clock,
  disk,
  events,
  guestPid,
  launchOf,
  lines,
  log,
  needGuestImage,
  numbers,
  untilItCounts,
} from '../support/guests.ts';

const source = new URL('../../src/process-guest/guest.c', import.meta.url).pathname;
const programs = { guardPath: '', guestPath: '' };

beforeAll(() => {
  needGuestImage();
  programs.guardPath = compileGuard();
  programs.guestPath = join(tempFolder(), 'process-guest');
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-static', '-pthread'];
  execFileSync(process.env['CC'] ?? 'gcc', [...flags, '-o', programs.guestPath, source]);
});

const open: OpenDriver = (runDir: string, other: Partial<GuestDriverOptions> = {}) =>
  createProcessDriver({ host: 'host-1', runDir, clock, log, bootImages, ...programs, ...other });

guestConformance(open);

test('one that was ended counts as ended, whatever becomes of its files', async () => {
  const runDir = tempFolder();
  const driver = await open(runDir);
  const { socket } = await disk(tempFolder());
  const guest = await driver.start(launchOf(socket));
  const seen = events(guest);
  await untilItCounts(seen);
  const pid = guestPid(runDir);
  const [folder] = readdirSync(runDir);
  mkdirSync(join(runDir, folder as string, 'launch.json.new')); // can not be removed as a file
  await guest.kill();
  expect(stateOf(pid)).toBe(null);
  await guest.kill();
});

test('SIGUSR1 makes a process-guest hang: it says nothing any more, and goes on to be there', async () => {
  const runDir = tempFolder();
  const driver = await open(runDir);
  const { socket } = await disk(tempFolder());
  const guest = await driver.start(launchOf(socket));
  const seen = events(guest);
  await untilItCounts(seen);
  const pid = guestPid(runDir);
  process.kill(pid, 'SIGUSR1');
  // What was under way comes out; then ten of its intervals pass without a word.
  await sleep(1000);
  const before = numbers(seen).length;
  await sleep(2000);
  expect(numbers(seen)).toHaveLength(before);
  expect(stateOf(pid)).toBe('S');
  expect(guest.state).toBe('running');
  // Its button does nothing, but that it is there can be asked.
  await guest.powerDown();
  expect(lines(seen)).not.toContain('off');
  await guest.kill();
});
