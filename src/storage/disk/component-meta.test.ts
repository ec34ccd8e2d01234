// The head of a component survives any torn or damaged write as its older or its newer state.

import { describe, expect, it } from 'vitest';
import { componentId, epoch, objectId } from '../../model/ids.ts';
import { type ComponentMeta, decodeSlots, encodeSlot, slotBytes } from './component-meta.ts';

const meta = (at: number): ComponentMeta => ({
  component: componentId('disk.m0.s0'),
  object: objectId('disk'),
  sizeBytes: 1 << 20,
  fence: { epoch: epoch(at), open: at },
  incarnation: `boot-${at}`,
});

function head(...slots: [at: number, meta: ComponentMeta][]): Uint8Array {
  const bytes = new Uint8Array(2 * slotBytes);
  for (const [sequence, content] of slots) {
    bytes.set(encodeSlot(content, sequence), (sequence % 2) * slotBytes);
  }
  return bytes;
}

describe('the head of a component', () => {
  it('is the newer of the two slots', () => {
    expect(decodeSlots(head([1, meta(1)]), 'x')).toEqual({ meta: meta(1), sequence: 1 });
    expect(decodeSlots(head([1, meta(1)], [2, meta(2)]), 'x')).toEqual({
      meta: meta(2),
      sequence: 2,
    });
    expect(decodeSlots(head([3, meta(3)], [2, meta(2)]), 'x')).toEqual({
      meta: meta(3),
      sequence: 3,
    });
  });

  it('is the older or the newer state wherever the write of the newer one was cut', () => {
    const before = head([1, meta(1)], [2, meta(2)]);
    const newer = encodeSlot(meta(3), 3);
    for (let cut = 0; cut <= 400; cut += 1) {
      for (const isHead of [true, false]) {
        const torn = before.slice();
        // Its first bytes arrived, or only those after them.
        if (isHead) torn.set(newer.subarray(0, cut), slotBytes);
        else torn.set(newer.subarray(cut), slotBytes + cut);
        expect([2, 3]).toContain(decodeSlots(torn, 'x').sequence);
        expect([meta(2), meta(3)]).toContainEqual(decodeSlots(torn, 'x').meta);
      }
    }
  });

  it('is never garbage, whichever byte is damaged', () => {
    const whole = head([1, meta(1)], [2, meta(2)]);
    const used = 16 + JSON.stringify(meta(1)).length;
    for (const slot of [0, 1]) {
      for (let at = 0; at < used; at += 1) {
        for (const mask of [0x01, 0x80, 0xff]) {
          const damaged = whole.slice();
          const index = slot * slotBytes + at;
          damaged[index] = (damaged[index] as number) ^ mask;
          const { meta: found, sequence } = decodeSlots(damaged, 'x');
          expect(sequence).toBe(slot === 0 ? 1 : 2);
          expect(found).toEqual(meta(sequence));
        }
      }
    }
  });

  it('says which component is damaged where neither slot is whole', () => {
    expect(() => decodeSlots(new Uint8Array(2 * slotBytes), 'disk.m0')).toThrow(/disk\.m0/);
    expect(() => decodeSlots(new Uint8Array(2 * slotBytes).fill(0xff), 'disk.m0')).toThrow(
      /damaged/,
    );
  });
});
