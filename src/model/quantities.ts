// Sizes and durations as people write them: `96MiB`, `500ms`. Only binary units and explicit time
// units are known, because `1G` and a bare `5` have each meant two things to somebody. What is
// formatted here reads back as exactly the same number.

const sizeUnits = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const;
const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;

/** What `parseSize` understands, for messages. */
export const sizeSyntax = 'a size such as 96MiB (B, KiB, MiB, GiB, TiB, or bytes without a unit)';
/** What `parseDuration` understands, for messages. */
export const durationSyntax = 'a duration such as 500ms (ms, s, m or h)';

/** Bytes, or null for what is not a size. A fraction must come out as whole bytes: `1.5GiB`. */
export function parseSize(text: string | number): number | null {
  return parse(String(text), sizeUnits, 'B');
}

/** With the largest unit that divides it; plain bytes have none. */
export function formatSize(sizeBytes: number): string {
  const text = format(sizeBytes, sizeUnits);
  return text.endsWith('iB') ? text : String(sizeBytes);
}

/** Milliseconds, or null for what is not a duration. A fraction must come out as whole ms: `1.5s`. */
export function parseDuration(text: string): number | null {
  return parse(text, durationUnits, null);
}

/** With the largest unit that divides it. */
export function formatDuration(durationMs: number): string {
  return format(durationMs, durationUnits);
}

type Units = Readonly<Record<string, number>>;

function parse(text: string, units: Units, unitless: string | null): number | null {
  const match = /^(\d{1,16}(?:\.\d{1,16})?) ?([A-Za-z]*)$/.exec(text.trim());
  if (match === null) return null;
  const unit = match[2] === '' ? unitless : (match[2] as string);
  if (unit === null || !Object.hasOwn(units, unit)) return null;
  const value = Number(match[1]) * (units[unit] as number);
  return Number.isSafeInteger(value) ? value : null;
}

function format(value: number, units: Units): string {
  let best = Object.keys(units)[0] as string;
  for (const [unit, factor] of Object.entries(units)) {
    if (value !== 0 && value % factor === 0) best = unit;
  }
  return `${value / (units[best] as number)}${best}`;
}
