import { existsSync, lstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TSchema } from 'typebox';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeManager, silentLog } from '../../test/cli/fake-manager.ts';
import { HoldfastError } from '../model/errors.ts';
import { limits } from '../model/limits.ts';
import { ApiError, createClient } from './client.ts';
import { compileCheck } from './problems.ts';
import * as schemas from './schemas.ts';
import { type ApiServer, serveApi } from './server.ts';

let folder: string;
let socketPath: string;
let manager: FakeManager;
let server: ApiServer;
let token: () => Promise<string>;

const serve = (): Promise<ApiServer> =>
  serveApi({
    socketPath,
    manager,
    hostCommands: { createToken: () => token() },
    log: silentLog,
    heartbeatMs: 20,
  });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hf-api-'));
  socketPath = join(folder, 'run', 'api.sock');
  manager = new FakeManager();
  token = async () => 'secret';
  server = await serve();
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Answer {
  readonly status: number;
  readonly body: { readonly code?: string; readonly message?: string; readonly todo?: string };
}

/** Without the client: what it would not send. */
function send(
  method: string,
  path: string,
  body?: string,
  type = 'application/json',
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': type };
    const call = request({ socketPath, method, path, agent: false, headers }, (response) => {
      let text = '';
      response.on('data', (part) => (text += part));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }),
      );
    });
    call.on('error', reject);
    call.end(body);
  });
}

const post = (path: string, body: unknown): Promise<Answer> =>
  send('POST', path, JSON.stringify(body));

const good = { name: 'web', memoryBytes: 2 ** 27, disks: [{ sizeBytes: 2 ** 28 }] };

describe('the socket', () => {
  it('is for its owner only, and so is a folder that had to be made', () => {
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, 'run')).mode & 0o777).toBe(0o700);
  });

  it('is gone after the end', async () => {
    await server.close();
    expect(existsSync(socketPath)).toBe(false);
  });

  it('replaces one that a killed daemon left', async () => {
    await server.close();
    await leaveStaleSocket(socketPath);
    expect(lstatSync(socketPath).isSocket()).toBe(true);
    server = await serve();
    expect((await send('GET', '/v1/hosts')).status).toBe(200);
  });

  it('does not replace one that answers', async () => {
    await expect(serve()).rejects.toMatchObject({ code: 'conflict' });
    expect((await send('GET', '/v1/hosts')).status).toBe(200);
  });

  it('does not replace a file', async () => {
    await server.close();
    writeFileSync(socketPath, 'precious');
    await expect(serve()).rejects.toThrow(/is no socket/);
    expect(statSync(socketPath).size).toBe(8);
  });

  it('has a path that Linux can hold', async () => {
    await server.close();
    socketPath = join(folder, 'x'.repeat(120));
    await expect(serve()).rejects.toThrow(/at most 107/);
  });
});

