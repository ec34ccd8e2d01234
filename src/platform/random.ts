// Randomness from the kernel. It has no seed, so the named streams, which exist for the simulator's
// sake, are all the same source here.

import { randomBytes, randomFillSync } from 'node:crypto';
import type { Random } from '../ports/random.ts';

/** Numbers are drawn some hundred at a time: the call takes 2 us, whatever it returns. */
const poolBytes = 4096;
const numberBytes = 6;

export function createRandom(): Random {
  const pool = Buffer.alloc(poolBytes);
  let used = poolBytes;
  const random: Random = {
    next() {
      if (used + numberBytes > poolBytes) {
        randomFillSync(pool);
        used = 0;
      }
      used += numberBytes;
      return pool.readUIntBE(used - numberBytes, numberBytes) / 2 ** 48;
    },
    id: () => randomBytes(16).toString('hex'),
    stream: () => random,
  };
  return random;
}
