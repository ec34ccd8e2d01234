import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { initCluster, joinCluster } from '../../src/daemon/cluster-init.ts';
import { readConfig, statePaths } from '../../src/daemon/config.ts';
import { createJoinTokens } from '../../src/daemon/join-tokens.ts';
import { hostId } from '../../src/model/ids.ts';
import type { JsonValue } from '../../src/model/json.ts';
import { requestJoin } from '../../src/platform/join-channel.ts';
import { openMembers } from '../../src/platform/members.ts';
import {
  createAuthority,
  createHostRequest,
  createJoinToken,
  readJoinToken,
  signHost,
} from '../../src/platform/pki.ts';
import { createRandom } from '../../src/platform/random.ts';
import { createTlsTransport } from '../../src/platform/tls-transport.ts';
import {
  cleanUp,
  clock,
  credentialsIn,
  lengthPrefixed,
  quietLog,
  rawClient,
  temporaryFolder,
  until,
} from './fixture.ts';

const parked = { storageAddress: '127.0.0.1:1', haAddress: '127.0.0.1:2' };

/** Serves the storage network of a host that `cluster init` or `host join` made. */
async function run(configFile: string, address = '127.0.0.1:0') {
  const config = await readConfig(configFile);
  const members = await openMembers(statePaths(config.dataDir).members);
  const read = (path: string) => readFileSync(path, 'utf8');
  // The configured address is a placeholder; tokens must name the port that the system chose.
  const bound = { ...config, storage: { address: '' } };
  const tokens = createJoinTokens(bound, members);
  const transport = createTlsTransport({
    self: config.name,
    network: 'storage',
    address,
    credentials: {
      ca: read(config.tls.ca),
      certificate: read(config.tls.certificate),
      key: read(config.tls.key),
    },
    clock,
    random: createRandom(),
    log: quietLog(),
    onJoin: tokens.accept,
  });
  bound.storage.address = await transport.listen();
  const ups: string[] = [];
  transport.start({ up: (host) => void ups.push(host), down: () => {}, frame: () => {} });
  cleanUp(() => transport.stop());
  return { config: bound, members, tokens, transport, ups, address: bound.storage.address };
}

async function newCluster(folder: string) {
  const made = await initCluster({
    dir: join(folder, 'first'),
    cluster: 'lab',
    name: 'host-1',
    ...parked,
  });
  return run(made.configFile);
}

const joining = (folder: string, name: string, token: string) => ({
  dir: join(folder, name),
  name,
  token,
  ...parked,
});