describe('routes', () => {
  it.each<[string, string, TSchema]>([
    ['/v1/cluster', 'object', schemas.ClusterStatusSchema],
    ['/v1/hosts', 'list', schemas.HostInfoSchema],
    ['/v1/vms', 'list', schemas.VmInfoSchema],
    ['/v1/vms/web', 'object', schemas.VmDetailSchema],
    ['/v1/recoveries', 'list', schemas.VmRecoverySchema],
  ])('GET %s answers an %s as its schema says', async (path, kind, schema) => {
    manager.add('web');
    const { status, body } = await send('GET', path);
    expect(status).toBe(200);
    const check = compileCheck(schema);
    const values = kind === 'list' ? (body as unknown as unknown[]) : [body];
    expect(values.length).toBeGreaterThan(0);
    for (const value of values) expect(check(value)).toEqual([]);
  });

  it('creates, starts, stops and removes', async () => {
    const created = await post('/v1/vms', { ...good, policy: 'mirror', protected: false, cpus: 2 });
    expect(created.status).toBe(201);
    const placed = { hosts: ['h1', 'h2', 'h3'], objectHosts: { namespace: ['h3', 'h1', 'h2'] } };
    expect((await post('/v1/vms', { ...good, name: 'db', ...placed })).status).toBe(201);
    expect(manager.calls.pop()).toEqual(['createVm', { ...good, name: 'db', ...placed }]);
    expect((await post('/v1/vms/web/start', { on: 'host-2' })).body).toMatchObject({
      host: 'host-2',
    });
    expect((await send('POST', '/v1/vms/web/start')).status).toBe(200);
    expect((await post('/v1/vms/web/stop', { force: true })).status).toBe(200);
    expect((await post('/v1/vms/web/stop', {})).status).toBe(200);
    expect((await send('DELETE', '/v1/vms/web')).status).toBe(200);
    expect(manager.calls).toEqual([
      ['createVm', { ...good, policy: 'mirror', protected: false, cpus: 2 }],
      ['startVm', 'web', { on: 'host-2' }],
      ['startVm', 'web', {}],
      ['stopVm', 'web', { force: true }],
      ['stopVm', 'web', { force: false }],
      ['removeVm', 'web'],
    ]);
  });

  it('makes tokens, where the host can', async () => {
    expect(await createClient([socketPath]).createToken()).toBe('secret');
    const elsewhere = await serveApi({
      socketPath: join(folder, 'other.sock'),
      manager,
      hostCommands: { createToken: () => Promise.reject(new HoldfastError('unauthorized', 'No.')) },
      log: silentLog,
    });
    const sockets = [join(folder, 'none.sock'), elsewhere.socketPath];
    expect(await createClient([...sockets, socketPath]).createToken()).toBe('secret');
    await expect(createClient(sockets).createToken()).rejects.toMatchObject({ message: 'No.' });
    await elsewhere.close();
    token = () => Promise.reject(new HoldfastError('unauthorized', 'Do it on host-1.'));
    expect(await send('POST', '/v1/hosts/tokens')).toMatchObject({
      status: 401,
      body: { code: 'unauthorized', message: 'Do it on host-1.' },
    });
  });
});

