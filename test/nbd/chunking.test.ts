// Whatever a client says, however it is cut into chunks, and in whatever order the device answers.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  CMD,
  clientFlags,
  enter,
  FUA,
  goData,
  OPT,
  optionOf,
  parseReplies,
  requestOf,
  u32,
} from './client-wire.ts';
import { FakeStream } from './fake-streams.ts';
import { enterTransmission, serve } from './fixture.ts';

const SIZE = 64 * 1024;

/** All that can be seen of a session from outside. */
async function session(chunks: readonly Uint8Array[]) {
  const { streams, device, log, server } = await serve({ sizeBytes: SIZE });
  const stream = streams.connect().feed(...chunks);
  return {
    output: stream.output.toString('hex'),
    ended: stream.ended,
    destroyed: stream.destroyed,
    calls: device.calls,
    content: Buffer.from(device.bytes).toString('hex'),
    warnings: log.of('warn').length,
    connections: server.connections,
  };
}

function cut(bytes: Uint8Array, at: readonly number[]): Uint8Array[] {
  const places = [...new Set([0, ...at.map((place) => place % bytes.length), bytes.length])];
  places.sort((a, b) => a - b);
  return places.slice(1).map((end, index) => bytes.slice(places[index], end));
}

const optionArbitrary = fc.oneof(
  fc.constantFrom(optionOf(OPT.LIST), optionOf(OPT.STRUCTURED_REPLY), optionOf(OPT.STARTTLS)),
  fc.constantFrom('', 'disk0', 'x').map((name) => optionOf(OPT.INFO, goData(name, [3]))),
  fc
    .tuple(fc.nat(12), fc.uint8Array({ maxLength: 40 }))
    .filter(([code]) => code !== OPT.EXPORT_NAME && code !== OPT.ABORT && code !== OPT.GO)
    .map(([code, data]) => optionOf(code, data)),
  fc.constant(optionOf(OPT.GO, Buffer.alloc(17_000))),
);

const requestArbitrary = fc
  .record({
    command: fc.oneof({ weight: 8, arbitrary: fc.constantFrom(0, 1, 1, 3) }, fc.nat(9)),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    offset: fc.oneof(
      { weight: 8, arbitrary: fc.nat(SIZE) },
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    ),
    data: fc.uint8Array({ maxLength: 300 }),
    flags: fc.constantFrom(0, 0, 0, FUA, 4, 2),
    length: fc.nat(2000),
  })
  .filter(({ command }) => command !== CMD.DISC)
  .map(({ command, data, length, offset, ...rest }) => {
    if (command === CMD.WRITE) return requestOf(command, { ...rest, offset, data });
    if (command === CMD.FLUSH) return requestOf(command, rest);
    return requestOf(command, { ...rest, offset, length });
  });

const endings = fc.constantFrom(
  Buffer.alloc(0),
  requestOf(CMD.DISC),
  Buffer.concat([requestOf(CMD.DISC), requestOf(CMD.FLUSH)]),
  Buffer.alloc(40, 0xee),
  requestOf(CMD.WRITE, { length: 2 ** 31 }),
  requestOf(CMD.WRITE, { data: Buffer.alloc(100) }).subarray(0, 77),
);

const sayings = fc
  .tuple(
    fc.array(optionArbitrary, { maxLength: 4 }),
    fc.constantFrom(optionOf(OPT.GO, goData('')), optionOf(OPT.EXPORT_NAME, Buffer.from('disk0'))),
    fc.array(requestArbitrary, { maxLength: 12 }),
    endings,
  )
  .map(([options, choice, requests, ending]) =>
    Buffer.concat([clientFlags(), ...options, choice, ...requests, ending]),
  );

test('the result does not depend on how the bytes were cut', async () => {
  await fc.assert(
    fc.asyncProperty(sayings, fc.array(fc.nat(), { maxLength: 30 }), async (bytes, places) => {
      expect(await session(cut(bytes, places))).toEqual(await session([bytes]));
    }),
    { numRuns: 400 },
  );
});

