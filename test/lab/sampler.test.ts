// The outside observer, on a `/proc` that was written down: what counts as a running guest, and what does not.

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Sampler } from '../../src/lab/sampler.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'hf-proc-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const vm = '0123456789abcdef0123456789abcdef';
const hosts = new Map([
  [11, 'h1'],
  [12, 'h2'],
]);

function shows(
  pid: number,
  network: number,
  args: readonly string[],
  state = 'S',
  flags = 0,
  pending = 0,
): void {
  const folder = join(root, String(pid));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'ns'), { recursive: true });
  symlinkSync(`net:[${network}]`, join(folder, 'ns', 'net'));
  writeFileSync(join(folder, 'cmdline'), args.join('\0'));
  // Name, state, parent, group, session, terminal, its group, flags; and so on.
  const mask = pending.toString(16).padStart(16, '0');
  writeFileSync(join(folder, 'status'), `Name:\tx\nSigPnd:\t${mask}\nShdPnd:\t${mask}\n`);
  writeFileSync(join(folder, 'stat'), `${pid} (a (b) c) ${state} 1 1 1 0 -1 ${flags} 0 0`);
}

const qemu = ['qemu-system-x86_64', '-chardev', `path=/lab/h1/run/${vm}/qmp.sock`];
const guard = ['/dist/qemu/guard', '--vm', vm, '--', ...qemu];

it('tells when a guest runs, stands still and is gone', () => {
  const sampler = new Sampler({ hosts, vms: [vm] }, root);
  const changes = (now: number) =>
    sampler.sample(now).changes.map(({ pid, host, state }) => `${pid} ${host} ${state}`);
  shows(7, 11, guard);
  shows(8, 11, guard);
  expect(changes(0)).toEqual([]);
  shows(8, 11, qemu);
  expect(changes(10)).toEqual(['8 h1 running']);
  shows(8, 11, qemu, 'T');
  expect(changes(20)).toEqual(['8 h1 paused']);
  expect(changes(30)).toEqual([]);
  rmSync(join(root, '8'), { recursive: true });
  expect(changes(40)).toEqual(['8 h1 gone']);
});

it('takes nobody for a guest that is elsewhere, or runs no machine', () => {
  const sampler = new Sampler({ hosts, vms: [vm] }, root);
  shows(7, 99, qemu);
  shows(8, 11, ['tail', '-f', `/lab/h1/run/${vm}/serial.log`]);
  expect(sampler.sample(0)).toEqual({ changes: [], doubled: [] });
});

it('tells once that two run at once, whichever hosts they are on', () => {
  const sampler = new Sampler({ hosts, vms: [vm] }, root);
  shows(7, 11, qemu);
  shows(8, 12, ['process-guest', '--qmp', vm]);
  expect(sampler.sample(0).doubled).toEqual([{ at: 0, vm, hosts: ['h1', 'h2'] }]);
  expect(sampler.sample(10).doubled).toEqual([]);
  shows(8, 12, ['process-guest', '--qmp', vm], 'T');
  expect(sampler.sample(20).doubled).toEqual([]);
  shows(8, 12, ['process-guest', '--qmp', vm]);
  expect(sampler.sample(30).doubled).toHaveLength(1);
});

it('counts neither one that stands still nor one that the kernel is ending', () => {
  const sampler = new Sampler({ hosts, vms: [vm] }, root);
  shows(7, 11, qemu, 'T');
  shows(8, 12, qemu);
  shows(9, 11, qemu, 'R', 0x4);
  shows(10, 11, qemu, 'Z');
  expect(sampler.sample(0).doubled).toEqual([]);
});

it('takes one that stood still and is being killed for gone, not for going on', () => {
  const sampler = new Sampler({ hosts, vms: [vm] }, root);
  shows(7, 11, qemu, 'T');
  shows(8, 12, qemu);
  sampler.sample(0);
  shows(7, 11, qemu, 'R', 0, 0x100);
  const { changes, doubled } = sampler.sample(10);
  expect({ states: changes.map(({ state }) => state), doubled }).toEqual({
    states: ['gone'],
    doubled: [],
  });
});
