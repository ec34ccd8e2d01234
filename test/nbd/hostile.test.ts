// Clients that are broken or mean harm, by chance: whatever they send and whenever they go, a well-behaved
// client beside them is served as if it were alone, and what they make the host hold stays bounded.
// And the promise made to several connections of one client: a flush on one covers the others.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { HoldfastError } from '../../src/model/errors.ts';
import { connectionBounds } from '../../src/storage/nbd/connection.ts';
import { maxUnsentBytes } from '../../src/storage/nbd/server.ts';
import { CMD, enter, OPT, optionOf, parseReplies, requestOf, u32 } from './client-wire.ts';
import { FakeStream } from './fake-streams.ts';
import { enterTransmission, type Fixture, serve } from './fixture.ts';
import { MemoryDevice } from './memory-device.ts';

const sizeBytes = 256 * 1024;
/** The neighbour's part of the disk, which no hostile request below names. */
const own = { offset: 128 * 1024, length: 64 * 1024 };

const length = fc.oneof(
  fc.nat(5000),
  fc.constantFrom(0, 2 ** 25, 2 ** 25 + 1, 2 ** 31, 2 ** 32 - 1),
);
const command = fc.oneof(fc.nat(8), fc.nat(0xffff));
/** Says that it is longer than it is, wants what is not there, or asks for anything at all. */
const request = fc
  .record({
    command,
    length,
    flags: fc.oneof(fc.constant(0), fc.nat(31), fc.nat(0xffff)),
    offset: fc.oneof(fc.nat(60_000), fc.bigInt(BigInt(sizeBytes) - 5n, 2n ** 64n - 1n)),
    data: fc.uint8Array({ maxLength: 300 }),
  })
  // What might reach into the neighbour's part is no test of the server.
  .map(({ command: code, ...fields }) =>
    requestOf(code, {
      ...fields,
      length: Number(fields.offset) < sizeBytes ? Math.min(fields.length, 60_000) : fields.length,
    }),
  );
const option = fc
  .tuple(
    fc.oneof(fc.nat(11), fc.nat(2 ** 31)),
    fc.uint8Array({ maxLength: 80 }),
    fc.boolean(),
    length,
  )
  .map(([code, data, honest, claimed]) =>
    honest
      ? optionOf(code, data)
      : Buffer.concat([Buffer.from('IHAVEOPT'), u32(code), u32(claimed), data]),
  );
const noise = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
const opening = fc.oneof(
  fc.constant(enter('disk0', { allocation: true })),
  fc.constant(enter()),
  fc.constant(u32(3)),
  noise,
);
const hostile = fc.record({
  bytes: fc
    .tuple(opening, fc.array(fc.oneof({ weight: 4, arbitrary: request }, option, noise)))
    .map(([start, rest]) => Buffer.concat([start, ...rest])),
  /** Sizes of the pieces in which it comes. */
  cuts: fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 20 }),
  slow: fc.boolean(),
  /** It goes after so many pieces. */
  goesAfter: fc.nat(60),
  holding: fc.boolean(),
});

/** The neighbour writes a pattern, reads it back and flushes. */
function neighbourIsServed(fixture: Fixture, seed: number): void {
  const { stream, replies } = enterTransmission(fixture);
  const data = Buffer.alloc(own.length, seed % 256);
  stream.feed(
    requestOf(CMD.WRITE, { cookie: 1n, offset: own.offset, data }),
    requestOf(CMD.READ, { cookie: 2n, ...own }),
    requestOf(CMD.FLUSH, { cookie: 3n }),
  );
  const parsed = parseReplies(replies(), new Map([[2n, own.length]]));
  expect(parsed.map(({ cookie, error }) => [cookie, error])).toEqual(
    [1n, 2n, 3n].map((c) => [c, 0]),
  );
  expect(parsed[1]?.data.equals(data)).toBe(true);
  stream.hangUp();
}

test('whatever clients send and whenever they go, a neighbour is served', async () => {
  const device = new MemoryDevice(sizeBytes, { record: false });
  const fixture = await serve({ device });
  let seed = 0;
  fc.assert(
    fc.property(fc.array(hostile, { minLength: 1, maxLength: 3 }), (clients) => {
      seed += 1;
      for (const { bytes, cuts, slow, goesAfter, holding } of clients) {
        device.holding = holding;
        const stream = fixture.streams.connect(new FakeStream());
        stream.slow = slow;
        for (let at = 0, piece = 0; at < bytes.length && piece < goesAfter; piece += 1) {
          const next = at + (cuts[piece % cuts.length] as number);
          stream.feed(bytes.subarray(at, next));
          at = next;
        }
        expect(device.held.length).toBeLessThanOrEqual(connectionBounds.inFlightRequests);
        expect(stream.outputBytes).toBeLessThan(2 * connectionBounds.inFlightBytes);
        // Gone in the middle of what is under way, or cut off by the server before.
        if (!stream.destroyed) stream.hangUp();
        else stream.events?.closed();
        device.release();
      }
      neighbourIsServed(fixture, seed);
      expect(fixture.server.connections).toBe(0);
    }),
    { numRuns: 500 },
  );
});

test('a truncated handshake leaves nothing behind, wherever it is cut', async () => {
  const whole = enter('disk0', { allocation: true });
  const fixture = await serve({ device: new MemoryDevice(sizeBytes, { record: false }) });
  for (let cut = 0; cut < whole.length; cut += 1) {
    const stream = fixture.streams.connect(new FakeStream()).feed(whole.subarray(0, cut));
    expect(stream.destroyed).toBe(false);
    stream.hangUp();
  }
  expect(fixture.server.connections).toBe(0);
  neighbourIsServed(fixture, 1);
});

