// The frame that one host sends another: a fixed header, a body, a raw payload. The body is JSON that
// names the message's type, or for a few types a short form; the payload (disk data) is never copied
// into it.
//
// Header, 20 bytes, big-endian: magic u32, version u8, kind u8, form u8, reserved u8, request id u32,
// body length u32, payload length u32. Form 0 is JSON, `[type, body]`; 1 is a reply that says nothing
// but that all is well, without a body and a type, which the asker knows; from 2 on they are those of
// `compact.ts`. Integrity on the wire is TLS's.

import { HoldfastError } from '../model/errors.ts';
import type { JsonValue } from '../model/json.ts';
import { limits } from '../model/limits.ts';
import {
  formOf,
  forms,
  maxCompactBytes,
  putUint32,
  readCompact,
  uint32At,
  writeCompact,
} from './compact.ts';

export type FrameKind = 'oneWay' | 'request' | 'reply' | 'failure';

export interface Frame {
  readonly kind: FrameKind;
  readonly requestId: number;
  /** Empty for a decoded reply whose body is null: the asker knows what it asked. */
  readonly type: string;
  readonly body: JsonValue;
  readonly payload: Uint8Array;
}

const magic = 0x48464d31; // "HFM1"
const version = 2;
const headerBytes = 20;
const jsonForm = 0;
const nothingForm = 1;
const firstCompactForm = 2;
const kinds: readonly FrameKind[] = ['oneWay', 'request', 'reply', 'failure'];
const kindCodes: Readonly<Record<FrameKind, number>> = {
  oneWay: 0,
  request: 1,
  reply: 2,
  failure: 3,
};
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

export const noPayload = new Uint8Array(0);
const nothing = { type: '', body: null } as const;

/** Small frames are cut from slabs: a buffer of its own takes longer to get than to fill (0.5 us of
 * the 1.1 us that a heartbeat took). Nothing is ever written to a place again that was given out. */
const slabBytes = 64 * 1024;
const maxSlabFrameBytes = 4096;
let slab = new Uint8Array(0);
let slabUsed = 0;
/** Up to this length a loop over the characters is quicker than the encoder's call. */
const maxLoopedChars = 400;

/**
 * Frames that go to several hosts, and what they say once they have been decoded. Where several hosts
 * live in one process they are handed the very same bytes, and these are parsed
 * once: with 64 hosts parsing was most of the work. What hosts share in this way is frozen.
 */
const shared = new WeakMap<Uint8Array, Frame | null>();

/** Chunks to be sent one after the other; the payload is passed through uncopied. */
export function encodeFrame(frame: Frame): Uint8Array[] {
  let form = formFor(frame);
  let head = form === jsonForm ? null : encodeShort(form, frame.body);
  if (head === null) {
    form = jsonForm;
    head = encodeJson(frame);
  }
  const bodyLength = head.length - headerBytes;
  const payloadLength = frame.payload.length;
  putUint32(head, 0, magic);
  head[4] = version;
  head[5] = kindCodes[frame.kind];
  head[6] = form;
  head[7] = 0;
  putUint32(head, 8, frame.requestId);
  putUint32(head, 12, bodyLength);
  putUint32(head, 16, payloadLength);
  return payloadLength === 0 ? [head] : [head, frame.payload];
}

/** `encodeFrame` for a frame without payload that goes to several hosts. */
export function encodeForMany(frame: Frame): Uint8Array[] {
  const chunks = encodeFrame(frame);
  shared.set(chunks[0] as Uint8Array, null);
  return chunks;
}

function formFor({ kind, type, body }: Frame): number {
  if (kind === 'reply') return body === null ? nothingForm : jsonForm;
  const form = kind === 'request' ? formOf(type) : -1;
  return form < 0 ? jsonForm : form + firstCompactForm;
}

/** The frame with its header left empty, or null where the body does not fit the form. */
function encodeShort(form: number, body: JsonValue): Uint8Array | null {
  const from = reserve(headerBytes + maxCompactBytes);
  const at = from + headerBytes;
  if (form === nothingForm) return take(headerBytes);
  const end = writeCompact(form - firstCompactForm, body, slab, at);
  if (end >= 0) return take(end - from);
  return null;
}

