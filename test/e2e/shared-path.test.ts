// A VM whose disk is a file on storage that all hosts see: here a folder of the machine that runs all
// their daemons. Whatever befalls its host, one other host goes on with what the file holds.

import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { RealCluster, stateOf, until } from './support/real-cluster.ts';

interface Vm {
  readonly id: string;
  readonly power: string;
  readonly host: string | null;
  readonly protection: { readonly status: string };
  readonly objects: readonly { readonly kind: string }[];
}

const hosts = ['host-1', 'host-2', 'host-3'];
let cluster: RealCluster;
let path: string;
let id: string;

beforeAll(async () => {
  cluster = new RealCluster();
  await cluster.start(3);
  mkdirSync(join(cluster.folder, 'nfs'));
  path = join(cluster.folder, 'nfs', 'web, 1.img');
});
afterAll(async () => {
  await cluster.end();
});

const show = () => cluster.json<Vm>('host-1', 'vm', 'show', 'web');

function makeFile(): void {
  const file = openSync(path, 'w');
  ftruncateSync(file, 64 * 2 ** 20);
  closeSync(file);
}

const numberRead = (host: string) =>
  Number(/^holdfast: read (\d+)/m.exec(cluster.said(host, id))?.[1]);

/** The one host of these on which it has begun to write. */
async function goesOnOn(others: readonly string[]): Promise<string> {
  await until('it goes on elsewhere', () =>
    others.some((host) => cluster.reports(host, id).wrote > 0),
  );
  const on = others.filter((host) => cluster.guestOf(host, id) !== null);
  expect(on).toHaveLength(1);
  return on[0] as string;
}

it('is not started where its file is not, and nothing is made there', async () => {
  const disk = ['--disk', `path=${path},format=raw`];
  await cluster.ask('host-1', 'vm', 'create', 'web', '--memory', '96MiB', ...disk);
  const made = await show();
  id = made.id;
  expect(made.objects.map(({ kind }) => kind)).toEqual(['namespace']);
  await expect(cluster.ask('host-1', 'vm', 'start', 'web', '--on', 'host-2')).rejects.toThrow(
    `VM web: its disk0, ${path}, can not be used on host-2: No such file or directory`,
  );
  expect(existsSync(path)).toBe(false);
});

it('goes on elsewhere while its old guest stands still, which is ended later', async () => {
  makeFile();
  await cluster.ask('host-1', 'vm', 'start', 'web', '--on', 'host-2');
  await until('the guest writes', () => cluster.reports('host-2', id).wrote > 5);
  await until('it is protected', async () => (await show()).protection.status === 'protected');
  const daemon = cluster.daemons.get('host-2')?.pid as number;
  const old = cluster.guestOf('host-2', id) as number;
  process.kill(daemon, 'SIGSTOP');
  const on = await goesOnOn(['host-1', 'host-3']);
  expect(stateOf(old)).toBe('T');
  expect(numberRead(on)).toBe(cluster.reports('host-2', id).wrote);
  process.kill(daemon, 'SIGCONT');
  await until('the old guest is ended', () => stateOf(old) === null);
  await until('it is known to run', async () => (await show()).host === on);
});

it('goes on when its host loses power, and its file stays when it is removed', async () => {
  const from = (await show()).host as string;
  cluster.cutPower(from);
  const others = hosts.filter((host) => host !== from);
  // The logs of its earlier guests are still there.
  await until('it runs elsewhere', () => others.some((host) => cluster.guestOf(host, id) !== null));
  const on = others.filter((host) => cluster.guestOf(host, id) !== null);
  expect(on).toHaveLength(1);
  const { wrote } = cluster.reports(from, id);
  const ask = (...args: string[]) => cluster.ask(on[0] as string, ...args);
  await until('it writes', () => cluster.reports(on[0] as string, id).wrote > wrote);
  await ask('vm', 'stop', 'web', '--force');
  expect(hosts.filter((host) => cluster.guestOf(host, id) !== null)).toEqual([]);
  expect(await ask('vm', 'remove', 'web')).toBe(`web is removed. ${path} stays as it is.\n`);
  expect(statSync(path).size).toBe(64 * 2 ** 20);
});
