// Requests and replies, errors, bounds, and the ends of a connection.

import { expect, test } from 'vitest';
import { HoldfastError } from '../../src/model/errors.ts';
import { connectionBounds } from '../../src/storage/nbd/connection.ts';
import { CMD, DF, enter, FAST_ZERO, FUA, NO_HOLE, parseReplies, requestOf } from './client-wire.ts';
import { FakeStream } from './fake-streams.ts';
import { enterTransmission, serve } from './fixture.ts';
import { MemoryDevice } from './memory-device.ts';

const [EPERM, EIO, EINVAL, ENOSPC, ENOTSUP] = [1, 5, 22, 28, 95];
const MiB = 1024 * 1024;

test('writes, reads, FUA and flush reach the device and are answered with their cookies', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  const data = Buffer.from('sixteen bytes...');
  stream.feed(
    requestOf(CMD.WRITE, { cookie: 1n, offset: 65520, data }),
    requestOf(CMD.WRITE, { cookie: 2n ** 64n - 1n, offset: 3, data, flags: FUA }),
    requestOf(CMD.FLUSH, { cookie: 3n, flags: FUA }),
    requestOf(CMD.READ, { cookie: 4n, offset: 65524, length: 12 }),
  );
  const parsed = parseReplies(replies(), new Map([[4n, 12]]));
  expect(parsed.map(({ cookie, error }) => [cookie, error])).toEqual([
    [1n, 0],
    [2n ** 64n - 1n, 0],
    [3n, 0],
    [4n, 0],
  ]);
  expect(parsed[3]?.data.toString()).toBe('een bytes...');
  expect(fixture.device.calls).toEqual([
    'write 65520 16',
    'write 3 16 fua',
    'flush',
    'read 65524 12',
  ]);
});

const refusals = [
  ['a read beyond the end', requestOf(CMD.READ, { offset: 65536, length: 1 }), EINVAL],
  ['a read across the end', requestOf(CMD.READ, { offset: 65530, length: 7 }), EINVAL],
  ['a read far away', requestOf(CMD.READ, { offset: 2n ** 64n - 1n, length: 1 }), EINVAL],
  ['a read that is too long', requestOf(CMD.READ, { length: 32 * MiB + 1 }), EINVAL],
  ['the longest read', requestOf(CMD.READ, { length: 2 ** 32 - 1 }), EINVAL],
  [
    'a write beyond the end',
    requestOf(CMD.WRITE, { offset: 65535, data: Buffer.alloc(2) }),
    ENOSPC,
  ],
  ['a long write', requestOf(CMD.WRITE, { offset: 1, data: Buffer.alloc(100_000) }), ENOSPC],
  ['a flush of a range', requestOf(CMD.FLUSH, { length: 1 }), EINVAL],
  ['TRIM across the end', requestOf(CMD.TRIM, { offset: 65535, length: 2 }), EINVAL],
  ['the longest TRIM', requestOf(CMD.TRIM, { length: 2 ** 32 - 1 }), EINVAL],
  ['TRIM with a foreign flag', requestOf(CMD.TRIM, { flags: NO_HOLE, length: 1 }), EINVAL],
  ['zeroes beyond the end', requestOf(CMD.WRITE_ZEROES, { offset: 1, length: 65536 }), ENOSPC],
  [
    'zeroes that shall take space, and fast',
    requestOf(CMD.WRITE_ZEROES, { flags: NO_HOLE | FAST_ZERO, length: 4096 }),
    ENOTSUP,
  ],
  ['CACHE', requestOf(CMD.CACHE, { length: 4096 }), EINVAL],
  ['BLOCK_STATUS without its context', requestOf(CMD.BLOCK_STATUS, { length: 4096 }), EINVAL],
  ['an unknown command', requestOf(0xffff), EINVAL],
  ['an unknown flag', requestOf(CMD.READ, { flags: 0x8000, length: 1 }), EINVAL],
  [
    'a write with a foreign flag',
    requestOf(CMD.WRITE, { flags: DF, data: Buffer.alloc(9) }),
    EINVAL,
  ],
] as const;