test('cut at every single byte, and byte by byte', async () => {
  const bytes = Buffer.concat([
    clientFlags(),
    optionOf(OPT.STRUCTURED_REPLY),
    optionOf(OPT.GO, goData('disk0', [3])),
    requestOf(CMD.WRITE, { cookie: 1n, offset: 100, data: Buffer.from('some bytes'), flags: FUA }),
    requestOf(CMD.WRITE, { cookie: 2n, offset: SIZE, data: Buffer.from('refused') }),
    requestOf(CMD.READ, { cookie: 3n, offset: 96, length: 20 }),
    requestOf(CMD.FLUSH, { cookie: 4n }),
    requestOf(CMD.DISC),
  ]);
  const whole = await session([bytes]);
  expect(whole.calls).toEqual(['write 100 10 fua', 'read 96 20', 'flush']);
  for (let place = 1; place < bytes.length; place += 1) {
    expect(await session([bytes.subarray(0, place), bytes.subarray(place)])).toEqual(whole);
  }
  expect(await session([...bytes].map((byte) => Uint8Array.of(byte)))).toEqual(whole);
});

const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 400 }),
  fc.uint8Array({ maxLength: 400 }).map((tail) => Buffer.concat([clientFlags(), tail])),
  fc
    .tuple(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ maxLength: 400 }))
    .map(([code, data]) => Buffer.concat([clientFlags(), Buffer.from('IHAVEOPT'), code, data])),
  fc
    .tuple(fc.boolean(), fc.uint8Array({ maxLength: 400 }))
    .map(([structured, tail]) => Buffer.concat([enter('', { structured }), tail])),
  fc.uint8Array({ maxLength: 400 }).map((tail) => Buffer.concat([enter(), u32(0x25609513), tail])),
  // A well-meant session with some bytes changed.
  fc
    .tuple(sayings, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }))
    .map(([bytes, changes]) => {
      const changed = Buffer.from(bytes);
      for (const [place, value] of changes) changed[place % changed.length] = value;
      return changed;
    }),
);

test('hostile bytes neither throw nor harm the others', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(hostile, { maxLength: 5 }), fc.array(fc.nat()), async (peers, at) => {
      const fixture = await serve({ sizeBytes: SIZE });
      const good = enterTransmission(fixture);
      for (const bytes of peers) {
        const stream = fixture.streams.connect(new FakeStream());
        if (bytes.length > 0) stream.feed(...cut(bytes, at));
        expect(stream.outputBytes).toBeLessThan(8 * 1024 * 1024);
      }
      expect(fixture.log.of('warn').length).toBeLessThanOrEqual(peers.length);
      const data = Buffer.from('still served');
      good.stream.feed(requestOf(CMD.WRITE, { cookie: 1n, offset: 8, data }));
      good.stream.feed(requestOf(CMD.READ, { cookie: 2n, offset: 8, length: data.length }));
      const replies = parseReplies(good.replies(), new Map([[2n, data.length]]));
      expect(replies.map(({ error }) => error)).toEqual([0, 0]);
      expect(replies[1]?.data).toEqual(data);
    }),
    { numRuns: 400 },
  );
});

test('in whatever order the device answers, each request gets its own answer', async () => {
  const step = fc.record({
    slot: fc.nat(31),
    write: fc.boolean(),
    fill: fc.integer({ min: 1, max: 255 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 32 }),
      fc.array(fc.nat(), { minLength: 32, maxLength: 32 }),
      fc.boolean(),
      async (steps, order, structured) => {
        const fixture = await serve({ sizeBytes: SIZE });
        const { stream, replies } = enterTransmission(fixture, { structured });
        const { device } = fixture;
        device.holding = true;
        for (let slot = 0; slot < 32; slot += 1)
          device.bytes.fill(slot, slot * 512, slot * 512 + 512);
        const lengths = new Map<bigint, number>();
        // A slot is used once at most, so that no request overlaps another.
        const unique = [...new Map(steps.map((entry) => [entry.slot, entry])).values()];
        for (const { slot, write, fill } of unique) {
          const fields = { cookie: BigInt(slot), offset: slot * 512 };
          if (!write) lengths.set(BigInt(slot), slot + 1);
          stream.feed(
            write
              ? requestOf(CMD.WRITE, { ...fields, data: Buffer.alloc(512, fill) })
              : requestOf(CMD.READ, { ...fields, length: slot + 1 }),
          );
        }
        for (const choice of order) {
          if (device.held.length === 0) break;
          device.held.splice(choice % device.held.length, 1)[0]?.();
        }
        const parsed = parseReplies(replies(), lengths);
        expect(parsed.length).toBe(unique.length);
        for (const { slot, write, fill } of unique) {
          const answer = parsed.find(({ cookie }) => cookie === BigInt(slot));
          expect(answer?.error).toBe(0);
          expect(answer?.data).toEqual(Buffer.alloc(write ? 0 : slot + 1, slot));
          expect(device.bytes[slot * 512 + 511]).toBe(write ? fill : slot);
        }
      },
    ),
    { numRuns: 200 },
  );
});
