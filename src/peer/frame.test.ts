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

  const write = { component: 'a1.0.0', token: '7.1', offset: 2 ** 45 + 4096, fua: true };
  const shortened: readonly (readonly [string, JsonValue])[] = [
    ['component.write', write],
    ['component.write', { ...write, offset: 0, fua: false }],
    ['component.read', { component: 'a1.0.0', token: '', offset: 0, length: 0xffffffff }],
    ['component.flush', { component: 'x'.repeat(255), token: '7.1' }],
  ];
  const unusual: readonly (readonly [string, JsonValue])[] = [
    ['component.write', { ...write, sum: 1 }],
    ['component.write', { component: 'a1.0.0', token: '7.1', offset: 1 }],
    ['component.write', { component: 'a1.0.0', token: '7.1', offset: 1, unmap: true }],
    ['component.write', { ...write, offset: -1 }],
    ['component.write', { ...write, offset: 1.5 }],
    ['component.write', { ...write, offset: '1' }],
    ['component.write', { ...write, fua: null }],
    ['component.write', { ...write, component: 'größer' }],
    ['component.write', { ...write, component: 'x'.repeat(256) }],
    ['component.write', null],
    ['component.write', [1, 2]],
  ];

  test.each([...shortened, ...unusual])(
    'of an I/O is read as it was written: %s %j',
    (type, body) => {
      const payload = Uint8Array.from({ length: 300 }, (_, index) => index);
      for (const frame of [
        { ...frameOf(body), type },
        { ...frameOf(body, payload), type },
      ]) {
        expect(decodeFrame(whole(encodeFrame(frame)))).toEqual(frame);
      }
    },
  );

  test.each(shortened)('of an I/O is short: %s %j', (type, body) => {
    const [head] = encodeFrame({ ...frameOf(body), type }) as [Uint8Array];
    expect(head.length).toBeLessThan(JSON.stringify([type, body]).length);
  });

  test('that only says that all is well has no body', () => {
    const reply: Frame = { ...frameOf(null), kind: 'reply' };
    const bytes = whole(encodeFrame(reply));
    expect(bytes.length).toBe(20);
    expect(decodeFrame(bytes)).toEqual({ ...reply, type: '' });
  });

  test('that is cut short, or goes on after its end, is refused', () => {
    for (const [type, body] of shortened) {
      const bytes = whole(encodeFrame({ ...frameOf(body), type }));
      const view = new DataView(bytes.buffer);
      const bodyLength = bytes.length - 20;
      for (let length = 0; length < bodyLength; length += 1) {
        const cut = bytes.slice(0, 20 + length);
        new DataView(cut.buffer).setUint32(12, length);
        expect(() => decodeFrame(cut)).toThrow('Malformed frame');
      }
      const longer = Uint8Array.from([...bytes, 0]);
      new DataView(longer.buffer).setUint32(12, bodyLength + 1);
      expect(() => decodeFrame(longer)).toThrow('Malformed frame');
      view.setUint8(6, 99);
      expect(() => decodeFrame(bytes)).toThrow('Malformed frame');
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
