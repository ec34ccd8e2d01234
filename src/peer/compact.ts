// A short form for the bodies of those messages that go with each single I/O of a guest: JSON took
// longer than everything else in a frame. A form lists the fields of a body in order; a body that
// differs from its form in any way (a field more, a text that is not ASCII) goes as JSON, so that a
// sender may add to a message without regard to this file.
//
// Text: its length u8 and its characters; number: 8 bytes, big-endian, an integer; flag: one byte.

import type { JsonValue } from '../model/json.ts';

type Kind = 'text' | 'number' | 'flag';

interface Form {
  readonly type: string;
  readonly fields: readonly (readonly [name: string, kind: Kind])[];
}

const component = ['component', 'text'] as const;
const token = ['token', 'text'] as const;
const offset = ['offset', 'number'] as const;

/** The place in this list stands in the frame: forms may only be added at the end. */
export const forms: readonly Form[] = [
  { type: 'component.read', fields: [component, token, offset, ['length', 'number']] },
  { type: 'component.write', fields: [component, token, offset, ['fua', 'flag']] },
  { type: 'component.flush', fields: [component, token] },
];

const numberOf = new Map(forms.map(({ type }, index) => [type, index]));
const maxTextBytes = 255;
/** No body in a short form is longer. */
export const maxCompactBytes = Math.max(
  ...forms.map(({ fields }) => fields.length * (1 + maxTextBytes)),
);

/** The number of the form of this type's bodies, or -1. */
export function formOf(type: string): number {
  return numberOf.get(type) ?? -1;
}

/** Writes the body from `at` on, for which there is room; where it ends, or -1 where it does not fit its form. */
export function writeCompact(form: number, body: JsonValue, bytes: Uint8Array, at: number): number {
  const { fields } = forms[form] as Form;
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return -1;
  const values = body as { readonly [key: string]: JsonValue };
  let count = 0;
  for (const _ in values) count += 1;
  if (count !== fields.length) return -1;
  let end = at;
  for (const [name, kind] of fields) {
    const value = values[name];
    if (kind === 'text') end = writeText(value, bytes, end);
    else if (kind === 'number') end = writeNumber(value, bytes, end);
    else if (typeof value !== 'boolean') return -1;
    else bytes[end++] = value ? 1 : 0;
    if (end < 0) return -1;
  }
  return end;
}

/** The body that fills `bytes` from `at` on exactly, or null where there is none. */
export function readCompact(form: number, bytes: Uint8Array, at: number): JsonValue {
  const { fields } = forms[form] as Form;
  const body: Record<string, JsonValue> = {};
  let end = at;
  for (const [name, kind] of fields) {
    if (kind === 'text') {
      const length = bytes[end] ?? 0;
      end += 1;
      if (end + length > bytes.length) return null;
      body[name] = readText(bytes, end, length);
      end += length;
    } else if (kind === 'number') {
      if (end + 8 > bytes.length) return null;
      body[name] = uint32At(bytes, end) * 2 ** 32 + uint32At(bytes, end + 4);
      end += 8;
    } else {
      body[name] = bytes[end] === 1;
      end += 1;
    }
  }
  return end === bytes.length ? body : null;
}

function writeText(value: JsonValue | undefined, bytes: Uint8Array, at: number): number {
  if (typeof value !== 'string' || value.length > maxTextBytes) return -1;
  bytes[at] = value.length;
  for (let index = 0; index < value.length; index += 1) {
    const code = value.charCodeAt(index);
    if (code > 0x7f) return -1;
    bytes[at + 1 + index] = code;
  }
  return at + 1 + value.length;
}

function writeNumber(value: JsonValue | undefined, bytes: Uint8Array, at: number): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0 || Object.is(value, -0)) return -1;
  const high = Math.floor((value as number) / 2 ** 32);
  putUint32(bytes, at, high);
  putUint32(bytes, at + 4, (value as number) - high * 2 ** 32);
  return at + 8;
}

/** Texts that were read of late: it is the same few components and tokens that are named each time. */
const recent: string[] = Array.from({ length: 256 }, () => '');

function readText(bytes: Uint8Array, at: number, length: number): string {
  let sum = length;
  for (let index = at; index < at + length; index += 1) {
    sum = (Math.imul(sum, 31) + (bytes[index] as number)) | 0;
  }
  const place = sum & 255;
  const known = recent[place] as string;
  if (isText(known, bytes, at, length)) return known;
  const text = String.fromCharCode(...bytes.subarray(at, at + length));
  recent[place] = text;
  return text;
}

function isText(text: string, bytes: Uint8Array, at: number, length: number): boolean {
  if (text.length !== length) return false;
  for (let index = 0; index < length; index += 1) {
    if (text.charCodeAt(index) !== bytes[at + index]) return false;
  }
  return true;
}

export function putUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function uint32At(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  const low = ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
  return high * 0x10000 + low;
}