test.each(refusals)('%s is refused, and the connection goes on', async (_name, request, error) => {
  for (const structured of [false, true]) {
    const fixture = await serve();
    const { stream, replies } = enterTransmission(fixture, { structured });
    stream.feed(request, requestOf(CMD.FLUSH, { cookie: 7n }));
    const parsed = parseReplies(replies(), new Map());
    expect(parsed.map((reply) => [reply.cookie, reply.error])).toEqual([
      [0n, error],
      [7n, 0],
    ]);
    expect(parsed[0]?.structured).toBe(structured);
    expect(fixture.device.calls).toEqual(['flush']);
  }
});

test('a read-only export refuses writes and nothing else', async () => {
  const fixture = await serve({ readOnly: true });
  const { stream, replies } = enterTransmission(fixture);
  const changes = [CMD.TRIM, CMD.WRITE_ZEROES].map((code) => requestOf(code, { length: 512 }));
  stream.feed(requestOf(CMD.WRITE, { data: Buffer.from('no') }), ...changes, requestOf(CMD.FLUSH));
  const errors = parseReplies(replies(), new Map()).map(({ error }) => error);
  expect(errors).toEqual([EPERM, EPERM, EPERM, 0]);
  expect(fixture.device.calls).toEqual(['flush']);
});

test('structured replies: one chunk per read, with its offset; errors carry a sentence', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture, { structured: true });
  fixture.device.bytes.set(Buffer.from('abc'), 512);
  stream.feed(
    requestOf(CMD.READ, { cookie: 1n, offset: 512, length: 3, flags: DF }),
    requestOf(CMD.READ, { cookie: 2n, offset: 512, length: 0 }),
    requestOf(CMD.WRITE, { cookie: 3n }),
  );
  fixture.device.failure = new HoldfastError('disk-error', `no copy — ${'ä'.repeat(2000)}`);
  stream.feed(requestOf(CMD.READ, { cookie: 4n, offset: 0, length: 4096 }));
  const [read, empty, written, failed] = parseReplies(replies(), new Map());
  expect(read).toMatchObject({ cookie: 1n, error: 0, offset: 512n, structured: true });
  expect(read?.data.toString()).toBe('abc');
  expect(empty).toMatchObject({ cookie: 2n, error: 0, structured: true });
  expect(written).toMatchObject({ cookie: 3n, error: 0 });
  expect(failed).toMatchObject({ cookie: 4n, error: EIO });
  expect(failed?.message).toMatch(/^no copy — ä+$/);
});

test('a failing device is said once, and counted when the client leaves', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  fixture.device.failure = new HoldfastError('disk-full', 'no space on host-2');
  for (let turn = 0; turn < 5; turn += 1)
    stream.feed(requestOf(CMD.WRITE, { data: Buffer.alloc(9) }));
  expect(parseReplies(replies(), new Map()).map(({ error }) => error)).toEqual(
    Array<number>(5).fill(ENOSPC),
  );
  expect(fixture.log.of('error')).toHaveLength(1);
  stream.hangUp();
  expect(fixture.log.of('error')[1]).toContain('"failures":5');
});

test('a device that reads the wrong number of bytes fails the read, not the stream', async () => {
  const fixture = await serve();
  fixture.device.read = (_offset, _length, done) => done(null, new Uint8Array(5));
  const { stream, replies } = enterTransmission(fixture);
  stream.feed(requestOf(CMD.READ, { length: 4 }), requestOf(CMD.FLUSH));
  expect(parseReplies(replies(), new Map()).map(({ error }) => error)).toEqual([EIO, 0]);
});

