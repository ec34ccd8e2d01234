// Runs against the dumb model: one byte at a time.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { grainBytes, zeroRuns } from './zero-runs.ts';

describe('zero runs', () => {
  it('partition the bytes, and a zero run holds nothing else', () => {
    const place = fc.nat(6 * grainBytes);
    const data = fc.array(fc.tuple(place, fc.constantFrom(1, 5, 9000)), { maxLength: 5 });
    fc.assert(
      fc.property(data, place, place, fc.nat(7), (islands, length, offset, shift) => {
        // Begins anywhere in its buffer, as what comes from the network does.
        const buffer = new Uint8Array(length + shift).fill(0xff, 0, shift);
        const bytes = buffer.subarray(shift);
        for (const [at, count] of islands) bytes.fill(7, at, at + count);
        let next = 0;
        let last: boolean | null = null;
        for (const { at, length: count, isZero } of zeroRuns(bytes, offset)) {
          expect(at).toBe(next);
          expect(count).toBeGreaterThan(0);
          expect(isZero).not.toBe(last);
          const run = bytes.subarray(at, at + count);
          if (isZero) expect(run.every((byte) => byte === 0)).toBe(true);
          else expect(run.some((byte) => byte !== 0)).toBe(true);
          // Between two runs lies the border of a grain, so no hole is split finer.
          if (at > 0) expect((offset + at) % grainBytes).toBe(0);
          next = at + count;
          last = isZero;
        }
        expect(next).toBe(length);
      }),
      { numRuns: 200 },
    );
  });

  it('see a byte at either end of a grain', () => {
    for (const at of [0, grainBytes - 1, grainBytes, 2 * grainBytes - 1]) {
      const bytes = new Uint8Array(2 * grainBytes);
      bytes[at] = 1;
      const zero = zeroRuns(bytes, 0).filter((run) => run.isZero);
      expect(zero).toEqual([
        { at: at < grainBytes ? grainBytes : 0, length: grainBytes, isZero: true },
      ]);
    }
  });
});
