import { describe, expect, test } from 'vitest';
import type { JsonValue } from '../model/json.ts';
import { decodeFrame, encodeForMany, encodeFrame, type Frame, noPayload } from './frame.ts';

function frameOf(body: JsonValue, payload: Uint8Array = noPayload): Frame {
  return { kind: 'request', requestId: 0xfffffffe, type: 'test.message', body, payload };
}

function whole(chunks: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(chunks.flatMap((chunk) => [...chunk]));
}

describe('a frame', () => {
  const bodies: readonly (readonly [string, JsonValue])[] = [
    ['nothing', null],
    ['a small body', { host: 'h1', numbers: [1, 2.5, -3], isTrue: true }],
    ['letters beyond ASCII', { name: 'Größe \u20ac \u{1f600}' }],
    ['a longer one', { text: 'x'.repeat(1000) }],
    ['a longer one beyond ASCII', { text: 'ü'.repeat(1000) }],
    ['more than a slab takes', { text: 'y'.repeat(200_000) }],
  ];

  test.each(bodies)('is read as it was written: %s', (_, body) => {
    const payload = Uint8Array.from({ length: 5000 }, (__, index) => index);
    for (const frame of [frameOf(body), frameOf(body, payload)]) {
      expect(decodeFrame(whole(encodeFrame(frame)))).toEqual(frame);
    }
  });

  test('stays as it is while others are written', () => {
    const frames = Array.from({ length: 2000 }, (_, index) =>
      frameOf({ index, text: 'ä'.repeat(index % 90) }),
    );
    const written = frames.map((frame) => encodeFrame(frame));
    expect(written.map((chunks) => decodeFrame(whole(chunks)))).toEqual(frames);
  });

  test('for many hosts is decoded once, and nobody can change what all of them see', () => {
    const frame = frameOf({ list: [{ vm: 'a' }] });
    const [bytes] = encodeForMany(frame) as [Uint8Array];
    const first = decodeFrame(bytes);
    expect(first).toEqual(frame);
    expect(decodeFrame(bytes)).toBe(first);
    const { list } = first.body as unknown as { list: { vm: string }[] };
    expect(() => list.push({ vm: 'b' })).toThrow(TypeError);
    expect(() => {
      (list[0] as { vm: string }).vm = 'b';
    }).toThrow(TypeError);
  });
});
