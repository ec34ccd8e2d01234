// Randomness from the kernel. It has no seed, so the named streams, which exist for the simulator's
// sake, are all the same source here.

import { randomBytes } from 'node:crypto';
import type { Random } from '../ports/random.ts';

export function createRandom(): Random {
  const random: Random = {
    next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
    id: () => randomBytes(16).toString('hex'),
    stream: () => random,
  };
  return random;
}