describe('a new cluster', () => {
  it('has all files in its folder, keys for its owner alone, and a configuration that is accepted', async () => {
    const dir = join(await temporaryFolder(), 'deep', 'host');
    const settings = {
      timings: { leaseDuration: '5s' },
      hypervisor: { accelerator: 'tcg' as const },
    };
    const made = await initCluster({ dir, cluster: 'lab', name: 'host-1', ...parked, settings });
    expect(made).toMatchObject({ cluster: 'lab', configFile: join(dir, 'config.yaml') });
    expect(readdirSync(dir).sort()).toEqual([
      'ca.crt',
      'ca.key',
      'config.yaml',
      'data',
      'host.crt',
      'host.key',
    ]);
    for (const key of ['ca.key', 'host.key'])
      expect(statSync(join(dir, key)).mode & 0o777).toBe(0o600);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    const config = await readConfig(made.configFile);
    expect(config).toMatchObject({ name: 'host-1', tls: { caKey: join(dir, 'ca.key') } });
    expect(config.timings.leaseDurationMs).toBe(5000);
    const members = await openMembers(statePaths(config.dataDir).members);
    expect(members.list()).toEqual([{ name: 'host-1', kind: 'full', ...parked, issuer: true }]);
  });

  it('is made in an empty folder, never in one with content', async () => {
    const folder = await temporaryFolder();
    const dir = join(folder, 'host');
    await mkdir(dir);
    writeFileSync(join(dir, 'precious'), 'x');
    const options = { dir, cluster: 'lab', name: 'host-1', ...parked };
    await expect(initCluster(options)).rejects.toMatchObject({ code: 'conflict' });
    expect(readdirSync(dir)).toEqual(['precious']);
    expect(readdirSync(folder)).toEqual(['host']);
    await mkdir(join(folder, 'empty'));
    await initCluster({ ...options, dir: join(folder, 'empty') });
  });

  it('leaves nothing behind when it fails', async () => {
    const folder = await temporaryFolder();
    const options = {
      dir: join(folder, 'a', 'b', 'host'),
      cluster: 'lab',
      name: 'host-1',
      ...parked,
    };
    for (const wrong of [
      { cluster: 'No!' },
      { name: 'a.b' },
      { haAddress: 'x' },
      { haAddress: parked.storageAddress },
    ]) {
      await expect(initCluster({ ...options, ...wrong })).rejects.toMatchObject({
        code: 'bad-request',
      });
    }
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('joining', () => {
  it('makes a host that the others talk to', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const { token, expiresAt } = await first.tokens.create();
    expect(token).toMatch(/^holdfast-join-v1\.[A-Za-z0-9_-]+$/);
    expect(expiresAt).toBeGreaterThan(Date.now());
    const made = await joinCluster({ ...joining(folder, 'host-2', token), kind: 'witness' });
    expect(made.members.map(({ name }) => name)).toEqual(['host-1', 'host-2']);
    expect(first.members.get(hostId('host-2'))).toMatchObject({
      kind: 'witness',
      issuer: false,
      ...parked,
    });
    expect(readdirSync(join(folder, 'host-2')).sort()).toEqual([
      'ca.crt',
      'config.yaml',
      'data',
      'host.crt',
      'host.key',
    ]);

    const second = await run(made.configFile);
    expect(second.config.kind).toBe('witness');
    first.transport.setPeers(new Map([[hostId('host-2'), second.address]]));
    await until(() => first.ups.length === 1 && second.ups.length === 1);
    expect([first.ups, second.ups]).toEqual([['host-2'], ['host-1']]);
  });

  it('is possible once with each token', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const { token } = await first.tokens.create();
    await joinCluster(joining(folder, 'host-2', token));
    await expect(joinCluster(joining(folder, 'host-3', token))).rejects.toMatchObject({
      code: 'unauthorized',
      message: expect.stringContaining('used already'),
    });
    expect(readdirSync(folder).sort()).toEqual(['first', 'host-2']);
    // Also after a restart of the issuer.
    await first.transport.stop();
    await run(join(folder, 'first', 'config.yaml'), first.address);
    await expect(joinCluster(joining(folder, 'host-3', token))).rejects.toMatchObject({
      code: 'unauthorized',
    });
  });

  it('answers alike who asks again the same, because the answer was lost', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const { credentials } = readJoinToken((await first.tokens.create()).token);
    const { request } = await createHostRequest('host-2');
    const asked: JsonValue = { name: 'host-2', kind: 'full', ...parked, request };
    const answer = await requestJoin(first.address, credentials, asked);
    expect(await requestJoin(first.address, credentials, asked)).toEqual(answer);
    for (const other of [
      { ...asked, name: 'host-3' },
      { ...asked, request: (await createHostRequest('host-2')).request },
    ]) {
      await expect(requestJoin(first.address, credentials, other)).rejects.toMatchObject({
        code: 'unauthorized',
      });
    }
    expect(first.members.list()).toHaveLength(2);
  });

  it('refuses a name in use, also when two ask at once, and requests that make no sense', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const tokens = await Promise.all([1, 2, 3].map(() => first.tokens.create()));
    const [a, b, c] = tokens.map(({ token }) => token) as [string, string, string];
    const taken = { ...joining(folder, 'other', a), name: 'host-1' };
    await expect(joinCluster(taken)).rejects.toMatchObject({ code: 'name-in-use' });
    const both = await Promise.allSettled([
      joinCluster(joining(folder, 'host-2', a)), // a refusal does not use the token up
      joinCluster({ ...joining(folder, 'other', b), name: 'host-2' }),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const { credentials } = readJoinToken(c);
    const { request } = await createHostRequest('host-3');
    const wrong: JsonValue[] = [
      null,
      {},
      { name: 'host-3', kind: 'full', ...parked },
      { name: '../x', kind: 'full', ...parked, request },
      { name: 'host-3', kind: 'full', ...parked, request: 'garbage' },
    ];
    for (const asked of wrong) {
      await expect(requestJoin(first.address, credentials, asked)).rejects.toMatchObject({
        code: 'bad-request',
      });
    }
    expect(first.members.list()).toHaveLength(2);
  });

  it('is refused with an expired token, by both sides', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const read = (name: string) => readFileSync(join(folder, 'first', name), 'utf8');
    const described = { cluster: 'lab', issuer: hostId('host-1'), addresses: [first.address] };
    const authority = { certificate: read('ca.crt'), key: read('ca.key') };
    const expired = await createJoinToken(authority, described, -60_000);
    await expect(joinCluster(joining(folder, 'host-2', expired))).rejects.toMatchObject({
      code: 'unauthorized',
      message: expect.stringContaining('expired'),
    });
    await expect(requestJoin(first.address, credentialsIn(expired), {})).rejects.toMatchObject({
      code: 'unauthorized',
      message: expect.stringContaining('expired'),
    });
    expect(existsSync(join(folder, 'host-2'))).toBe(false);
  });

  it('is refused with a token of another cluster or another issuer, and with half a token', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const described = { cluster: 'lab', issuer: hostId('host-1'), addresses: [first.address] };
    const foreign = await createJoinToken(await createAuthority('lab'), described);
    await expect(joinCluster(joining(folder, 'host-2', foreign))).rejects.toMatchObject({
      code: 'unauthorized',
    });
    const read = (name: string) => readFileSync(join(folder, 'first', name), 'utf8');
    const other = await createJoinToken(
      { certificate: read('ca.crt'), key: read('ca.key') },
      { ...described, issuer: hostId('host-9') },
    );
    await expect(joinCluster(joining(folder, 'host-2', other))).rejects.toMatchObject({
      message: expect.stringContaining('host-9'),
    });
    const { token } = await first.tokens.create();
    for (const text of [
      '',
      'nonsense',
      token.slice(0, 500),
      token.slice(0, -30),
      token.slice(17),
    ]) {
      await expect(joinCluster(joining(folder, 'host-2', text))).rejects.toMatchObject({
        code: 'bad-request',
      });
    }
    await joinCluster(joining(folder, 'host-2', `  ${token}\n`));
  });

  it('says who can be asked, where this host can not make tokens', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const made = await joinCluster(joining(folder, 'host-2', (await first.tokens.create()).token));
    const second = await run(made.configFile);
    await expect(second.tokens.create()).rejects.toMatchObject({
      code: 'unauthorized',
      message: expect.stringContaining('do it on host-1'),
    });
  });

  it('says when nobody answers', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const { token } = await first.tokens.create();
    await first.transport.stop();
    await expect(joinCluster(joining(folder, 'host-2', token))).rejects.toMatchObject({
      code: 'unreachable',
    });
    expect(readdirSync(folder)).toEqual(['first']);
  });

  it('entitles to one line only, never to a session', async () => {
    const folder = await temporaryFolder();
    const first = await newCluster(folder);
    const { credentials } = readJoinToken((await first.tokens.create()).token);
    const client = rawClient(first.address, credentials);
    client.socket.write(lengthPrefixed('holdfast transport 2'));
    client.socket.write(`${'x'.repeat(2 * 1024 * 1024)}`);
    await client.closed;
    expect(first.ups).toEqual([]);
    expect(client.received().toString()).toBe('holdfast join 1\n');
  });
});

describe('a signing request', () => {
  it('must be signed by its own key, which is one of P-256', async () => {
    const ca = await createAuthority('lab');
    const { request } = await createHostRequest('host-2');
    const bytes = Buffer.from(request.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64');
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] as number) ^ 1;
    const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
    await expect(signHost(ca, forged, 'host-2')).rejects.toMatchObject({ code: 'bad-request' });
    await expect(signHost(ca, request, 'Host 2')).rejects.toMatchObject({ code: 'bad-request' });
    expect(await signHost(ca, request, 'host-2')).toContain('BEGIN CERTIFICATE');
  });
});
