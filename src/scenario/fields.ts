// Readers of single values, and how larger ones are made of smaller ones. A field takes a place and
// gives what stands there, or reports a problem and gives undefined. What was read of a file with
// problems is never used, so undefined needs no other care than to be passed on.

import { limits } from '../model/limits.ts';
import { durationSyntax, parseDuration, parseSize, sizeSyntax } from '../model/quantities.ts';
import { hint, nearest } from './nearest.ts';
import type { Place } from './source.ts';

export type Field<T> = (place: Place) => T | undefined;

// --- single values -------------------------------------------------------------------------------

/** The place itself, to be read later. */
export const raw: Field<Place> = (place) => place;

/** One line of text that says something. */
export const line: Field<string> = (place) => {
  const value = place.scalar();
  const isLine = typeof value === 'string' && value.trim() !== '' && !/\p{Cc}/u.test(value);
  return isLine ? value : place.expected('a line of text');
};

/** A DNS label, as the product wants names of hosts and VMs. */
export const label: Field<string> = (place) => {
  const value = place.scalar();
  const isLabel = typeof value === 'string' && /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value);
  return isLabel
    ? value
    : place.expected(`1 to ${limits.maxNameLength} lower-case letters, digits and inner hyphens`);
};

export const boolean: Field<boolean> = (place) => {
  const value = place.scalar();
  return typeof value === 'boolean' ? value : place.expected('true or false');
};

export function oneOf<const Values extends readonly string[]>(
  ...values: Values
): Field<Values[number]> {
  return (place) => {
    const value = place.scalar();
    return values.find((one) => one === value) ?? place.expected(alternatives(values));
  };
}

export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Field<number> {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  return (place) => {
    const value = place.scalar();
    const isGood = Number.isSafeInteger(value) && (value as number) >= min;
    // A YAML -0 is an integer too.
    if (isGood && (value as number) <= max) return (value as number) + 0;
    return place.expected(`a whole number ${range}`);
  };
}

/** Of a number in `unitBytes`; gives bytes. */
export function amount(unitBytes: number, minBytes: number, maxBytes: number): Field<number> {
  const what = `a number from ${minBytes / unitBytes} to ${maxBytes / unitBytes}, in whole bytes`;
  return (place) => {
    const value = place.scalar();
    const bytes = typeof value === 'number' ? value * unitBytes : Number.NaN;
    const isGood = Number.isSafeInteger(bytes) && bytes >= minBytes && bytes <= maxBytes;
    return isGood ? bytes : place.expected(what);
  };
}

/** Text such as `8GiB`; gives bytes. */
export const diskSize: Field<number> = (place) => {
  const value = place.scalar();
  const bytes = typeof value === 'string' || typeof value === 'number' ? parseSize(value) : null;
  if (bytes === null) return place.expected(sizeSyntax);
  const { minDiskBytes: min, maxDiskBytes: max, blockBytes: block } = limits;
  const isGood = bytes >= min && bytes <= max && bytes % block === 0;
  return isGood
    ? bytes
    : place.expected(`a multiple of ${block} bytes from ${min} (1MiB) to ${max} (62TiB)`);
};

/** The longest delay that Node's timers know (2^31 ms) is a little more. */
const maxDurationMs = 24 * 24 * 3_600_000;

/** Text such as `10s`; gives milliseconds. */
export function duration(minMs = 0): Field<number> {
  return (place) => {
    const value = place.scalar();
    const ms = typeof value === 'string' ? parseDuration(value) : null;
    if (ms === null) return place.expected(durationSyntax);
    if (ms > maxDurationMs) return place.expected('at most 24 days');
    return ms >= minMs ? ms : place.expected(`at least ${minMs}ms`);
  };
}

/** Text such as `-0.5%`; gives a fraction. The point is moved in the text, so that nothing is rounded. */
export function percent(min: number, max: number): Field<number> {
  return (place) => {
    const value = place.scalar();
    const digits = /^([+-]?\d+(?:\.\d+)?) ?%$/.exec(typeof value === 'string' ? value : '')?.[1];
    if (digits === undefined) return place.expected('a percentage such as 0.5%');
    const fraction = Number(`${digits}e-2`) + 0;
    const isGood = fraction >= min / 100 && fraction <= max / 100;
    return isGood ? fraction : place.expected(`${min}% to ${max}%`);
  };
}

// --- lists ---------------------------------------------------------------------------------------

export function list<T>(field: Field<T>, min = 0, max = Number.MAX_SAFE_INTEGER): Field<T[]> {
  return (place) => {
    const read = each(place, field);
    if (read === undefined) return undefined;
    if (read.length < min || read.length > max) {
      const range = max === Number.MAX_SAFE_INTEGER ? `at least ${min}` : `${min} to ${max}`;
      return place.report(`expected a list of ${range}, found ${read.length}`);
    }
    return read.includes(undefined) ? undefined : (read as T[]);
  };
}

/** The entries of a list, undefined for the bad ones. */
export function each<T>(place: Place, field: Field<T>): (T | undefined)[] | undefined {
  return place.items()?.map(field) ?? place.expected('a list');
}

