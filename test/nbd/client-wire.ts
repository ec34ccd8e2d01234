// The client's side of the wire, written from the protocol document and apart from the server's
// code, so that a misread constant shows.

const IHAVEOPT = Buffer.from('IHAVEOPT');

export const GREETING = Buffer.concat([
  Buffer.from('NBDMAGIC'),
  IHAVEOPT,
  Buffer.from([0, 3]), // fixed newstyle, no zeroes
]);

export const OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

export const CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const FUA = 1;
export const NO_HOLE = 2;
export const DF = 4;
export const REQ_ONE = 8;
export const FAST_ZERO = 16;

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export const clientFlags = (flags = 3): Buffer => u32(flags);

export function optionOf(code: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([IHAVEOPT, u32(code), u32(data.length), data]);
}

/** The data of NBD_OPT_GO and NBD_OPT_INFO. */
export function goData(name: string, infos: readonly number[] = []): Buffer {
  const text = Buffer.from(name);
  return Buffer.concat([u32(text.length), text, u16(infos.length), ...infos.map(u16)]);
}

/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export function contextData(name: string, ...queries: string[]): Buffer {
  const string = (text: string) => Buffer.concat([u32(Buffer.byteLength(text)), Buffer.from(text)]);
  return Buffer.concat([string(name), u32(queries.length), ...queries.map(string)]);
}

/** All that a client says to reach the transmission phase. */
export function enter(name = '', { structured = false, allocation = false } = {}): Buffer {
  const context = contextData(name, 'base:allocation');
  return Buffer.concat([
    clientFlags(),
    ...(structured || allocation ? [optionOf(OPT.STRUCTURED_REPLY)] : []),
    ...(allocation ? [optionOf(OPT.SET_META_CONTEXT, context)] : []),
    optionOf(OPT.GO, goData(name)),
  ]);
}

export interface RequestFields {
  readonly cookie?: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly flags?: number;
  readonly data?: Uint8Array;
}

export function requestOf(command: number, fields: RequestFields = {}): Buffer {
  const { cookie = 0n, offset = 0, data = Buffer.alloc(0), flags = 0 } = fields;
  return Buffer.concat([
    u32(0x25609513),
    u16(flags),
    u16(command),
    u64(cookie),
    u64(offset),
    u32(fields.length ?? data.length),
    data,
  ]);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** Reads what a server sent before the transmission phase, the greeting included. */
export function parseOptionReplies(bytes: Buffer): OptionReply[] {
  if (!bytes.subarray(0, 18).equals(GREETING)) throw new Error('no greeting');
  const replies: OptionReply[] = [];
  let at = 18;
  while (at < bytes.length) {
    if (bytes.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`bad magic at ${at}`);
    const length = bytes.readUInt32BE(at + 16);
    replies.push({
      option: bytes.readUInt32BE(at + 8),
      type: bytes.readUInt32BE(at + 12),
      data: bytes.subarray(at + 20, at + 20 + length),
    });
    at += 20 + length;
  }
  return replies;
}

export interface Reply {
  readonly cookie: bigint;
  readonly error: number;
  readonly data: Buffer;
  readonly structured: boolean;
  readonly message?: string;
  readonly offset?: bigint;
  /** Length and flags of each block of a block status. */
  readonly extents?: readonly (readonly [number, number])[];
}

/** Reads replies of the transmission phase; `lengths` tells how many bytes each read asked for. */
export function parseReplies(bytes: Buffer, lengths: ReadonlyMap<bigint, number>): Reply[] {
  const replies: Reply[] = [];
  /** Read replies whose last chunk has not come yet. */
  const parts = new Map<bigint, Part[]>();
  let at = 0;
  while (at < bytes.length) {
    const magic = bytes.readUInt32BE(at);
    if (magic === 0x67446698) {
      const error = bytes.readUInt32BE(at + 4);
      const cookie = bytes.readBigUInt64BE(at + 8);
      const length = error === 0 ? (lengths.get(cookie) ?? 0) : 0;
      const data = bytes.subarray(at + 16, at + 16 + length);
      if (data.length !== length) throw new Error('short reply');
      replies.push({ cookie, error, data, structured: false });
      at += 16 + length;
    } else if (magic === 0x668e33ef) {
      const [flags, type] = [bytes.readUInt16BE(at + 4), bytes.readUInt16BE(at + 6)];
      const cookie = bytes.readBigUInt64BE(at + 8);
      const length = bytes.readUInt32BE(at + 16);
      const payload = bytes.subarray(at + 20, at + 20 + length);
      if (flags > 1 || payload.length !== length) throw new Error('short or unknown chunk');
      at += 20 + length;
      const before = parts.get(cookie) ?? [];
      if (type === 1 || type === 2) {
        const end = type === 1 ? null : Buffer.alloc(payload.readUInt32BE(8));
        const data = end ?? payload.subarray(8);
        const whole = [...before, { offset: payload.readBigUInt64BE(0), data }];
        parts.set(cookie, whole);
        if (flags === 1) replies.push({ cookie, structured: true, ...joined(whole) });
      } else {
        if (flags !== 1) throw new Error('unfinished chunk');
        replies.push({ cookie, structured: true, ...chunkContent(type, payload) });
      }
      if (flags === 1) parts.delete(cookie);
    } else {
      throw new Error(`bad reply magic at ${at}`);
    }
  }
  if (parts.size > 0) throw new Error('an unfinished reply');
  return replies;
}

interface Part {
  readonly offset: bigint;
  readonly data: Buffer;
}

/** The chunks of a read, which must follow each other without a gap. */
function joined(parts: readonly Part[]) {
  const { offset } = parts[0] as Part;
  let end = offset;
  for (const part of parts) {
    if (part.offset !== end || part.data.length === 0) throw new Error('chunks with a gap');
    end += BigInt(part.data.length);
  }
  return { error: 0, data: Buffer.concat(parts.map((part) => part.data)), offset };
}

function chunkContent(type: number, payload: Buffer) {
  const none = Buffer.alloc(0);
  if (type === 0 && payload.length === 0) return { error: 0, data: none };
  if (type === 5) {
    if (payload.readUInt32BE(0) !== 1 || payload.length < 12) throw new Error('bad block status');
    const extents: [number, number][] = [];
    for (let at = 4; at < payload.length; at += 8) {
      extents.push([payload.readUInt32BE(at), payload.readUInt32BE(at + 4)]);
    }
    return { error: 0, data: none, extents };
  }
  if (type !== 0x8001) throw new Error(`unexpected chunk type ${type}`);
  const message = payload.subarray(6).toString();
  if (payload.readUInt16BE(4) !== payload.length - 6) throw new Error('wrong message length');
  return { error: payload.readUInt32BE(0), data: none, message };
}
