import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatDuration, formatSize, parseDuration, parseSize } from './quantities.ts';

const natural = fc.oneof(
  fc.maxSafeNat(),
  fc
    .tuple(
      fc.nat(8191),
      fc.constantFrom(1, 1024, 2 ** 20, 2 ** 30, 2 ** 40, 1000, 60_000, 3_600_000),
    )
    .map(([count, unit]) => count * unit),
);

describe('sizes', () => {
  it.each([
    ['96MiB', 96 * 2 ** 20],
    ['1GiB', 2 ** 30],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['512KiB', 512 * 1024],
    ['0', 0],
    ['4096', 4096],
    ['7B', 7],
    [' 1 TiB ', 2 ** 40],
    [268435456, 268435456],
  ])('%s is understood', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each([
    '',
    '-1',
    '1G',
    '1GB',
    '1gib',
    'MiB',
    '1.0001KiB',
    '1e3',
    '99999999TiB',
    'NaN',
    -5,
    0.5,
  ])('%s is refused', (text) => {
    expect(parseSize(text)).toBeNull();
  });

  it('reads back what it formats', () => {
    fc.assert(fc.property(natural, (bytes) => parseSize(formatSize(bytes)) === bytes));
    expect(formatSize(96 * 2 ** 20)).toBe('96MiB');
    expect(formatSize(1000)).toBe('1000');
  });
});

describe('durations', () => {
  it.each([
    ['500ms', 500],
    ['10s', 10_000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['2h', 7_200_000],
    ['0ms', 0],
  ])('%s is understood', (text, durationMs) => {
    expect(parseDuration(text)).toBe(durationMs);
  });

  it.each(['', '5', '-5s', '5d', '5 minutes', '0.5ms', 's', 'constructor', '1toString'])(
    '%s is refused',
    (text) => {
      expect(parseDuration(text)).toBeNull();
    },
  );

  it('reads back what it formats', () => {
    fc.assert(fc.property(natural, (ms) => parseDuration(formatDuration(ms)) === ms));
    expect(formatDuration(4000)).toBe('4s');
  });
});
