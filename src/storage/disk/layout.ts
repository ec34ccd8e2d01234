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