/** The same in JSON. */
function encodeJson({ type, body }: Frame): Uint8Array {
  const text = JSON.stringify([type, body]);
  return encodeAscii(text) ?? encodeUtf8(text);
}

/** The same, or null where the text is too long, or not ASCII. */
function encodeAscii(text: string): Uint8Array | null {
  const { length } = text;
  if (length > maxLoopedChars) return null;
  const at = reserve(headerBytes + length) + headerBytes;
  for (let index = 0; index < length; index += 1) {
    const code = text.charCodeAt(index);
    if (code > 0x7f) return null;
    slab[at + index] = code;
  }
  return take(headerBytes + length);
}

function encodeUtf8(text: string): Uint8Array {
  // A character of a string takes at most three bytes.
  const most = headerBytes + text.length * 3;
  if (most <= maxSlabFrameBytes) {
    const at = reserve(most) + headerBytes;
    return take(headerBytes + encoder.encodeInto(text, slab.subarray(at)).written);
  }
  const body = encoder.encode(text);
  const head = new Uint8Array(headerBytes + body.length);
  head.set(body, headerBytes);
  return head;
}

/** Where in the slab there is room for so many bytes. */
function reserve(bytes: number): number {
  if (slab.length - slabUsed < bytes) {
    slab = new Uint8Array(slabBytes);
    slabUsed = 0;
  }
  return slabUsed;
}

function take(bytes: number): Uint8Array {
  const taken = slab.subarray(slabUsed, slabUsed + bytes);
  slabUsed += bytes;
  return taken;
}

/** Throws `bad-request` for anything that is not exactly one frame. */
export function decodeFrame(bytes: Uint8Array): Frame {
  const known = shared.get(bytes);
  if (known !== undefined && known !== null) return known;
  const frame = decode(bytes);
  if (known === null) {
    freeze(frame.body);
    shared.set(bytes, frame);
  }
  return frame;
}

function decode(bytes: Uint8Array): Frame {
  if (bytes.length < headerBytes) throw malformed('shorter than its header');
  if (uint32At(bytes, 0) !== magic) throw malformed('wrong magic number');
  if (bytes[4] !== version) throw malformed(`version ${bytes[4]} is not known`);
  const kind = kinds[bytes[5] as number];
  if (kind === undefined) throw malformed('unknown kind');
  const bodyLength = uint32At(bytes, 12);
  const payloadLength = uint32At(bytes, 16);
  if (headerBytes + bodyLength + payloadLength !== bytes.length) throw malformed('wrong length');
  if (bytes.length > limits.maxFrameBytes) throw malformed('too long');
  const { type, body } = decodeBody(
    bytes[6] as number,
    bytes.subarray(headerBytes, headerBytes + bodyLength),
  );
  const payload = payloadLength === 0 ? noPayload : bytes.subarray(headerBytes + bodyLength);
  return { kind, requestId: uint32At(bytes, 8), type, body, payload };
}

function decodeBody(form: number, bytes: Uint8Array): Pick<Frame, 'type' | 'body'> {
  if (form === jsonForm) return parseJson(bytes);
  if (form === nothingForm && bytes.length === 0) return nothing;
  const type = forms[form - firstCompactForm]?.type;
  const body = type === undefined ? null : readCompact(form - firstCompactForm, bytes, 0);
  if (type === undefined || body === null) throw malformed(`body is not of form ${form}`);
  return { type, body };
}

function freeze(value: JsonValue): void {
  if (typeof value !== 'object' || value === null) return;
  for (const one of Object.values(value)) freeze(one);
  Object.freeze(value);
}

function parseJson(bytes: Uint8Array): Pick<Frame, 'type' | 'body'> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(decoder.decode(bytes));
  } catch (error) {
    throw malformed('body is not JSON', error);
  }
  if (!Array.isArray(parsed) || parsed.length !== 2 || typeof parsed[0] !== 'string') {
    throw malformed('body is not [type, value]');
  }
  return { type: parsed[0], body: parsed[1] as JsonValue };
}

function malformed(why: string, cause?: unknown): HoldfastError {
  return new HoldfastError('bad-request', `Malformed frame: ${why}`, { cause });
}
