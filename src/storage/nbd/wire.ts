// The numbers of the NBD protocol, as the protocol document names them (NBD project, doc/proto.md,
// sections "Values" and "Size constraints"). All integers on the wire are big-endian; 64-bit magic
// numbers and cookies are kept as two 32-bit halves, because nothing is ever computed with them.

import { limits } from '../../model/limits.ts';

export const magic = {
  /** `NBDMAGIC`, the server's first word. */
  greeting: [0x4e42444d, 0x41474943],
  /** `IHAVEOPT`, the server's second word and the start of each option. */
  option: [0x49484156, 0x454f5054],
  optionReply: [0x0003e889, 0x045565a9],
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

/** Flags of the server's greeting, and the same bits of the client's answer. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const transmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendFastZero: 1 << 11,
} as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  invalid: 0x80000003,
  unknown: 0x80000006,
  tooBig: 0x80000009,
} as const;

export const info = { export: 0, name: 1, blockSize: 3 } as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
} as const;

export const chunkType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
} as const;

/** The only metadata context here, and what its blocks may be. */
export const baseAllocation = {
  name: 'base:allocation',
  id: 1,
  hole: 1 << 0,
  zero: 1 << 1,
} as const;

export const chunkFlagDone = 1;

/** The only error values that may stand on the wire; 0 is success. */
export const nbdError = { eperm: 1, eio: 5, einval: 22, enospc: 28, enotsup: 95 } as const;

/** Bytes of the fixed parts. */
export const lengths = {
  clientFlags: 4,
  optionHeader: 16,
  request: 28,
  simpleReply: 16,
  chunkHeader: 20,
} as const;

/** What is told to clients that ask; also the document's defaults for clients that do not. */
export const blockSizes = {
  minimum: 1,
  preferred: limits.blockBytes,
  maximum: limits.maxNbdRequestBytes,
} as const;

/** Longest data of an option that is looked at; the longest string of the protocol is 4096 bytes. */
export const maxOptionBytes = 16 * 1024;
/** Longest data of an option that is skipped; a client that announces more is not listened to. */
export const maxSkippedOptionBytes = 1024 * 1024;

/** A client that still haggles after so many options will never come to the point. */
export const maxOptions = 64;

/** One disk as it is offered to clients. */
export interface NbdExport {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Space can be given back. */
  readonly canUnmap: boolean;
}
