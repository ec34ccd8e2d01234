// What may stand in metadata and in messages: plain JSON, so that records can be stored, sent and
// compared without knowing what a service put into them.

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** Whether the two say the same; the keys of an object may come in any order. */
export function sameJson(a: JsonValue | undefined, b: JsonValue | undefined): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const ofA = a as { readonly [key: string]: JsonValue };
  const ofB = b as { readonly [key: string]: JsonValue };
  let more = 0;
  for (const key in ofA) {
    if (!Object.hasOwn(ofB, key) || !sameJson(ofA[key], ofB[key])) return false;
    more += 1;
  }
  for (const _ in ofB) more -= 1;
  return more === 0;
}
