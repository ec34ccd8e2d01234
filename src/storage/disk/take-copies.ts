// Taking the copies of one stripe when its disk is opened: which of those that count can be used, and
// whether writes that were acknowledged may be lost on all of them.

import { HoldfastError } from '../../model/errors.ts';
import type { HostId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Copy } from './copy.ts';
import type { Mirror } from './mirror.ts';

interface Surroundings {
  /** For people: `web-1/disk0`. */
  readonly name: string;
  readonly clock: Clock;
  readonly timings: Timings;
  /** Heard of lately: worth to be waited for. */
  readonly isReachable: (host: HostId) => boolean;
}

interface Taken {
  readonly copy: Copy;
  readonly error: HoldfastError | null;
  readonly mayHaveLost: boolean;
  readonly regions: number[];
}

/** Takes all in-sync components of a stripe; whose answer does not come in time is unusable. Rejects with
 * `fenced`, and with `inaccessible` where none answers. */
export async function takeCopies(
  mirror: Mirror,
  surroundings: Surroundings,
): Promise<{ unusable: Copy[]; writesLost: boolean }> {
  const counting = mirror.copies.filter((copy) => copy.state === 'inSync');
  const results = await Promise.all(counting.map((copy) => takeOne(copy, surroundings)));
  const taken = results.filter((result) => result.error === null);
  const fenced = results.find((result) => result.error?.code === 'fenced');
  if (fenced?.error) throw fenced.error;
  if (taken.length === 0) {
    const hosts = counting.map((copy) => copy.component.host).join(', ');
    throw new HoldfastError(
      'inaccessible',
      `${surroundings.name}: no in-sync copy answers; they are on ${hosts} (${results[0]?.error?.message ?? 'none'})`,
    );
  }
  for (const { regions } of taken) mirror.markDirty(regions);
  const kept = taken.filter((result) => !result.mayHaveLost);
  // Without a copy that kept everything the last flush still holds on each of them; which one
  // serves is open, and a running guest has seen more than that.
  const usable = kept.length > 0 ? kept : taken;
  const unusable = counting.filter((copy) => !usable.some((result) => result.copy === copy));
  return { unusable, writesLost: kept.length === 0 };
}

function takeOne(copy: Copy, { clock, timings, isReachable }: Surroundings): Promise<Taken> {
  const until = clock.now() + timings.componentTimeoutMs;
  return new Promise((resolve) => {
    const attempt = () => {
      copy.take((error, mayHaveLost, regions) => {
        const mayAnswer = error?.code === 'unreachable' && isReachable(copy.component.host);
        if (mayAnswer && clock.now() < until) clock.after(100, attempt);
        else resolve({ copy, error, mayHaveLost, regions });
      });
    };
    attempt();
  });
}