describe('bad requests are refused, with the key and what was expected', () => {
  it.each<[string, object, RegExp]>([
    [
      'an unknown key',
      { ...good, protcted: false },
      /unknown key `protcted`: expected one of name, /i,
    ],
    [
      'an unknown key inside',
      { ...good, disks: [{ sizeBytes: 2 ** 28, size: 1 }] },
      /unknown key `disks\[0\]\.size`: expected one of sizeBytes, policy/i,
    ],
    [
      'a missing key',
      { name: 'web', disks: good.disks },
      /missing key `memoryBytes`: expected a whole/i,
    ],
    [
      'a negative size',
      { ...good, memoryBytes: -5 },
      /`memoryBytes` is -5: expected .* from 16777216/,
    ],
    [
      'a negative disk',
      { ...good, disks: [{ sizeBytes: -1 }] },
      /`disks\[0\]\.sizeBytes` is -1: expected a whole number of bytes/,
    ],
    [
      'a disk that is no multiple of a block',
      { ...good, disks: [{ sizeBytes: 2 ** 28 + 1 }] },
      /multiple of 4096/,
    ],
    ['too much memory', { ...good, memoryBytes: limits.maxMemoryBytes + 1 }, /`memoryBytes` is/],
    ['no disk', { ...good, disks: [] }, /`disks` is \[\]: expected a list of 1 to 16 disks/],
    ['a text as number', { ...good, memoryBytes: '134217728' }, /`memoryBytes` is "134217728"/],
    ['half a processor', { ...good, cpus: 0.5 }, /`cpus` is 0.5: expected a whole number from 1/],
    ['a bad name', { ...good, name: 'Web_1' }, /`name` is "Web_1": expected a name of 1 to 63/],
    ['a long name', { ...good, name: 'a'.repeat(64) }, /`name` is/],
    [
      'an unknown policy',
      { ...good, policy: 'gold' },
      /`policy` is "gold": .*default, single, mirror/,
    ],
    [
      'an unknown policy of a disk',
      { ...good, disks: [{ sizeBytes: 2 ** 28, policy: 'toString' }] },
      /`disks\[0\]\.policy` is "toString"/,
    ],
    [
      'an impossible policy',
      { ...good, policy: { failuresToTolerate: 9, stripes: 1 } },
      /`policy` is .*expected the name of a storage policy, or failuresToTolerate \(0 to 3\)/,
    ],
    [
      'a text as hosts',
      { ...good, hosts: 'h1,h2' },
      /`hosts` is "h1,h2": expected a list of hosts/,
    ],
    ['a number as host', { ...good, hosts: ['h1', 2, 'h3'] }, /`hosts\[1\]` is 2: expected string/],
    [
      'a host as hosts of an object',
      { ...good, objectHosts: { disk0: 'h1' } },
      /`objectHosts.disk0` is "h1": expected a list of hosts/,
    ],
    ['a wrong priority', { ...good, priority: 'urgent' }, /expected highest, high, medium/],
  ])('%s', async (_what, body, message) => {
    const answer = await post('/v1/vms', body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'bad-request' } });
    expect(answer.body.message).toMatch(message);
    expect(answer.body.todo).not.toBe('');
    expect(manager.calls).toEqual([]);
  });

  it('names the mistyped key before the missing one, and several at once', async () => {
    const { body } = await post('/v1/vms', { name: 'web', memroyBytes: 1, disks: [], cpus: 0 });
    expect(body.message).toMatch(
      /^Unknown key `memroyBytes`.*missing key `memoryBytes`.*; and 1 more\.$/,
    );
  });

  it('unknown keys of commands', async () => {
    manager.add('web');
    expect((await post('/v1/vms/web/start', { host: 'a' })).body.message).toMatch(
      /unknown key `host`/i,
    );
    expect((await post('/v1/vms/web/stop', { force: 'yes' })).body.message).toMatch(
      /true or false/,
    );
    expect((await post('/v1/hosts/tokens', { n: 1 })).body.message).toMatch(/expected no keys/);
  });

  it('what is no JSON, no object or too large', async () => {
    expect(await send('POST', '/v1/vms', '{"name":')).toMatchObject({ status: 400 });
    expect(await send('POST', '/v1/vms', '[]')).toMatchObject({ status: 400 });
    expect(await send('POST', '/v1/vms', 'null')).toMatchObject({ status: 400 });
    expect(await send('POST', '/v1/vms', 'name=web', 'text/x')).toMatchObject({ status: 415 });
    const large = await send('POST', '/v1/vms', JSON.stringify({ name: 'x'.repeat(300_000) }));
    expect(large).toMatchObject({ status: 413, body: { code: 'bad-request' } });
  });

  it('a route that is not there', async () => {
    expect(await send('GET', '/v1/nothing')).toMatchObject({
      status: 404,
      body: { code: 'bad-request', message: 'There is no GET /v1/nothing in this API.' },
    });
  });
});

describe("the manager's errors", () => {
  it.each([
    ['unknown-vm', 404],
    ['name-in-use', 409],
    ['policy-unsatisfiable', 422],
    ['no-capacity', 507],
    ['inaccessible', 503],
    ['lock-held', 409],
    ['outcome-unknown', 504],
    ['guest-failed', 500],
  ] as const)('%s is status %i', async (code, status) => {
    manager.failure = new HoldfastError(code, 'It is so.');
    const answer = await post('/v1/vms', good);
    expect(answer).toMatchObject({ status, body: { code, message: 'It is so.' } });
    expect(answer.body.todo).not.toBe('');
  });

  it('a name in use', async () => {
    manager.add('web');
    expect(await post('/v1/vms', good)).toMatchObject({
      status: 409,
      body: { code: 'name-in-use' },
    });
  });

  it('an unknown VM, also with a strange name', async () => {
    expect(await send('GET', '/v1/vms/nobody')).toMatchObject({
      status: 404,
      body: { code: 'unknown-vm' },
    });
    await expect(createClient([socketPath]).vm('a/../b?c')).rejects.toMatchObject({
      code: 'unknown-vm',
    });
  });

  it('anything else is internal, and does not end the server', async () => {
    manager.failure = new TypeError('x is undefined');
    expect(await post('/v1/vms', good)).toMatchObject({ status: 500, body: { code: 'internal' } });
    expect((await send('GET', '/v1/hosts')).status).toBe(200);
  });
});

