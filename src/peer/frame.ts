// The frame that one host sends another: a fixed header, a JSON body, a raw payload. The body names
// the message's type; the payload (disk data) is never copied into JSON.
//
// Header, 20 bytes, big-endian: magic u32, version u8, kind u8, reserved u16, request id u32,
// body length u32, payload length u32. Integrity on the wire is TLS's.

import { HoldfastError } from '../model/errors.ts';
import type { JsonValue } from '../model/json.ts';
import { limits } from '../model/limits.ts';

export type FrameKind = 'oneWay' | 'request' | 'reply' | 'failure';

export interface Frame {
  readonly kind: FrameKind;
  readonly requestId: number;
  readonly type: string;
  readonly body: JsonValue;
  readonly payload: Uint8Array;
}

const magic = 0x48464d31; // "HFM1"
const version = 1;
const headerBytes = 20;
const kinds: readonly FrameKind[] = ['oneWay', 'request', 'reply', 'failure'];
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

export const noPayload = new Uint8Array(0);

/** Chunks to be sent one after the other; the payload is passed through uncopied. */
export function encodeFrame(frame: Frame): Uint8Array[] {
  const body = encoder.encode(JSON.stringify([frame.type, frame.body]));
  const head = new Uint8Array(headerBytes + body.length);
  const view = new DataView(head.buffer);
  view.setUint32(0, magic);
  view.setUint8(4, version);
  view.setUint8(5, kinds.indexOf(frame.kind));
  view.setUint32(8, frame.requestId);
  view.setUint32(12, body.length);
  view.setUint32(16, frame.payload.length);
  head.set(body, headerBytes);
  return frame.payload.length === 0 ? [head] : [head, frame.payload];
}

/** Throws `bad-request` for anything that is not exactly one frame. */
export function decodeFrame(bytes: Uint8Array): Frame {
  if (bytes.length < headerBytes) throw malformed('shorter than its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== magic) throw malformed('wrong magic number');
  if (view.getUint8(4) !== version) throw malformed(`version ${view.getUint8(4)} is not known`);
  const kind = kinds[view.getUint8(5)];
  if (kind === undefined) throw malformed('unknown kind');
  const bodyLength = view.getUint32(12);
  const payloadLength = view.getUint32(16);
  if (headerBytes + bodyLength + payloadLength !== bytes.length) throw malformed('wrong length');
  if (bytes.length > limits.maxFrameBytes) throw malformed('too long');
  const [type, body] = parseBody(bytes.subarray(headerBytes, headerBytes + bodyLength));
  const payload = bytes.subarray(headerBytes + bodyLength);
  return { kind, requestId: view.getUint32(8), type, body, payload };
}

function parseBody(bytes: Uint8Array): [string, JsonValue] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(decoder.decode(bytes));
  } catch (error) {
    throw malformed('body is not JSON', error);
  }
  if (!Array.isArray(parsed) || parsed.length !== 2 || typeof parsed[0] !== 'string') {
    throw malformed('body is not [type, value]');
  }
  return [parsed[0], parsed[1] as JsonValue];
}

function malformed(why: string, cause?: unknown): HoldfastError {
  return new HoldfastError('bad-request', `Malformed frame: ${why}`, { cause });
}
