// The clever reader against the dumb one: however a text is cut into chunks, the lines are those that
// splitting all of it gives, except those that are too long.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LineReader } from '../../src/qemu/lines.ts';

const maxBytes = 6;

test('lines do not depend on how the bytes arrive', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '\n', '\r', 'é'), maxLength: 60 });
  fc.assert(
    fc.property(text, fc.array(fc.integer({ min: 1, max: 9 })), (whole, cuts) => {
      const reader = new LineReader(maxBytes);
      const lines: string[] = [];
      let rest: Uint8Array = Buffer.from(whole);
      for (const cut of [...cuts, rest.length]) {
        lines.push(...reader.push(rest.subarray(0, cut)));
        rest = rest.subarray(cut);
      }
      const all = whole.split('\n').slice(0, -1);
      const short = all.filter((line) => Buffer.byteLength(line) <= maxBytes);
      expect(lines).toEqual(short.map((line) => line.replace(/\r$/, '')));
      expect(reader.dropped).toBeGreaterThanOrEqual(all.length - short.length);
    }),
  );
});

test('a line without end does not pile up', () => {
  const reader = new LineReader(100);
  for (let chunk = 0; chunk < 1000; chunk += 1)
    expect(reader.push(Buffer.alloc(64, 'x'))).toEqual([]);
  expect(reader.push(Buffer.from('x\nnext\n'))).toEqual(['next']);
  expect(reader.dropped).toBe(1);
});
