import fc from 'fast-check';
import { expect, it } from 'vitest';
import { decodeRegions, encodeRegions } from './messages.ts';

it('reads regions from any piece of a larger buffer, a Buffer too', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(0xffffffff)), fc.nat(9), fc.nat(9), (regions, before, after) => {
      const encoded = encodeRegions(regions);
      const larger = new Uint8Array(before + encoded.length + after).fill(0xee);
      larger.set(encoded, before);
      const piece = larger.subarray(before, before + encoded.length);
      expect(decodeRegions(piece)).toEqual(regions);
      const buffer = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
      expect(decodeRegions(buffer)).toEqual(regions);
    }),
  );
});
