// Randomness: for back-off and for identities, by named streams, so that a new draw in one place
// does not shift what another place sees.

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** A new identity of 128 bits in lower-case hexadecimal. */
  id(): string;
  /** The stream of this name; each name has its own sequence. */
  stream(name: string): Random;
}