/** A field whose value is accepted only once in `seen`. */
export function distinct(field: Field<string>, seen: Set<string>): Field<string> {
  return (place) => {
    const value = field(place);
    if (value === undefined || !seen.has(value)) {
      if (value !== undefined) seen.add(value);
      return value;
    }
    return place.report(`${value} stands here twice`);
  };
}

/** A list without repetitions. */
export function distinctList(field: Field<string>, min = 0): Field<string[]> {
  return (place) => list(distinct(field, new Set()), min)(place);
}

// --- maps ----------------------------------------------------------------------------------------

/** A value of a map under its key; `absent` gives the value if the key is missing, null: it must not be. */
export interface Entry<T> {
  readonly field: Field<T>;
  readonly absent: (() => T) | null;
}

export type Shape = Readonly<Record<string, Entry<unknown>>>;

export type Read<S extends Shape> = {
  readonly [Key in keyof S]: S[Key] extends Entry<infer T> ? T : never;
};

export const required = <T>(field: Field<T>): Entry<T> => ({ field, absent: null });
export const orNull = <T>(field: Field<T>): Entry<T | null> => ({ field, absent: () => null });
export const optional = <T>(field: Field<T>, value: NoInfer<T>): Entry<T> => ({
  field,
  absent: () => value,
});

/** What can be read of a map; keys of bad values are missing. */
export function parts<S extends Shape>(place: Place, shape: S): Partial<Read<S>> {
  const known = Object.keys(shape);
  const read: Record<string, unknown> = {};
  if (!place.isMap) {
    place.expected(`a map with the keys ${known.join(', ')}`);
    return read as Partial<Read<S>>;
  }
  const values = place.values();
  for (const [key, value] of values) {
    if (!Object.hasOwn(shape, key)) value.report(unknownKey(key, known));
  }
  for (const [key, { field, absent }] of Object.entries(shape)) {
    const value = values.get(key);
    if (value !== undefined) read[key] = field(value);
    else if (absent !== null) read[key] = absent();
    else place.child(key).report('is missing');
  }
  return read as Partial<Read<S>>;
}

/** All of what `parts` read, or undefined if some of it was bad. */
export function complete<S extends Shape>(read: Partial<Read<S>>, shape: S): Read<S> | undefined {
  return Object.keys(shape).every((key) => read[key] !== undefined) ? (read as Read<S>) : undefined;
}

export function record<S extends Shape>(shape: S): Field<Read<S>> {
  return (place) => complete(parts(place, shape), shape);
}

/** A map whose keys are names; `problemOf` a key that must not be there, or null. */
export function table<T>(
  problemOf: (key: string) => string | null,
  field: Field<T>,
): Field<Readonly<Record<string, T>>> {
  return (place) => {
    if (!place.isMap) return place.expected('a map');
    const read = [...place.values()].map(([key, value]): [string, T | undefined] => {
      const problem = problemOf(key);
      return [key, problem === null ? field(value) : value.report(problem)];
    });
    const good = read.filter((pair): pair is [string, T] => pair[1] !== undefined);
    return good.length === read.length ? Object.fromEntries(good) : undefined;
  };
}

export function unknownKey(key: string, known: readonly string[]): string {
  return `unknown key${hint(key, known) || `; known here: ${known.join(', ')}`}`;
}

// --- maps of several forms -----------------------------------------------------------------------

/** A map that is told from others by one key. */
export type Form<T> = (place: Place, key: string) => T | undefined;

export function form<V, S extends Shape, T>(
  value: Field<V>,
  more: S,
  make: (value: V, more: Read<S>, place: Place) => T | undefined,
): Form<T> {
  return (place, key) => {
    const read: Readonly<Record<string, unknown>> | undefined = record({
      [key]: required(value),
      ...more,
    })(place);
    return read === undefined ? undefined : make(read[key] as V, read as Read<S>, place);
  };
}

/** Exactly one of the forms; `what` names the whole, such as `a step`. */
export function oneForm<T>(what: string, forms: Readonly<Record<string, Form<T>>>): Field<T> {
  const known = Object.keys(forms);
  return (place) => {
    if (!place.isMap) return place.expected(`${what}: a map`);
    const keys = [...place.keys()];
    const [key, second] = keys.filter((one) => Object.hasOwn(forms, one));
    if (key !== undefined && second === undefined) return forms[key]?.(place, key);
    if (key !== undefined) return place.report(`${what} has one of these keys: ${key}, ${second}`);
    const mistyped = keys.find((one) => nearest(one, known) !== null);
    if (mistyped !== undefined) return place.child(mistyped).report(unknownKey(mistyped, known));
    return place.report(`${what} needs one of the keys ${alternatives(known)}`);
  };
}

/** `a, b or c` */
function alternatives(values: readonly string[]): string {
  const [last = '', ...others] = values.toReversed();
  return others.length === 0 ? last : `${others.toReversed().join(', ')} or ${last}`;
}
