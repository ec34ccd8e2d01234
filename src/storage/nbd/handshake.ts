// Option haggling: before the first request a client asks what there is, and chooses. Each option is
// answered from what it says and from what was agreed before; nothing here knows about chunks or
// streams. (NBD protocol document, doc/proto.md, "Fixed newstyle negotiation" and "Option types".)

import {
  baseAllocation,
  blockSizes,
  handshakeFlag,
  info,
  magic,
  type NbdExport,
  option,
  optionReply,
  transmissionFlag,
} from './wire.ts';

/** What client and server have agreed on so far. */
export interface Agreement {
  /** Reads are answered by structured chunks, and errors carry a sentence. */
  structured: boolean;
  /** The export name as given with the metadata contexts that were chosen; null: none were. */
  allocationOf: string | null;
  /** The client does not want the 124 zeroes after NBD_OPT_EXPORT_NAME. */
  noZeroes: boolean;
}

export interface OptionAnswer {
  readonly bytes: Uint8Array;
  /** What comes next: another option, requests, or nothing more. */
  readonly next: 'option' | 'request' | 'end';
}

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder();

export function greeting(): Uint8Array {
  return new Bytes(18)
    .pair(magic.greeting)
    .pair(magic.option)
    .u16(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes).bytes;
}

/** The answer to an option, or why the client must be dropped (for want of a way to tell it). */
export function answerOption(
  code: number,
  data: Uint8Array,
  disk: NbdExport,
  agreement: Agreement,
): OptionAnswer | string {
  switch (code) {
    case option.exportName:
      return answerExportName(data, disk, agreement);
    case option.abort:
      return { bytes: reply(code, optionReply.ack), next: 'end' };
    case option.list:
      if (data.length > 0) return refuseOption(code, optionReply.invalid, 'no data expected');
      return haggle([reply(code, optionReply.server, listed(disk)), reply(code, optionReply.ack)]);
    case option.info:
    case option.go:
      return answerInfo(code, data, disk, agreement);
    case option.structuredReply:
      if (data.length > 0) return refuseOption(code, optionReply.invalid, 'no data expected');
      agreement.structured = true;
      return haggle([reply(code, optionReply.ack)]);
    case option.listMetaContext:
    case option.setMetaContext:
      return answerMetaContext(code, data, disk, agreement);
    default:
      return refuseOption(code, optionReply.unsupported, 'option not supported');
  }
}

export function refuseOption(code: number, type: number, text: string): OptionAnswer {
  return { bytes: reply(code, type, textEncoder.encode(text)), next: 'option' };
}

/** NBD_OPT_EXPORT_NAME, the old way to choose: there is no way to say no but to hang up. */
function answerExportName(
  data: Uint8Array,
  disk: NbdExport,
  agreement: Agreement,
): OptionAnswer | string {
  if (!names(data, disk)) return 'unknown export name';
  settleContexts(textDecoder.decode(data), agreement);
  const bytes = new Bytes(agreement.noZeroes ? 10 : 134);
  bytes.u64(disk.sizeBytes).u16(transmissionFlags(disk, agreement));
  return { bytes: bytes.bytes, next: 'request' };
}

/** NBD_OPT_INFO and NBD_OPT_GO: name length, name, number of questions, questions. */
function answerInfo(
  code: number,
  data: Uint8Array,
  disk: NbdExport,
  agreement: Agreement,
): OptionAnswer {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const nameLength = data.length >= 6 ? view.getUint32(0) : Number.POSITIVE_INFINITY;
  if (nameLength > data.length - 6) {
    return refuseOption(code, optionReply.invalid, 'name longer than the option');
  }
  const questions = view.getUint16(4 + nameLength);
  if (data.length !== 6 + nameLength + 2 * questions) {
    return refuseOption(code, optionReply.invalid, 'length does not fit the information requests');
  }
  if (!names(data.subarray(4, 4 + nameLength), disk)) {
    return refuseOption(code, optionReply.unknown, `the export here is '${disk.name}'`);
  }
  if (code === option.go) {
    settleContexts(textDecoder.decode(data.subarray(4, 4 + nameLength)), agreement);
  }
  const asked = new Set<number>();
  for (let at = 6 + nameLength; at < data.length; at += 2) asked.add(view.getUint16(at));

  const flags = transmissionFlags(disk, agreement);
  const exported = new Bytes(12).u16(info.export).u64(disk.sizeBytes).u16(flags).bytes;
  const parts = [reply(code, optionReply.info, exported)];
  if (asked.has(info.name)) {
    const name = textEncoder.encode(disk.name);
    const named = new Bytes(2 + name.length).u16(info.name).raw(name).bytes;
    parts.push(reply(code, optionReply.info, named));
  }
  if (asked.has(info.blockSize)) {
    const sizes = new Bytes(14).u16(info.blockSize);
    sizes.u32(blockSizes.minimum).u32(blockSizes.preferred).u32(blockSizes.maximum);
    parts.push(reply(code, optionReply.info, sizes.bytes));
  }
  parts.push(reply(code, optionReply.ack));
  return { ...haggle(parts), next: code === option.go ? 'request' : 'option' };
}

