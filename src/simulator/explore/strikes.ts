// Faults planted at the interesting line: when some host reaches a named point of a protocol for the
// n-th time, that very host loses its power, its daemon, its time or its network, before the next line
// runs. A fault at a random time meets these lines only by rare luck.

import type { Point } from '../../ports/probe.ts';
import type { NetworkChoice, StepKind } from '../../scenario/scenario.ts';
import type { SeededRandom } from '../world/random.ts';

export type StrikeAction = 'crash' | 'stopDaemon' | 'freeze' | 'isolate' | 'blackout';

export interface Strike {
  readonly point: Point['at'];
  /** Counted from time `fromMs` of the story over all hosts; the first is 1. */
  readonly occurrence: number;
  readonly fromMs: number;
  readonly action: StrikeAction;
  /** Of an isolation. */
  readonly network: NetworkChoice;
  /** Until the power, the daemon, or the network is back. */
  readonly lastsMs: number;
}

/** Each with how far to count: what happens often is not always to be struck at its first time. */
const points: readonly (readonly [Point['at'], number])[] = [
  ['register.accepting', 12],
  ['register.acceptedOne', 12],
  ['register.committed', 12],
  ['acceptor.accepted', 30],
  ['lock.taken', 3],
  ['lock.released', 3],
  ['lease.lapsed', 4],
  ['lease.regained', 4],
  ['lease.ended', 4],
  ['disk.fenced', 4],
  ['disk.opened', 4],
  ['disk.inSyncChanged', 5],
  ['disk.inSyncChanged', 5],
  ['resync.joining', 4],
  ['resync.joining', 4],
  ['guest.starting', 3],
  ['guest.started', 3],
  ['protection.set', 3],
  ['ha.elected', 3],
  ['ha.restarting', 3],
];

const actions: readonly StrikeAction[] = [
  'crash',
  'crash',
  'crash',
  'stopDaemon',
  'freeze',
  'isolate',
  'blackout',
];

export function drawStrikes(random: SeededRandom, durationMs: number): Strike[] {
  const count = random.pick([0, 0, 1, 1, 2, 3, 5]);
  return Array.from({ length: count }, (_, index): Strike => {
    const own = random.stream(`strike ${index}`);
    const [point, often] = own.pick(points);
    const [least, most] = own.pick([
      [50, 800],
      [500, 3000],
      [2000, 9000],
      [8000, 30_000],
    ] as const);
    return {
      point,
      occurrence: 1 + own.below(often),
      fromMs: own.below(durationMs),
      action: own.pick(actions),
      network: own.pick(['storage', 'ha', 'both'] as const),
      lastsMs: Math.ceil(least + own.next() * (most - least)),
    };
  });
}

/** What a strike does to the host that reached its point; and what ends it again. */
export function stepsOf(
  strike: Strike,
  host: string,
  hosts: readonly string[],
): { readonly begin: readonly StepKind[]; readonly end: readonly StepKind[] } {
  const { action, network, lastsMs } = strike;
  switch (action) {
    case 'crash':
      return { begin: [{ kind: 'crash', host }], end: [{ kind: 'boot', host }] };
    case 'blackout':
      return {
        // The struck one last: it stands in the middle of its line.
        begin: [...hosts.filter((one) => one !== host), host].map((one) => ({
          kind: 'crash',
          host: one,
        })),
        end: hosts.map((one) => ({ kind: 'boot', host: one })),
      };
    case 'stopDaemon':
      return { begin: [{ kind: 'stopDaemon', host }], end: [{ kind: 'startDaemon', host }] };
    case 'freeze':
      return { begin: [{ kind: 'freeze', host, forMs: lastsMs }], end: [] };
    case 'isolate':
      return { begin: [{ kind: 'isolate', host, network }], end: [{ kind: 'heal', network }] };
  }
}

export function strikeText(strike: Strike): string {
  const { action, point, occurrence, fromMs, lastsMs } = strike;
  return `${action} at ${point}, occurrence ${occurrence} after ${fromMs} ms, for ${lastsMs} ms`;
}
