// The named policies of a cluster as one host knows them: a map whose entries are merged one by one,
// so that hosts which tell each other end with the same, in whatever order they hear it. Each entry
// has a version, a counter above all that its writer had seen and then the writer's name; the higher
// one wins. What is removed leaves an entry without a value, or an old telling would bring it back.

import { crc32 } from '../model/crc32.ts';
import { isDeviceClass } from '../model/device.ts';
import { HoldfastError } from '../model/errors.ts';
import type { JsonValue } from '../model/json.ts';
import { limits } from '../model/limits.ts';
import type { StoragePolicy } from '../model/policy.ts';

/** A policy by its name; under the empty name: the name of the default policy. */
type Value = StoragePolicy | string | null;

interface Entry {
  readonly name: string;
  readonly value: Value;
  readonly counter: number;
  readonly host: string;
}

export type PolicyBook = ReadonlyMap<string, Entry>;

const defaultKey = '';

export function policyNamed(book: PolicyBook, name: string): StoragePolicy | null {
  const value = name === defaultKey ? null : book.get(name)?.value;
  return typeof value === 'object' ? value : null;
}

/** The policies that are there, by their names. */
export function policiesOf(book: PolicyBook): [string, StoragePolicy][] {
  return [...book.keys()].flatMap((name): [string, StoragePolicy][] => {
    const policy = policyNamed(book, name);
    return policy === null ? [] : [[name, policy]];
  });
}

/** What was chosen as the default, whether a policy of that name is there or not. */
export function chosenDefault(book: PolicyBook): string | null {
  const value = book.get(defaultKey)?.value;
  return typeof value === 'string' ? value : null;
}

export const withPolicy = (
  book: PolicyBook,
  name: string,
  policy: StoragePolicy | null,
  host: string,
): PolicyBook => written(book, name, policy, host);

export const withDefault = (book: PolicyBook, name: string, host: string): PolicyBook =>
  written(book, defaultKey, name, host);

function written(book: PolicyBook, name: string, value: Value, host: string): PolicyBook {
  const counter = 1 + Math.max(0, ...[...book.values()].map((entry) => entry.counter));
  const next = new Map(book).set(name, { name, value, counter, host });
  if (next.size > limits.maxPolicies) {
    throw new HoldfastError(
      'no-capacity',
      `the cluster knows ${limits.maxPolicies} names of policies, those that were removed included, and that is the bound`,
    );
  }
  return next;
}

/** The very book where nothing is news. */
export function merged(book: PolicyBook, told: PolicyBook): PolicyBook {
  let next: Map<string, Entry> | null = null;
  for (const [name, entry] of told) {
    const known = book.get(name);
    if (known !== undefined && compareVersions(entry, known) <= 0) continue;
    next ??= new Map(book);
    next.set(name, entry);
  }
  return next ?? book;
}

function compareVersions(a: Entry, b: Entry): number {
  return a.counter - b.counter || (a.host < b.host ? -1 : a.host > b.host ? 1 : 0);
}

/** The same for books that say the same, in whatever order they heard it. */
export function entriesOf(book: PolicyBook): JsonValue {
  const sorted = [...book.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return sorted.map(({ name, value, counter, host }) => [
    name,
    counter,
    host,
    typeof value === 'object' && value !== null
      ? [
          value.failuresToTolerate,
          value.stripes,
          value.thick === true,
          ...(value.deviceClass === undefined ? [] : [value.deviceClass]),
        ]
      : value,
  ]);
}

export function digestOf(book: PolicyBook): number {
  return crc32(new TextEncoder().encode(JSON.stringify(entriesOf(book))));
}

/** From a file or another host; throws `bad-request` for what makes no sense. */
export function readBook(entries: JsonValue): PolicyBook {
  if (!Array.isArray(entries)) throw new HoldfastError('bad-request', 'no list of policies');
  return new Map(
    entries.map((item: JsonValue) => {
      const entry = readEntry(item);
      if (entry === null) {
        throw new HoldfastError('bad-request', `${JSON.stringify(item)} describes no policy`);
      }
      return [entry.name, entry];
    }),
  );
}

function readEntry(item: JsonValue): Entry | null {
  if (!Array.isArray(item)) return null;
  const [name, counter, host, told] = item as readonly (JsonValue | undefined)[];
  if (typeof name !== 'string' || typeof host !== 'string') return null;
  if (typeof counter !== 'number' || !Number.isSafeInteger(counter) || counter < 1) return null;
  if (told === null) return { name, counter, host, value: null };
  if (typeof told === 'string')
    return name === defaultKey ? { name, counter, host, value: told } : null;
  if (!Array.isArray(told) || name === defaultKey) return null;
  const [failuresToTolerate, stripes, thick, deviceClass] = told as readonly (
    | JsonValue
    | undefined
  )[];
  if (!isWithin(failuresToTolerate, 0, limits.maxFailuresToTolerate)) return null;
  if (!isWithin(stripes, 1, limits.maxStripes)) return null;
  if (deviceClass !== undefined && !isDeviceClass(deviceClass)) return null;
  const value = {
    failuresToTolerate,
    stripes,
    ...(thick === true ? { thick } : {}),
    ...(deviceClass === undefined ? {} : { deviceClass }),
  };
  return { name, counter, host, value };
}

function isWithin(value: JsonValue | undefined, least: number, most: number): value is number {
  return Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
}
