// Zeros on the wire: TRIM, WRITE_ZEROES, block status by `base:allocation`, and reads whose zeros are
// told and not sent.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HoldfastError } from '../../src/model/errors.ts';
import {
  CMD,
  clientFlags,
  contextData,
  DF,
  enter,
  FAST_ZERO,
  FUA,
  goData,
  NO_HOLE,
  OPT,
  optionOf,
  parseReplies,
  REQ_ONE,
  type Reply,
  requestOf,
} from './client-wire.ts';
import { enterTransmission, type Fixture, serve } from './fixture.ts';
import { MemoryDevice } from './memory-device.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const grain = 64 * KiB;
const HOLE_AND_ZERO = 3;
const EINVAL = 22;

function ask(fixture: Fixture, ...requests: Buffer[]): Reply[] {
  const { stream, replies } = enterTransmission(fixture, { allocation: true });
  stream.feed(...requests);
  stream.hangUp();
  return parseReplies(replies(), new Map());
}

test('TRIM and WRITE_ZEROES reach the device with what they ask for', async () => {
  const fixture = await serve();
  fixture.device.bytes.fill(7);
  const replies = ask(
    fixture,
    requestOf(CMD.TRIM, { cookie: 1n, offset: 100, length: 9 }),
    requestOf(CMD.TRIM, { cookie: 2n, offset: 0, length: 4096, flags: FUA }),
    requestOf(CMD.WRITE_ZEROES, { cookie: 3n, offset: 8192, length: 5 }),
    requestOf(CMD.WRITE_ZEROES, { cookie: 4n, offset: 8192, length: 5, flags: NO_HOLE | FUA }),
    requestOf(CMD.WRITE_ZEROES, { cookie: 5n, offset: 8192, length: 5, flags: FAST_ZERO }),
    requestOf(CMD.WRITE_ZEROES, { cookie: 6n, offset: 65536, length: 0 }),
  );
  expect(replies.map(({ error }) => error)).toEqual([0, 0, 0, 0, 0, 0]);
  expect(fixture.device.calls).toEqual([
    'zero 100 9 unmap',
    'zero 0 4096 unmap fua',
    'zero 8192 5 unmap',
    'zero 8192 5 fua',
    'zero 8192 5 unmap',
  ]);
  expect(fixture.device.bytes.indexOf(7)).toBe(4096);
});

test('a range longer than any read or write is zeroed in one request', async () => {
  const fixture = await serve({ device: new MemoryDevice(80 * MiB) });
  const [reply] = ask(fixture, requestOf(CMD.WRITE_ZEROES, { length: 80 * MiB }));
  expect(reply).toMatchObject({ error: 0 });
});

test('a disk that keeps its space is not trimmed, and zeroed only by writing', async () => {
  const device = new MemoryDevice(64 * KiB);
  device.canUnmap = false;
  const fixture = await serve({ device });
  const replies = ask(
    fixture,
    requestOf(CMD.TRIM, { length: 512 }),
    requestOf(CMD.WRITE_ZEROES, { length: 512, flags: FAST_ZERO }),
    requestOf(CMD.WRITE_ZEROES, { length: 512 }),
  );
  expect(replies.map(({ error }) => error)).toEqual([EINVAL, 95, 0]);
});

test('a failing device fails the zeroing', async () => {
  const fixture = await serve();
  fixture.device.failure = new HoldfastError('disk-full', 'no space on host-2');
  const replies = ask(fixture, requestOf(CMD.WRITE_ZEROES, { length: 512, flags: NO_HOLE }));
  expect(replies).toMatchObject([{ error: 28 }]);
});

