// Segments against the dumb model: one byte at a time.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { limits } from '../../model/limits.ts';
import { segments, stripeRanges } from './layout.ts';

/** Where one byte of the disk lies. */
function placeOf(stripes: number, stripeBytes: number, byte: number) {
  const chunk = Math.floor(byte / stripeBytes);
  return {
    stripe: chunk % stripes,
    offset: Math.floor(chunk / stripes) * stripeBytes + (byte % stripeBytes),
  };
}

describe('segments', () => {
  it('partition the range, each byte in its place', () => {
    const stripes = fc.integer({ min: 1, max: limits.maxStripes });
    const stripeBytes = fc.integer({ min: 1, max: 16 });
    const offset = fc.nat(400);
    const length = fc.nat(300);
    fc.assert(
      fc.property(stripes, stripeBytes, offset, length, (count, size, from, bytes) => {
        const found: { stripe: number; offset: number }[] = [];
        for (const segment of segments(count, size, from, bytes)) {
          expect(segment.at).toBe(found.length);
          expect(segment.length).toBeGreaterThan(0);
          for (let at = 0; at < segment.length; at += 1) {
            found.push({ stripe: segment.stripe, offset: segment.offset + at });
          }
        }
        const expected = Array.from({ length: bytes }, (_, at) => placeOf(count, size, from + at));
        expect(found).toEqual(expected);
      }),
    );
  });

  it('put two bytes never into one place', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 9 }),
        (stripes, size) => {
          const places = segments(stripes, size, 0, 12 * 9 * 3).flatMap((segment) =>
            Array.from(
              { length: segment.length },
              (_, at) => `${segment.stripe} ${segment.offset + at}`,
            ),
          );
          expect(new Set(places).size).toBe(12 * 9 * 3);
        },
      ),
    );
  });

  it('reach the end of the largest disk exactly', () => {
    const last = limits.maxDiskBytes - 1;
    const [segment] = segments(12, limits.stripeBytes, last, 1);
    expect(segment).toMatchObject({ ...placeOf(12, limits.stripeBytes, last), length: 1, at: 0 });
  });
});

describe('stripe ranges', () => {
  it('are the places of the same bytes, one range per stripe', () => {
    const stripes = fc.integer({ min: 1, max: limits.maxStripes });
    const stripeBytes = fc.integer({ min: 1, max: 16 });
    fc.assert(
      fc.property(stripes, stripeBytes, fc.nat(400), fc.nat(300), (count, size, from, bytes) => {
        const places = Array.from({ length: bytes }, (_, at) => placeOf(count, size, from + at));
        const ranges = stripeRanges(count, size, from, bytes);
        expect(new Set(ranges.map((range) => range.stripe)).size).toBe(ranges.length);
        const found = ranges.flatMap(({ stripe, offset, length }) =>
          Array.from({ length }, (_, at) => `${stripe} ${offset + at}`),
        );
        const expected = places.map(({ stripe, offset }) => `${stripe} ${offset}`);
        expect(found.sort()).toEqual(expected.sort());
      }),
    );
  });
});
