// What may stand in metadata and in messages: plain JSON, so that records can be stored, sent and
// compared without knowing what a service put into them.

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };
