// The client of the QEMU guest agent, with agents that are nothing but the test's word, on virtual time.

import { existsSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { GuestAgent } from '../../src/qemu/guest-agent.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { tempFolder, until } from './support.ts';

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

async function bench() {
  const path = join(tempFolder(), 'agent.sock');
  const clock = new VirtualClock();
  const asked: { execute: string; arguments?: { id: number } }[] = [];
  const guest = { runs: true, answers: true, stale: '', chatter: '' };
  let connections = 0;
  let unread = () => 0;
  let answered = 0;
  const server: Server = createServer((client: Socket) => {
    connections += 1;
    client.write(guest.stale);
    unread = () => client.writableLength;
    client.on('error', () => {});
    client.on('data', (bytes) => {
      for (const line of bytes.toString().split('\n').filter(Boolean)) {
        const question = JSON.parse(line);
        asked.push(question);
        if (!guest.answers) continue;
        client.write(`{"return": ${question.arguments?.id ?? '{}'}}\n${guest.chatter}`);
      }
    });
  }).listen(path);
  await until(() => existsSync(path));
  const agent = new GuestAgent({
    ...{ path, clock, isRunning: () => guest.runs },
    onAnswer: () => {
      answered += 1;
    },
  });
  agent.start();
  ends.push(() => {
    agent.stop();
    server.close();
  });
  /** Virtual time passes; what it sets off comes through real sockets. */
  const go = async (ms: number) => {
    for (let gone = 0; gone < ms; gone += 1000) {
      clock.advance(1000);
      for (let turns = 0; turns < 20; turns += 1) await turn();
    }
  };
  return {
    ...{ agent, asked, guest, go },
    answers: () => answered,
    connections: () => connections,
    unread: () => unread(),
  };
}

test('is brought in step first, then asked each five seconds', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  await it.go(20_000);
  expect(it.asked.map(({ execute }) => execute)).toEqual([
    'guest-sync',
    ...Array.from({ length: 4 }, () => 'guest-ping'),
  ]);
  expect([it.answers(), it.connections()]).toEqual([5, 1]);
});

test('what was said to an earlier connection, or is no answer, is no sign', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  it.guest.stale = '{"return": {}}\n{"return": 77}\nnull\nhello\n';
  it.guest.answers = false;
  await it.go(60_000);
  expect(it.connections()).toBeGreaterThan(1);
  expect(it.answers()).toBe(1);
});

test('one that does not answer is asked one thing at a time, and answers again when it can', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  it.guest.answers = false;
  await it.go(100_000);
  expect(it.asked.length).toBeLessThanOrEqual(2 + 100 / 15);
  expect(it.answers()).toBe(1);
  it.guest.answers = true;
  await it.go(30_000);
  expect(it.answers()).toBeGreaterThan(2);
});

test('one whose guest stands is not asked, and keeps its connection', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  it.guest.runs = false;
  await it.go(60_000);
  expect([it.asked.length, it.connections()]).toEqual([1, 1]);
  it.guest.runs = true;
  await it.go(10_000);
  expect(it.answers()).toBeGreaterThan(1);
});

test('a guest that says more than it is asked for is not listened to', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  it.guest.chatter = '{"return": {}}\n'.repeat(100_000);
  await it.go(30_000);
  expect(it.answers()).toBeGreaterThan(3);
  expect(it.answers()).toBeLessThanOrEqual(it.asked.length);
  expect(it.unread()).toBeGreaterThan(0);
});

test('nor one that says much and never answers', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  it.guest.stale = 'x\n'.repeat(5_000_000);
  it.guest.answers = false;
  await it.go(22_000);
  expect([it.connections(), it.answers()]).toEqual([2, 1]);
  expect(it.unread()).toBeGreaterThan(0);
});

test('is asked nothing any more after the end', async () => {
  const it = await bench();
  await until(() => it.answers() === 1);
  it.agent.stop();
  await it.go(60_000);
  expect([it.asked.length, it.connections()]).toEqual([1, 1]);
});
