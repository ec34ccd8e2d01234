// Which bytes of a disk lie where: chunks of `stripeBytes` go to the stripes in turn (RAID 0). One
// stripe is enough for most disks; then a disk's bytes are its component's bytes.

export interface Segment {
  readonly stripe: number;
  /** Offset within the stripe's components. */
  readonly offset: number;
  readonly length: number;
  /** Offset within the request. */
  readonly at: number;
}

/** The pieces of a range, in the order of the range; pieces that adjoin within a stripe are one. */
export function segments(
  stripes: number,
  stripeBytes: number,
  offset: number,
  length: number,
): Segment[] {
  if (stripes === 1) return length === 0 ? [] : [{ stripe: 0, offset, length, at: 0 }];
  const pieces: Segment[] = [];
  let at = 0;
  while (at < length) {
    const position = offset + at;
    const chunk = Math.floor(position / stripeBytes);
    const within = position % stripeBytes;
    const piece = Math.min(stripeBytes - within, length - at);
    pieces.push({
      stripe: chunk % stripes,
      offset: Math.floor(chunk / stripes) * stripeBytes + within,
      length: piece,
      at,
    });
    at += piece;
  }
  return pieces;
}

/** The same range as one piece per stripe, for what needs no place in a request: bytes that follow
 * each other on the disk do so within each stripe. */
export function stripeRanges(
  stripes: number,
  stripeBytes: number,
  offset: number,
  length: number,
): { readonly stripe: number; readonly offset: number; readonly length: number }[] {
  if (length === 0) return [];
  /** Bytes of a stripe that lie before a position of the disk. */
  const before = (stripe: number, position: number) => {
    const chunk = Math.floor(position / stripeBytes);
    const rows = Math.floor(chunk / stripes);
    const within = chunk % stripes;
    if (stripe < within) return (rows + 1) * stripeBytes;
    return rows * stripeBytes + (stripe === within ? position % stripeBytes : 0);
  };
  return Array.from({ length: stripes }, (_, stripe) => {
    const from = before(stripe, offset);
    return { stripe, offset: from, length: before(stripe, offset + length) - from };
  }).filter((range) => range.length > 0);
}
