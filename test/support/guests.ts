// What the tests of guest drivers share: disks that somebody else's NBD server holds, launches, and what a guest
// was heard to say. What is asserted are events and states, never how long something took.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { epoch, vmId } from '../../src/model/ids.ts';
import { createClock } from '../../src/platform/clock.ts';
import type { Guest, GuestEvent, GuestLaunch } from '../../src/ports/guests.ts';
import type { Log } from '../../src/ports/log.ts';
import { processesWith, run, until } from '../qemu/support.ts';

const image = (name: string): string =>
  new URL(`../../build/guest/${name}`, import.meta.url).pathname;
const append =
  'console=ttyS0 quiet panic=-1 nokaslr no_timer_check mitigations=off nopti random.trust_cpu=on audit=0 ' +
  'holdfast.interval_ms=200';
export const kernel = image('vmlinuz');
export const bootImages = {
  counter: { kernel, initrd: image('initrd'), append },
  panicking: { kernel, initrd: image('initrd'), append: `${append} holdfast.panic_after=3` },
  missing: { kernel: '/nonexistent/vmlinuz' },
};

export function needGuestImage(): void {
  if (!existsSync(image('initrd'))) throw new Error('the guest image is missing: run `make guest`');
}

export const clock = createClock();
export const logged: string[] = [];
const note = (message: string, fields?: unknown): void =>
  void logged.push(`${message} ${JSON.stringify(fields ?? {})}`);
export const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log };

export const farMs = 10 * 60 * 1000;
const memoryBytes = 96 * 2 ** 20;

/** A disk in the memory of an NBD server. */
export async function disk(
  folder: string,
  filter?: string,
  ...parameters: string[]
): Promise<{ socket: string; pid: number }> {
  const socket = join(folder, 'disk.sock');
  const server = run('nbdkit', [
    ...['--foreground', '--unix', socket],
    ...(filter === undefined ? [] : [`--filter=${filter}`]),
    ...['memory', '64M', ...parameters],
  ]);
  await until(() => existsSync(socket));
  return { socket, pid: server.pid as number };
}

export function launchOf(socket: string | null, other: Partial<GuestLaunch> = {}): GuestLaunch {
  return {
    vm: vmId('0123456789abcdef0123456789abcdef'),
    name: 'vm-1',
    epoch: epoch(4),
    cpus: 1,
    memoryBytes,
    boot: 'counter',
    disks: socket === null ? [] : [{ name: 'disk0', socket }],
    absentDisks: [],
    deadlineMs: clock.now() + farMs,
    ...other,
  };
}

/** Collects the events of a guest. */
export function events(guest: Guest): GuestEvent[] {
  const seen: GuestEvent[] = [];
  guest.handle((event) => seen.push(event));
  return seen;
}

export const lines = (seen: readonly GuestEvent[]): string[] =>
  seen.flatMap((event) => (event.type === 'heartbeat' ? [event.line] : []));
export const typed = <Type extends GuestEvent['type']>(seen: readonly GuestEvent[], type: Type) =>
  seen.find((event): event is Extract<GuestEvent, { type: Type }> => event.type === type);
export const numbers = (seen: readonly GuestEvent[]): number[] =>
  lines(seen).flatMap((line) => (line.startsWith('wrote ') ? [Number(line.slice(6))] : []));

export function exitOf(guest: Guest) {
  const seen = events(guest);
  return until(() => typed(seen, 'exited'));
}

/** Proof that the guest runs: it reports two more numbers. */
export async function untilItCounts(seen: readonly GuestEvent[]): Promise<void> {
  const before = numbers(seen).length;
  await until(() => numbers(seen).length >= before + 2);
}

/** The process of the guest, as an outsider finds it: what names the run directory and is not the guard. */
export function guestPid(runDir: string): number {
  const found = processesWith(`${runDir}/`).filter((pid) => {
    const [program = ''] = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
    return !program.endsWith('/guard');
  });
  expect(found).toHaveLength(1);
  return found[0] as number;
}

/** Only logs may stay of a guest that is gone. */
export function expectNothingLeft(runDir: string): void {
  expect(processesWith(`${runDir}/`)).toEqual([]);
  const files = readdirSync(runDir, { recursive: true }).map(String);
  expect(files.filter((file) => /\.(sock|json|new)$/.test(file))).toEqual([]);
}
