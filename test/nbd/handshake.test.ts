// Option haggling, against bytes written from the protocol document.

import { expect, test } from 'vitest';
import {
  CMD,
  clientFlags,
  contextData,
  enter,
  GREETING,
  goData,
  OPT,
  optionOf,
  parseOptionReplies,
  requestOf,
  u16,
  u32,
  u64,
} from './client-wire.ts';
import { serve } from './fixture.ts';

const ACK = 1;
const UNSUP = 0x80000001;
const INVALID = 0x80000003;
const UNKNOWN = 0x80000006;
const TOO_BIG = 0x80000009;
/** HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_FAST_ZERO. */
const FLAGS = 0x96d;

async function haggle(...options: Buffer[]) {
  const fixture = await serve();
  const stream = fixture.streams.connect().feed(clientFlags(), ...options);
  return { ...fixture, stream, replies: parseOptionReplies(stream.output) };
}

test('the greeting comes first, before the client says anything', async () => {
  const { streams } = await serve();
  expect(streams.connect().output).toEqual(GREETING);
});

test('NBD_OPT_EXPORT_NAME: size, flags and zeroes unless not wanted', async () => {
  for (const [flags, zeroes] of [
    [1, 124],
    [3, 0],
  ] as const) {
    const { streams } = await serve();
    const choice = optionOf(OPT.EXPORT_NAME, Buffer.from('disk0'));
    const stream = streams.connect().feed(clientFlags(flags), choice);
    const expected = Buffer.concat([GREETING, u64(65536), u16(FLAGS), Buffer.alloc(zeroes)]);
    expect(stream.output).toEqual(expected);
    stream.feed(requestOf(CMD.READ, { length: 1 }));
    expect(stream.output.length).toBe(expected.length + 17);
  }
});

test('NBD_OPT_EXPORT_NAME with another name can only be hung up on', async () => {
  const { streams, log } = await serve();
  const stream = streams.connect();
  stream.feed(clientFlags(), optionOf(OPT.EXPORT_NAME, Buffer.from('disk1')));
  expect(stream.destroyed).toBe(true);
  expect(log.of('warn')).toHaveLength(1);
});

test('NBD_OPT_GO says size, flags and what was asked for, then serves', async () => {
  const infos = [3, 1, 3, 77];
  const { replies, stream } = await haggle(optionOf(OPT.GO, goData('disk0', infos)));
  const sizes = Buffer.concat([u16(3), u32(1), u32(4096), u32(32 * 1024 * 1024)]);
  expect(replies).toEqual([
    { option: 7, type: 3, data: Buffer.concat([u16(0), u64(65536), u16(FLAGS)]) },
    { option: 7, type: 3, data: Buffer.concat([u16(1), Buffer.from('disk0')]) },
    { option: 7, type: 3, data: sizes },
    { option: 7, type: ACK, data: Buffer.alloc(0) },
  ]);
  const before = stream.outputBytes;
  stream.feed(requestOf(CMD.FLUSH));
  expect(stream.outputBytes).toBe(before + 16);
});

test('NBD_OPT_INFO tells and goes on haggling; the empty name is the default export', async () => {
  const { replies } = await haggle(
    optionOf(OPT.INFO, goData('')),
    optionOf(OPT.STRUCTURED_REPLY),
    optionOf(OPT.INFO, goData('')),
  );
  expect(replies.map(({ type }) => type)).toEqual([3, ACK, ACK, 3, ACK]);
  // With structured replies agreed on, "do not fragment" is offered too.
  expect(replies[0]?.data.readUInt16BE(10)).toBe(FLAGS);
  expect(replies[3]?.data.readUInt16BE(10)).toBe(FLAGS | 0x80);
});

test('a read-only export says so', async () => {
  const { streams } = await serve({ readOnly: true });
  const replies = parseOptionReplies(streams.connect().feed(enter()).output);
  // READ_ONLY, and nothing that zeroes.
  expect(replies[0]?.data.readUInt16BE(10)).toBe(0x10f);
});

test('sizes beyond 32 bits are told in full', async () => {
  const { streams, device } = await serve();
  Object.defineProperty(device, 'sizeBytes', { value: 5 * 2 ** 40 + 512 });
  // The export's size is read when serving begins, so serve the changed device anew.
  const large = await serve({ device });
  const replies = parseOptionReplies(large.streams.connect().feed(enter()).output);
  expect(replies[0]?.data.readBigUInt64BE(2)).toBe(BigInt(5 * 2 ** 40 + 512));
  expect(streams.listening).toBe(true);
});

test('NBD_OPT_LIST names the one export', async () => {
  const { replies } = await haggle(optionOf(OPT.LIST), optionOf(OPT.LIST, Buffer.from('x')));
  expect(replies.map(({ type }) => type)).toEqual([2, ACK, INVALID]);
  expect(replies[0]?.data).toEqual(Buffer.concat([u32(5), Buffer.from('disk0')]));
});