test('block status tells what is data: all of it, one extent, or as far as it has looked', async () => {
  const fixture = await serve({ device: new MemoryDevice(24 * MiB) });
  fixture.device.bytes[3 * grain + 5] = 1;
  const all = requestOf(CMD.BLOCK_STATUS, { length: 24 * MiB });
  const rest = 8 * MiB - 4 * grain;
  const [whole, one, odd, none] = ask(
    fixture,
    all,
    requestOf(CMD.BLOCK_STATUS, { length: 24 * MiB, flags: REQ_ONE }),
    requestOf(CMD.BLOCK_STATUS, { offset: 3 * grain + 9, length: grain }),
    requestOf(CMD.BLOCK_STATUS, { length: 0 }),
  );
  const [hole, data] = [HOLE_AND_ZERO, 0];
  expect(whole?.extents).toEqual([
    [3 * grain, hole],
    [grain, data],
    [rest, hole],
  ]);
  expect(one?.extents).toEqual([[3 * grain, hole]]);
  // What lies before the range is none of its business.
  expect(odd?.extents).toEqual([[grain, hole]]);
  expect(none?.error).toBe(EINVAL);
  fixture.device.failure = new HoldfastError('disk-error', 'gone');
  expect(ask(fixture, all)).toMatchObject([{ error: 5 }]);
});

test('a context that was chosen for another name, or taken back, is not chosen', async () => {
  const { streams } = await serve();
  const chosen = optionOf(OPT.SET_META_CONTEXT, contextData('', 'base:allocation'));
  const back = optionOf(OPT.SET_META_CONTEXT, contextData(''));
  for (const options of [[chosen], [chosen, back]]) {
    const stream = streams.connect();
    stream.feed(clientFlags(), optionOf(OPT.STRUCTURED_REPLY), ...options);
    stream.feed(optionOf(OPT.GO, goData(options.length === 1 ? 'disk0' : '')));
    const start = stream.outputBytes;
    stream.feed(requestOf(CMD.BLOCK_STATUS, { length: 512 }));
    const [reply] = parseReplies(stream.output.subarray(start), new Map());
    expect(reply?.error).toBe(EINVAL);
  }
  expect(enter('', { allocation: true }).length).toBeGreaterThan(0);
});

test('zeros of a long read are told and not sent, but where the client wants one chunk', async () => {
  const fixture = await serve({ device: new MemoryDevice(MiB) });
  fixture.device.bytes.fill(9, 4 * grain, 5 * grain);
  const read = (flags: number) => {
    const { stream, replies } = enterTransmission(fixture, { structured: true });
    stream.feed(requestOf(CMD.READ, { length: MiB, flags }));
    const [reply] = parseReplies(replies(), new Map());
    expect(Buffer.compare(reply?.data as Buffer, fixture.device.bytes)).toBe(0);
    return replies().length;
  };
  expect(read(0)).toBe(grain + 28 + 2 * 32);
  expect(read(DF)).toBe(MiB + 28);
});

test('any disk, any range: reads give its bytes, block status its zeros', async () => {
  const device = new MemoryDevice(12 * grain, { record: false });
  const fixture = await serve({ device });
  const place = fc.nat(12 * grain - 1);
  const islands = fc.array(fc.tuple(place, fc.integer({ min: 1, max: 3 * grain })), {
    maxLength: 4,
  });
  fc.assert(
    fc.property(islands, place, fc.nat(12 * grain), (data, offset, wanted) => {
      device.bytes.fill(0);
      for (const [from, length] of data) device.bytes.fill(1, from, from + length);
      const length = Math.max(1, Math.min(wanted, device.sizeBytes - offset));
      const [read, status] = ask(
        fixture,
        requestOf(CMD.READ, { cookie: 1n, offset, length }),
        requestOf(CMD.BLOCK_STATUS, { cookie: 2n, offset, length }),
      );
      const truth = device.bytes.subarray(offset, offset + length);
      expect(Buffer.compare(read?.data as Buffer, truth)).toBe(0);
      let at = 0;
      for (const [count, flags] of status?.extents ?? []) {
        const piece = truth.subarray(at, at + count);
        if (flags === HOLE_AND_ZERO) expect(piece.every((byte) => byte === 0)).toBe(true);
        else expect(piece.some((byte) => byte !== 0)).toBe(true);
        at += count;
      }
      expect(at).toBe(length);
    }),
    { numRuns: 200 },
  );
});