describe('events', () => {
  it('come from the past, then live, and end with the server', async () => {
    manager.happen('one');
    manager.happen('two');
    const texts: string[] = [];
    const lost: string[] = [];
    const stop = new AbortController();
    const client = createClient([socketPath]);
    for await (const event of client.events({
      signal: stop.signal,
      onLost: (reason) => {
        lost.push(reason);
        stop.abort();
      },
    })) {
      texts.push(event.text);
      if (texts.length === 2) manager.happen('three');
      if (texts.length === 3) void server.close();
    }
    expect(texts).toEqual(['one', 'two', 'three']);
    expect(lost).toEqual([`${socketPath}: the host ended the stream`]);
    expect(manager.listeners.size).toBe(0);
  });

  it('go on after the daemon was restarted, none of them twice', async () => {
    manager.happen('one');
    const texts: string[] = [];
    const stop = new AbortController();
    for await (const event of createClient([socketPath]).events({ signal: stop.signal })) {
      texts.push(event.text);
      if (texts.length === 1) {
        await server.close();
        server = await serve();
        manager.happen('two');
      }
      if (texts.length === 2) stop.abort();
    }
    expect(texts).toEqual(['one', 'two']);
  });

  it('forgets a reader that left', async () => {
    const stop = new AbortController();
    const reading = createClient([socketPath]).events({ signal: stop.signal });
    manager.happen('one');
    await reading.next();
    expect(manager.listeners.size).toBe(1);
    stop.abort();
    await reading.next();
    await expect.poll(() => manager.listeners.size).toBe(0);
  });

  it('show signs of life', async () => {
    const text = await new Promise<string>((resolve, reject) => {
      const call = request({ socketPath, path: '/v1/events', agent: false }, (response) => {
        let seen = '';
        expect(response.headers['content-type']).toMatch(/^text\/event-stream/);
        response.on('data', (part) => {
          seen += part;
          if ((seen.match(/^:$/gm) ?? []).length < 3) return;
          call.destroy();
          resolve(seen);
        });
      });
      call.on('error', reject);
      call.end();
    });
    expect(text).toMatch(/^: live$/m);
  });
});

describe('the client', () => {
  it('asks the next host where one is dead or frozen', async () => {
    const frozen = join(folder, 'frozen.sock');
    const silent = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(frozen, resolve));
    const stale = join(folder, 'stale.sock');
    await leaveStaleSocket(stale);
    const missing = join(folder, 'missing.sock');
    const client = createClient([missing, stale, frozen, socketPath], { questionTimeoutMs: 100 });
    expect((await client.cluster()).cluster).toBe('test');
    await client.createVm(good);
    expect(manager.calls).toHaveLength(1);
    silent.close();
  });

  it('says why nobody answers', async () => {
    const client = createClient([join(folder, 'missing.sock')]);
    await expect(client.vms()).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringMatching(/missing\.sock: there is no such socket/),
    });
  });

  it('never sends a command twice: without an answer its outcome is unknown', async () => {
    manager.delayMs = 300;
    const client = createClient([socketPath, socketPath], { commandTimeoutMs: 50 });
    const failed = await client.createVm(good).catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(ApiError);
    expect(failed).toMatchObject({ code: 'outcome-unknown' });
    expect(manager.calls).toHaveLength(1);
  });
});

/** As SIGKILL leaves it: the file is there, nobody listens. */
async function leaveStaleSocket(path: string): Promise<void> {
  const { spawnSync } = await import('node:child_process');
  const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', code]);
}
