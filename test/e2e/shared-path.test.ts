// A VM whose disk is a file on storage that all hosts see: here a folder of the machine that runs all
// their daemons. Its host loses power, and one other host goes on with what the file holds.

import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { RealCluster, until } from './support/real-cluster.ts';

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

it('is failed over to one other host, and its file stays when it is removed', async () => {
  const disk = ['--disk', `path=${path},format=raw`];
  await cluster.ask('host-1', 'vm', 'create', 'web', '--memory', '96MiB', ...disk);
  const { id, objects } = await show();
  expect(objects.map(({ kind }) => kind)).toEqual(['namespace']);

  await expect(cluster.ask('host-1', 'vm', 'start', 'web', '--on', 'host-2')).rejects.toThrow(
    `VM web: its disk0, ${path}, can not be used on host-2: No such file or directory`,
  );
  expect(existsSync(path)).toBe(false);

  makeFile();
  await cluster.ask('host-1', 'vm', 'start', 'web', '--on', 'host-2');
  await until('the guest writes', () => cluster.reports('host-2', id).wrote > 5);
  await until('it is protected', async () => (await show()).protection.status === 'protected');

  cluster.cutPower('host-2');
  const { wrote } = cluster.reports('host-2', id);
  const others = hosts.filter((host) => host !== 'host-2');
  await until('it goes on elsewhere', () =>
    others.some((host) => cluster.reports(host, id).wrote > wrote),
  );
  const on = others.filter((host) => cluster.guestOf(host, id) !== null);
  expect(on).toHaveLength(1);
  const [, read] = /^holdfast: read (\d+)/m.exec(cluster.said(on[0] as string, id)) ?? [];
  expect(Number(read)).toBeGreaterThanOrEqual(wrote);
  expect(await show()).toMatchObject({ power: 'running', host: on[0] });

  await cluster.boot('host-2');
  await cluster.ask('host-2', 'vm', 'stop', 'web', '--force');
  expect(hosts.filter((host) => cluster.guestOf(host, id) !== null)).toEqual([]);
  expect(await cluster.ask('host-2', 'vm', 'remove', 'web')).toBe(
    `web is removed. ${path} stays as it is.\n`,
  );
  expect(statSync(path).size).toBe(64 * 2 ** 20);
});