test('a client that never reads, on many connections, does not hold up a neighbour', async () => {
  const device = new MemoryDevice(sizeBytes, { record: false });
  device.bytes.fill(1);
  const fixture = await serve({ device });
  const row = Buffer.concat(
    Array.from({ length: 400 }, () => requestOf(CMD.READ, { length: sizeBytes })),
  );
  const streams = Array.from({ length: 4 }, () => {
    const { stream } = enterTransmission(fixture, { structured: true, stream: new FakeStream() });
    stream.slow = true;
    return stream.feed(row);
  });
  for (const stream of streams) {
    expect(stream.outputBytes).toBeLessThan(connectionBounds.inFlightBytes + sizeBytes * 2);
  }
  neighbourIsServed(fixture, 5);
});

test('clients that do not get through their handshakes make room for one that does', async () => {
  const { streams, server } = await serve();
  const idle = Array.from({ length: 500 }, () => streams.connect(new FakeStream()).feed(u32(3)));
  expect(server.connections).toBe(64);
  const entered = streams.connect(new FakeStream()).feed(enter());
  expect(entered.destroyed).toBe(false);
  for (let more = 0; more < 100; more += 1) idle.push(streams.connect(new FakeStream()));
  expect(entered.destroyed).toBe(false);
  expect(idle.filter((stream) => !stream.destroyed)).toHaveLength(63);
});

test('clients that take nothing make the host hold so much, and then the worst has to go', async () => {
  const bytes = 32 * 1024 * 1024;
  const device = new MemoryDevice(bytes, { record: false });
  const fixture = await serve({ device });
  const read = requestOf(CMD.READ, { length: bytes });
  const clients = Array.from({ length: 40 }, () => {
    const { stream } = enterTransmission(fixture, { stream: new FakeStream() });
    stream.slow = true;
    return stream;
  });
  for (const stream of clients) stream.feed(read);
  const held = () => clients.filter((stream) => !stream.destroyed).length * bytes;
  expect(held()).toBeLessThanOrEqual(maxUnsentBytes);
  expect(held()).toBeGreaterThan(maxUnsentBytes / 2);
  neighbourIsServed(fixture, 5);
});

test('an option that announces 4 GiB costs its client the connection', async () => {
  const fixture = await serve();
  const stream = fixture.streams.connect(new FakeStream());
  stream.feed(u32(3), Buffer.from('IHAVEOPT'), u32(OPT.SET_META_CONTEXT), u32(2 ** 32 - 1));
  expect(stream.destroyed).toBe(true);
});

/** Answers in any order, and loses what was not flushed when the power goes. A flush saves what had
 * been answered when it came: less than that no device may save. */
class ForgetfulDevice extends MemoryDevice {
  readonly durable: Uint8Array;
  readonly waiting: (() => void)[] = [];
  #answered: [number, Uint8Array][] = [];

  constructor() {
    super(16, { record: false });
    this.durable = new Uint8Array(16);
  }

  override write(
    offset: number,
    bytes: Uint8Array,
    _fua: boolean,
    done: (error: HoldfastError | null) => void,
  ): void {
    const kept = bytes.slice();
    this.waiting.push(() => {
      this.#answered.push([offset, kept]);
      done(null);
    });
  }

  override flush(done: (error: HoldfastError | null) => void): void {
    const covered = [...this.#answered];
    this.waiting.push(() => {
      for (const [offset, bytes] of covered) this.durable.set(bytes, offset);
      done(null);
    });
  }
}

test('multi-conn: a flush on any connection covers what was answered on all of them', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), connection: fc.nat(3), at: fc.nat(15) }),
    fc.record({ kind: fc.constant('flush' as const), connection: fc.nat(3) }),
    fc.record({ kind: fc.constant('answer' as const), which: fc.nat(99) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const device = new ForgetfulDevice();
      const fixture = await serve({ device });
      const clients = [0, 1, 2, 3].map(() => enterTransmission(fixture));
      /** By place of the disk, the last value of which a client has the answer. */
      const answered = new Map<number, number>();
      const promised = new Map<number, Map<number, number>>();
      const writes = new Map<number, { at: number; value: number }>();
      let cookie = 0;
      const seen = new Set<string>();
      const listen = () => {
        clients.forEach(({ replies }, connection) => {
          for (const reply of parseReplies(replies(), new Map())) {
            const number = Number(reply.cookie);
            if (seen.has(`${connection} ${number}`)) continue;
            seen.add(`${connection} ${number}`);
            const write = writes.get(number);
            if (write !== undefined) answered.set(write.at, write.value);
            // The flush is answered: what it promised has to survive from now on.
            for (const [at, value] of promised.get(number) ?? []) {
              expect(device.durable[at]).toBeGreaterThanOrEqual(value);
            }
          }
        });
      };
      for (const one of steps) {
        cookie += 1;
        if (one.kind === 'answer') {
          const [answer] = device.waiting.splice(one.which % Math.max(1, device.waiting.length), 1);
          answer?.();
        } else if (one.kind === 'flush') {
          promised.set(cookie, new Map(answered));
          clients[one.connection]?.stream.feed(requestOf(CMD.FLUSH, { cookie: BigInt(cookie) }));
        } else if (![...writes.values()].some(({ at }) => at === one.at)) {
          // Each place once: which of two writes under way comes last is nobody's promise.
          writes.set(cookie, { at: one.at, value: cookie });
          const data = Uint8Array.of(cookie);
          const fields = { cookie: BigInt(cookie), offset: one.at, data };
          clients[one.connection]?.stream.feed(requestOf(CMD.WRITE, fields));
        }
        listen();
      }
      for (const answer of device.waiting.splice(0)) answer();
      listen();
      await fixture.server.close();
    }),
    { numRuns: 200 },
  );
});
