// The QMP client against a server that says what a broken, slow or hostile QEMU might say.

import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { createClock } from '../../src/platform/clock.ts';
import type { Log } from '../../src/ports/log.ts';
import { QmpClient, type QmpObject } from '../../src/qemu/qmp.ts';
import { removeFolders, tempFolder, until } from './support.ts';

const clock = createClock();
const warnings: string[] = [];
const log: Log = {
  debug() {},
  info() {},
  warn: (message) => void warnings.push(message),
  error() {},
  child: () => log,
};

let path = '';
let server: Server;
let peer: Socket | null = null;
const asked: { execute: string; id: number; arguments: unknown }[] = [];
/** What the server answers; the default returns nothing. */
let answer: (request: { execute: string; id: number }) => string = () => '';
let greeting = '';
const events: [string, QmpObject][] = [];
let connections = 0;
let closings = 0;

const ok = (request: { id: number }, value: unknown = {}): string =>
  `${JSON.stringify({ return: value, id: request.id })}\r\n`;

beforeEach(async () => {
  path = join(tempFolder(), 'qmp.sock');
  greeting = '{"QMP": {"version": {}, "capabilities": []}}\r\n';
  answer = (request) => ok(request);
  asked.length = 0;
  events.length = 0;
  warnings.length = 0;
  connections = 0;
  closings = 0;
  server = createServer((socket) => {
    peer = socket;
    socket.on('error', () => {});
    socket.write(greeting);
    socket.on('data', (bytes) => {
      for (const line of bytes.toString().trim().split('\n')) {
        const request = JSON.parse(line);
        asked.push(request);
        socket.write(answer(request));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterEach(async () => {
  peer?.destroy();
  await new Promise((resolve) => server.close(resolve));
  await until(() => closings >= connections);
});
afterAll(removeFolders);

async function connect(timeoutMs?: number): Promise<QmpClient> {
  const client = await QmpClient.connect(
    path,
    { clock, log, ...(timeoutMs === undefined ? {} : { timeoutMs }) },
    {
      event: (name, data) => void events.push([name, data]),
      closed: () => {
        closings += 1;
      },
    },
  );
  connections += 1;
  return client;
}

test('negotiates, asks, and hears events in between', async () => {
  const qmp = await connect();
  answer = (request) =>
    `{"event": "STOP", "timestamp": {}}\r\n${ok(request, { running: false })}{"event": "RESET", "data": {"guest": true}}\r\n`;
  expect(await qmp.execute('query-status')).toEqual({ running: false });
  await until(() => events.length === 2);
  expect(events).toEqual([
    ['STOP', {}],
    ['RESET', { guest: true }],
  ]);
  expect(asked.map((request) => request.execute)).toEqual(['qmp_capabilities', 'query-status']);
  qmp.close();
});

test('a refusal says which command and why', async () => {
  const qmp = await connect();
  answer = (request) =>
    `${JSON.stringify({ error: { class: 'GenericError', desc: 'no such thing' }, id: request.id })}\n`;
  await expect(qmp.execute('eject')).rejects.toMatchObject({
    code: 'guest-failed',
    message: 'QEMU refused eject: no such thing',
  });
});

test('malformed lines are skipped and never crash', async () => {
  const qmp = await connect();
  const rubbish = [
    '',
    '{',
    'null',
    '[]',
    '"text"',
    '7',
    '{}',
    '{"return": 1}',
    '{"id": 99, "return": {}}',
  ];
  rubbish.push(
    '{"event": 5}',
    '{"error": null, "id": "x"}',
    '\u0000\u0001',
    '{"event": "X", "data": [1]}',
  );
  answer = (request) => `${rubbish.join('\n')}\n${ok(request, 'fine')}`;
  expect(await qmp.execute('query-name')).toBe('fine');
  expect(events).toEqual([['X', {}]]);
  expect(warnings.length).toBeGreaterThan(0);
});

test('an error without a reason still rejects', async () => {
  const qmp = await connect();
  answer = (request) => `{"error": null, "id": ${request.id}}\n`;
  await expect(qmp.execute('stop')).rejects.toMatchObject({ code: 'guest-failed' });
});

test('an answer that comes too late is dropped, and later requests get their own', async () => {
  const qmp = await connect();
  let late = '';
  answer = (request) => {
    late = ok(request, 'late');
    return '';
  };
  await expect(qmp.execute('stop', {}, 30)).rejects.toMatchObject({ code: 'timeout' });
  answer = (request) => late + ok(request, 'mine');
  expect(await qmp.execute('cont')).toBe('mine');
});

test('a line without end is not kept', async () => {
  const qmp = await connect();
  answer = (request) => `${'x'.repeat(5 * 2 ** 20)}\n${ok(request, 'after it')}`;
  expect(await qmp.execute('query-name')).toBe('after it');
});

test('requests fail when QEMU goes away, and it is told once', async () => {
  const qmp = await connect();
  answer = () => {
    peer?.destroy();
    return '';
  };
  await expect(qmp.execute('quit')).rejects.toMatchObject({ code: 'outcome-unknown' });
  await expect(qmp.execute('stop')).rejects.toMatchObject({ code: 'unreachable' });
  expect(closings).toBe(1);
});

test('a server that does not greet, or does not negotiate, is given up', async () => {
  greeting = '';
  await expect(connect(30)).rejects.toMatchObject({ code: 'timeout' });
  greeting = '{"QMP": {}}\n';
  answer = () => '';
  await expect(connect(30)).rejects.toMatchObject({ code: 'timeout' });
  greeting = 'rubbish\n';
  await expect(connect(30)).rejects.toMatchObject({ code: 'timeout' });
  expect(closings).toBe(0);
});

test('nobody there is said at once', async () => {
  await expect(
    QmpClient.connect(`${path}.none`, { clock, log }, { event() {}, closed() {} }),
  ).rejects.toMatchObject({ code: 'unreachable' });
});