test.each(['stopped', 'fenced'] as const)('a disk that is %s hangs up instead', async (code) => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  fixture.device.holding = true;
  stream.feed(requestOf(CMD.FLUSH), requestOf(CMD.READ, { length: 512 }));
  fixture.device.failure = new HoldfastError(code, 'no longer here');
  fixture.device.release();
  expect(stream.destroyed).toBe(true);
  expect(replies()).toHaveLength(0);
  expect(fixture.log.of('error')).toEqual([]);
});

test('replies go out in the order of completion', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  fixture.device.holding = true;
  for (const cookie of [1n, 2n, 3n]) stream.feed(requestOf(CMD.READ, { cookie, length: 1 }));
  for (const index of [2, 0, 1]) fixture.device.held[index]?.();
  const lengths = new Map([1n, 2n, 3n].map((cookie) => [cookie, 1]));
  expect(parseReplies(replies(), lengths).map(({ cookie }) => cookie)).toEqual([3n, 1n, 2n]);
});

test('small replies of one chunk of input leave in one write, as few chunks', async () => {
  const fixture = await serve();
  const { stream } = enterTransmission(fixture);
  const before = stream.writes;
  stream.feed(Buffer.concat(Array.from({ length: 500 }, () => requestOf(CMD.FLUSH))));
  expect(stream.writes).toBe(before + 1);
});

test('whole writes are passed on uncopied, those in pieces in one buffer', async () => {
  const seen: Uint8Array[] = [];
  const fixture = await serve();
  fixture.device.write = (_offset, bytes, _fua, done) => {
    seen.push(bytes);
    done(null);
  };
  const { stream } = enterTransmission(fixture);
  const request = requestOf(CMD.WRITE, { data: Buffer.alloc(4096, 1) });
  stream.feed(request);
  expect(seen[0]?.buffer).toBe(request.buffer);
  stream.feed(request.subarray(0, 10), request.subarray(10, 1000), request.subarray(1000));
  expect(seen[1]).toEqual(new Uint8Array(4096).fill(1));
  expect(seen[1]?.buffer.byteLength).toBe(4096);
});

test.each([
  ['a wrong request magic', Buffer.alloc(28, 0x5a)],
  ['a write that is too long', requestOf(CMD.WRITE, { length: 32 * MiB + 1 })],
])('%s drops that client alone, with one warning', async (_name, bytes) => {
  const fixture = await serve();
  const other = enterTransmission(fixture);
  const { stream } = enterTransmission(fixture);
  stream.feed(bytes, bytes);
  expect(stream.destroyed).toBe(true);
  expect(fixture.log.of('warn')).toHaveLength(1);
  other.stream.feed(requestOf(CMD.FLUSH, { cookie: 9n }));
  expect(parseReplies(other.replies(), new Map())).toMatchObject([{ cookie: 9n, error: 0 }]);
  expect(fixture.server.connections).toBe(1);
});

test('while the device waits, no more than the bound is taken from a client', async () => {
  const fixture = await serve({ device: new MemoryDevice(64 * MiB) });
  const { stream, replies } = enterTransmission(fixture, { stream: new FakeStream() });
  fixture.device.holding = true;
  const request = requestOf(CMD.WRITE, { data: Buffer.alloc(MiB) });
  let sent = 0;
  for (; sent < 100 && !stream.paused; sent += 1) stream.feed(request);
  expect(fixture.device.held).toHaveLength(connectionBounds.inFlightBytes / MiB);
  expect(sent).toBe(connectionBounds.inFlightBytes / MiB + 1);
  fixture.device.release();
  expect(stream.paused).toBe(false);
  expect(parseReplies(replies(), new Map())).toHaveLength(sent);
});

test('requests without data are bounded by their number', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  fixture.device.holding = true;
  const row = Buffer.concat(Array.from({ length: 3000 }, () => requestOf(CMD.FLUSH)));
  stream.feed(row);
  expect(fixture.device.held).toHaveLength(connectionBounds.inFlightRequests);
  fixture.device.release();
  expect(parseReplies(replies(), new Map())).toHaveLength(3000);
});