/**
 * NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: name length, name, number of queries, queries.
 * A query names a context or, in a list, a whole namespace; no query at all lists everything.
 */
function answerMetaContext(
  code: number,
  data: Uint8Array,
  disk: NbdExport,
  agreement: Agreement,
): OptionAnswer {
  // Chosen anew: what was chosen before is void, also where this fails.
  if (code === option.setMetaContext) agreement.allocationOf = null;
  if (!agreement.structured) {
    return refuseOption(code, optionReply.invalid, 'structured replies have to be agreed on first');
  }
  const strings = queriesOf(data);
  if (strings === null) {
    return refuseOption(code, optionReply.invalid, 'lengths do not fit the option');
  }
  const { name, queries } = strings;
  if (!names(name, disk)) {
    return refuseOption(code, optionReply.unknown, `the export here is '${disk.name}'`);
  }
  const isSet = code === option.setMetaContext;
  const isMeant = (query: string) => query === baseAllocation.name || (!isSet && query === 'base:');
  const parts: Uint8Array[] = [];
  if (queries.some(isMeant) || (!isSet && queries.length === 0)) {
    const context = textEncoder.encode(baseAllocation.name);
    const id = isSet ? baseAllocation.id : 0; // of a list it means nothing
    const chosen = new Bytes(4 + context.length).u32(id).raw(context).bytes;
    parts.push(reply(code, optionReply.metaContext, chosen));
    if (isSet) agreement.allocationOf = textDecoder.decode(name);
  }
  parts.push(reply(code, optionReply.ack));
  return haggle(parts);
}

function queriesOf(data: Uint8Array): { name: Uint8Array; queries: string[] } | null {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let at = 0;
  const string = (): Uint8Array | null => {
    if (at + 4 > data.length) return null;
    const length = view.getUint32(at);
    if (length > data.length - at - 4) return null;
    at += 4 + length;
    return data.subarray(at - length, at);
  };
  const name = string();
  if (name === null || at + 4 > data.length) return null;
  const count = view.getUint32(at);
  at += 4;
  const queries: string[] = [];
  // Each takes four bytes at least: a huge count ends with the data.
  while (queries.length < count) {
    const query = string();
    if (query === null) return null;
    queries.push(textDecoder.decode(query));
  }
  return at === data.length ? { name, queries } : null;
}

/** Contexts were chosen for one export; they hold only if that one is taken. */
function settleContexts(name: string, agreement: Agreement): void {
  if (agreement.allocationOf !== name) agreement.allocationOf = null;
}

/**
 * Multi-conn is promised because all connections share one device: its flush covers every write
 * that was called back before, whichever connection it came by.
 */
function transmissionFlags(disk: NbdExport, agreement: Agreement): number {
  let flags = transmissionFlag.hasFlags | transmissionFlag.sendFlush | transmissionFlag.sendFua;
  flags |= transmissionFlag.canMultiConn;
  if (disk.readOnly) flags |= transmissionFlag.readOnly;
  else flags |= transmissionFlag.sendWriteZeroes | transmissionFlag.sendFastZero;
  if (disk.canUnmap && !disk.readOnly) flags |= transmissionFlag.sendTrim;
  if (agreement.structured) flags |= transmissionFlag.sendDf;
  return flags;
}

/** The empty name is the default export, and there is only one. */
function names(name: Uint8Array, disk: NbdExport): boolean {
  return name.length === 0 || textDecoder.decode(name) === disk.name;
}

function listed(disk: NbdExport): Uint8Array {
  const name = textEncoder.encode(disk.name);
  return new Bytes(4 + name.length).u32(name.length).raw(name).bytes;
}

function haggle(parts: readonly Uint8Array[]): OptionAnswer {
  const bytes = new Bytes(parts.reduce((sum, part) => sum + part.length, 0));
  for (const part of parts) bytes.raw(part);
  return { bytes: bytes.bytes, next: 'option' };
}

function reply(code: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Bytes(20 + data.length).pair(magic.optionReply);
  return bytes.u32(code).u32(type).u32(data.length).raw(data).bytes;
}

/** A message of known length under construction. */
class Bytes {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  u16(value: number): this {
    this.#view.setUint16(this.#at, value);
    this.#at += 2;
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#at, value);
    this.#at += 4;
    return this;
  }

  u64(value: number): this {
    return this.u32(Math.floor(value / 2 ** 32)).u32(value % 2 ** 32);
  }

  pair(halves: readonly [number, number]): this {
    return this.u32(halves[0]).u32(halves[1]);
  }

  raw(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }
}