test('NBD_OPT_ABORT is acknowledged, then the stream ends', async () => {
  const { replies, stream, log } = await haggle(optionOf(OPT.ABORT, Buffer.from('bye')));
  expect(replies).toEqual([{ option: 2, type: ACK, data: Buffer.alloc(0) }]);
  expect(stream.ended).toBe(true);
  expect(log.of('warn')).toEqual([]);
});

test.each([
  ['STARTTLS', optionOf(OPT.STARTTLS), UNSUP],
  [
    'LIST_META_CONTEXT before structured replies',
    optionOf(OPT.LIST_META_CONTEXT, contextData('disk0')),
    INVALID,
  ],
  ['an unknown option', optionOf(0xffffffff), UNSUP],
  ['STRUCTURED_REPLY with data', optionOf(OPT.STRUCTURED_REPLY, Buffer.alloc(1)), INVALID],
  ['GO for another export', optionOf(OPT.GO, goData('disk1')), UNKNOWN],
  ['GO without data', optionOf(OPT.GO), INVALID],
  ['GO with too long a name', optionOf(OPT.GO, Buffer.concat([u32(9), u32(0)])), INVALID],
  [
    'GO with the longest name',
    optionOf(OPT.GO, Buffer.concat([u32(2 ** 32 - 1), u32(0)])),
    INVALID,
  ],
  ['GO with too few questions', optionOf(OPT.GO, Buffer.concat([u32(0), u16(1)])), INVALID],
  ['GO with too much data', optionOf(OPT.GO, Buffer.concat([u32(0), u32(0)])), INVALID],
  ['GO that is too long', optionOf(OPT.GO, Buffer.alloc(20_000)), TOO_BIG],
])('%s is refused, and the next option is understood', async (_name, refused, type) => {
  const { replies, stream } = await haggle(refused, optionOf(OPT.LIST));
  expect(replies.map((reply) => reply.type)).toEqual([type, 2, ACK]);
  expect(stream.open).toBe(true);
});

test.each([
  ['unknown client flags', u32(4)],
  ['a wrong option magic', Buffer.concat([clientFlags(), Buffer.alloc(16)])],
  [
    'endless haggling',
    Buffer.concat([clientFlags(), ...Array.from({ length: 65 }, () => optionOf(OPT.LIST))]),
  ],
  ['an endless option', Buffer.concat([clientFlags(), optionOf(99).subarray(0, 12), u32(2 ** 31)])],
  [
    'an endless export name',
    Buffer.concat([clientFlags(), optionOf(OPT.EXPORT_NAME, Buffer.alloc(20_000))]),
  ],
])('%s drops the client with one warning', async (_name, bytes) => {
  const { streams, log, server } = await serve();
  const stream = streams.connect().feed(bytes);
  expect(stream.destroyed).toBe(true);
  expect(log.of('warn')).toHaveLength(1);
  expect(server.connections).toBe(0);
});

const structured = optionOf(OPT.STRUCTURED_REPLY);
const META = 4;

test.each([
  ['a list of all', OPT.LIST_META_CONTEXT, contextData('disk0'), [META, ACK]],
  ['a list of a namespace', OPT.LIST_META_CONTEXT, contextData('', 'x:', 'base:'), [META, ACK]],
  ['a list of one', OPT.LIST_META_CONTEXT, contextData('', 'base:allocation'), [META, ACK]],
  ['a list of what there is not', OPT.LIST_META_CONTEXT, contextData('', 'qemu:'), [ACK]],
  ['a choice', OPT.SET_META_CONTEXT, contextData('disk0', 'base:allocation', 'a:b'), [META, ACK]],
  ['a choice of nothing', OPT.SET_META_CONTEXT, contextData('disk0'), [ACK]],
  ['a choice of a namespace', OPT.SET_META_CONTEXT, contextData('disk0', 'base:'), [ACK]],
  ['another export', OPT.SET_META_CONTEXT, contextData('disk1', 'base:allocation'), [UNKNOWN]],
  ['no data', OPT.SET_META_CONTEXT, Buffer.alloc(0), [INVALID]],
  [
    'more queries than come',
    OPT.SET_META_CONTEXT,
    Buffer.concat([u32(0), u32(2 ** 32 - 1)]),
    [INVALID],
  ],
  [
    'a query that is too long',
    OPT.SET_META_CONTEXT,
    Buffer.concat([u32(0), u32(1), u32(9)]),
    [INVALID],
  ],
  [
    'a name that is too long',
    OPT.SET_META_CONTEXT,
    Buffer.concat([u32(2 ** 31), u32(0)]),
    [INVALID],
  ],
  ['bytes left over', OPT.SET_META_CONTEXT, Buffer.concat([contextData(''), u16(0)]), [INVALID]],
] as const)('metadata contexts: %s', async (_name, code, data, types) => {
  const { replies, stream } = await haggle(structured, optionOf(code, data));
  expect(replies.slice(1).map((reply) => reply.type)).toEqual(types);
  for (const { type, data: context } of replies) {
    if (type === META) expect(context.subarray(4).toString()).toBe('base:allocation');
  }
  expect(stream.open).toBe(true);
});