test('a client that does not take its answers gets no more of them than the bound', async () => {
  const fixture = await serve({ device: new MemoryDevice(64 * MiB) });
  const { stream, replies } = enterTransmission(fixture, { stream: new FakeStream() });
  stream.slow = true;
  stream.feed(
    Buffer.concat(Array.from({ length: 300 }, () => requestOf(CMD.READ, { length: MiB }))),
  );
  const [before, bound] = [replies().length, connectionBounds.inFlightBytes];
  expect(before).toBeGreaterThanOrEqual(bound);
  expect(before).toBeLessThan(bound + 2 * MiB);
  stream.drain();
  expect(replies().length).toBe(300 * (MiB + 16));
});

test('where a stream can not be paused, a flood drops the client', async () => {
  const fixture = await serve({ device: new MemoryDevice(64 * MiB) });
  const { stream } = enterTransmission(fixture);
  fixture.device.holding = true;
  const request = requestOf(CMD.WRITE, { data: Buffer.alloc(8 * MiB) });
  for (let sent = 0; sent < 20; sent += 1) stream.feed(request);
  expect(stream.destroyed).toBe(true);
  expect(fixture.log.of('warn')).toHaveLength(1);
  fixture.device.release();
  expect(fixture.server.connections).toBe(0);
});

test('a client that goes in the middle of a write has not written', async () => {
  const fixture = await serve();
  const { stream } = enterTransmission(fixture);
  stream.feed(requestOf(CMD.WRITE, { data: Buffer.alloc(4096, 1) }).subarray(0, -1));
  stream.hangUp();
  expect(fixture.device.writes).toBe(0);
  expect(fixture.server.connections).toBe(0);
});

test('results for a client that has gone are dropped', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  fixture.device.holding = true;
  stream.feed(requestOf(CMD.READ, { length: 4096 }), requestOf(CMD.FLUSH));
  stream.hangUp();
  fixture.device.release();
  expect(replies()).toHaveLength(0);
});

test('NBD_CMD_DISC: what is under way is answered, then the stream ends', async () => {
  const fixture = await serve();
  const { stream, replies } = enterTransmission(fixture);
  fixture.device.holding = true;
  stream.feed(requestOf(CMD.WRITE, { data: Buffer.from('kept') }), requestOf(CMD.DISC));
  stream.feed(requestOf(CMD.WRITE, { data: Buffer.from('late') }));
  expect(stream.ended).toBe(false);
  fixture.device.release();
  expect(stream.ended).toBe(true);
  stream.drain();
  expect(parseReplies(replies(), new Map())).toHaveLength(1);
  expect(fixture.device.writes).toBe(1);
  stream.events?.closed();
  expect(fixture.server.connections).toBe(0);
});

test('close: clients are hung up on, and nothing reaches the device any more', async () => {
  const fixture = await serve();
  const { stream } = enterTransmission(fixture);
  fixture.device.holding = true;
  stream.feed(requestOf(CMD.FLUSH));
  const closed = fixture.server.close();
  stream.events?.data(requestOf(CMD.WRITE, { data: Buffer.alloc(9) }));
  expect(stream.destroyed).toBe(true);
  expect(fixture.streams.connect().destroyed).toBe(true);
  await closed;
  await fixture.server.close();
  fixture.device.release();
  expect(fixture.device.writes).toBe(0);
  expect(fixture.streams.listening).toBe(false);
});

test('too many clients: the rest is turned away, and let in when there is room', async () => {
  const { streams, server, log } = await serve();
  const streamsOpen = Array.from({ length: 70 }, () =>
    streams.connect(new FakeStream()).feed(enter()),
  );
  expect(server.connections).toBe(64);
  expect(log.of('warn')).toHaveLength(1);
  streamsOpen[0]?.hangUp();
  const late = streams.connect(new FakeStream()).feed(enter());
  expect(late.destroyed).toBe(false);
});
