import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { hostId } from '../../src/model/ids.ts';
import { type Member, openMembers, readMembers } from '../../src/platform/members.ts';
import { temporaryFolder } from './fixture.ts';

function member(name: string, port = 7400): Member {
  return {
    name: hostId(name),
    kind: 'full',
    storageAddress: `127.0.0.1:${port}`,
    haAddress: `127.0.0.1:${port + 1}`,
    issuer: false,
  };
}

it('members only become more, are durable, and each knows itself best', async () => {
  const folder = await temporaryFolder();
  const path = join(folder, 'members.json');
  const members = await openMembers(path);
  expect(members.list()).toEqual([]);
  expect(await members.merge([member('b'), member('a')])).toBe(true);
  expect(await members.merge([member('a', 9000)])).toBe(false); // old news from a third host
  expect(await members.merge([member('a', 9000), member('b', 9000)], hostId('b'))).toBe(true);
  expect(members.list()).toEqual([member('a'), member('b', 9000)]);
  expect(members.get(hostId('b'))).toEqual(member('b', 9000));
  expect(members.get(hostId('c'))).toBeUndefined();
  expect((await openMembers(path)).list()).toEqual(members.list());
  expect(readdirSync(folder)).toEqual(['members.json']);
});

it('members told at the same time are all kept', async () => {
  const path = join(await temporaryFolder(), 'members.json');
  const members = await openMembers(path);
  const names = Array.from({ length: 20 }, (_, index) => `host-${index}`);
  await Promise.all(names.map((name) => members.merge([member(name)])));
  expect((await openMembers(path)).list().map(({ name }) => name)).toEqual(names.sort());
});

it('a write that fails changes nothing, and later ones work', async () => {
  const folder = await temporaryFolder();
  const path = join(folder, 'gone', 'members.json');
  const members = await openMembers(path);
  await expect(members.merge([member('a')])).rejects.toThrow(/ENOENT/);
  expect(members.list()).toEqual([]);
});

it('a damaged list is said to be so, never taken for an empty one', async () => {
  const path = join(await temporaryFolder(), 'members.json');
  for (const text of ['', '{"members": [', '{}', '{"members": [{"name": "a"}]}']) {
    writeFileSync(path, text);
    await expect(openMembers(path)).rejects.toMatchObject({
      code: 'store-damaged',
      message: expect.stringContaining(path),
    });
    expect(readFileSync(path, 'utf8')).toBe(text);
  }
});

it('a member in a message is checked', () => {
  expect(readMembers([{ ...member('a'), extra: 1 }])).toEqual([member('a')]);
  const bad = [
    { name: 'A' },
    { kind: 'half' },
    { storageAddress: 'x' },
    { haAddress: 1 },
    { issuer: 'no' },
  ];
  for (const change of bad) {
    expect(() => readMembers([{ ...member('a'), ...change }])).toThrow(/does not describe a host/);
  }
  expect(() => readMembers([null])).toThrow(/does not describe a host/);
  expect(() => readMembers({})).toThrow(/no list/);
});

it('a member that was removed stays so, whoever tells what, and its name is not free', async () => {
  const path = join(await temporaryFolder(), 'members.json');
  const members = await openMembers(path);
  await members.merge([member('a'), member('b')]);
  await members.remove(hostId('b'));
  expect(members.list()).toEqual([member('a')]);
  expect(await members.merge([member('b')])).toBe(false);
  expect(await members.merge([member('b', 9000)], hostId('b'))).toBe(false);
  expect(members.get(hostId('b'))).toEqual({ ...member('b'), removed: true });
  // Others hear of it, also those that have not heard of the host.
  const other = await openMembers(join(await temporaryFolder(), 'members.json'));
  await other.merge(readMembers([...members.all()] as never));
  expect(other.list()).toEqual([member('a')]);
  expect((await openMembers(path)).all()).toEqual(members.all());
});
