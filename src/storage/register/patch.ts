// What changes from one record to the next, as JSON that is short where little changes: most writes
// touch one key of a record of a kilobyte. To apply it to the very record that it was made from gives
// the new one; nothing else may be given to it, which is for the caller to see to.
//
// A patch names keys. Each has a list of one, the new value; or 0, it goes; or a patch of its own. The
// parts that two records share are found by identity first, so to compare costs next to nothing where
// the new record was made by copying the old one with a change.

import { type JsonValue, sameJson } from '../../model/json.ts';
import { type ObjectRecord, sameVoting } from '../../model/record.ts';

export type Patch = { readonly [key: string]: Edit };
type Edit = 0 | readonly [JsonValue] | Patch;
type JsonObject = { readonly [key: string]: JsonValue | undefined };

/** Record, metadata, service: below that values are replaced, not looked into. */
const depth = 3;

/** Null where it can not be said in a patch, or not in a short one: then the record is to be sent. */
export function difference(from: ObjectRecord, to: ObjectRecord): Patch | null {
  return between(from as unknown as JsonObject, to as unknown as JsonObject, depth);
}

/** A patch and its text; a patch of null leaves the record as it is. */
export interface PatchText {
  readonly patch: Patch | null;
  readonly text: string;
}

export const unchanged: PatchText = { patch: null, text: 'null' };

/** `difference` of records with the same voters. Where these change the record goes as a whole, since
 * some voters have none. */
export function patchBetween(from: ObjectRecord, to: ObjectRecord): PatchText | null {
  if (from.nextVoters !== undefined || !sameVoting(from, to)) return null;
  const patch = difference(from, to);
  return patch === null ? null : { patch, text: JSON.stringify(patch) };
}

/** By how many bytes a record may grow by it: a character of a string takes at most three. */
export function maxGrowth(patch: PatchText | null): number {
  return patch === null ? 0 : 3 * patch.text.length;
}

export function patched(record: ObjectRecord, patch: Patch): ObjectRecord {
  return apply(record as unknown as JsonObject, patch) as unknown as ObjectRecord;
}

function between(from: JsonObject, to: JsonObject, levels: number): Patch | null {
  const patch: Record<string, Edit> = {};
  for (const key in to) {
    const after = to[key];
    const before = Object.hasOwn(from, key) ? from[key] : undefined;
    if (after === before || after === undefined) continue;
    // It would be no key of its own where it is assigned.
    if (key === '__proto__') return null;
    if (levels > 1 && isObject(before) && isObject(after)) {
      const inner = between(before, after, levels - 1);
      if (inner === null) return null;
      if (!isEmpty(inner)) patch[key] = inner;
    } else if (!sameJson(before, after)) {
      patch[key] = [after];
    }
  }
  for (const key in from) {
    const isThere = from[key] !== undefined;
    if (isThere && (!Object.hasOwn(to, key) || to[key] === undefined)) patch[key] = 0;
  }
  return patch;
}

function apply(before: JsonObject, patch: Patch): JsonObject {
  const after: Record<string, JsonValue | undefined> = { ...before };
  for (const key in patch) {
    const edit = patch[key] as Edit;
    if (edit === 0) delete after[key];
    else if (isList(edit)) after[key] = edit[0];
    else after[key] = apply(after[key] as JsonObject, edit) as JsonValue;
  }
  return after;
}

const isList = (edit: Edit): edit is readonly [JsonValue] => Array.isArray(edit);

function isObject(value: JsonValue | undefined): value is { readonly [key: string]: JsonValue } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isEmpty(patch: Patch): boolean {
  for (const _ in patch) return false;
  return true;
}
