// Faults planted at the interesting line: when some host reaches a named point of a protocol for the
// n-th time, that very host loses its power, its daemon, its time or its network, before the next line
// runs. A fault at a random time meets these lines only by rare luck.

import type { Point } from '../../ports/probe.ts';
import type { NetworkChoice, Step, StepKind } from '../../scenario/scenario.ts';
import type { SeededRandom } from '../world/random.ts';

/** `overtaken`: it stands still, and the daemons of all others are started anew meanwhile. */
export type StrikeAction = 'crash' | 'stopDaemon' | 'freeze' | 'isolate' | 'blackout' | 'overtaken';

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
  ['register.accepting', 30],
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
  ['voters.joint', 2],
  ['voters.changed', 2],
  ['copy.replaced', 2],
  ['guest.starting', 3],
  ['guest.started', 3],
  ['protection.set', 3],
  ['ha.elected', 3],
  ['ha.restarting', 3],
];

/** Of a change of policy: struck only where there is one. */
const layoutPoints: readonly (readonly [Point['at'], number])[] = [
  ['mirror.added', 2],
  ['mirror.removed', 2],
  ['next.begun', 2],
  ['next.filling', 2],
  ['next.swapping', 2],
  ['next.swapped', 2],
  ['voters.joint', 3],
  ['voters.changed', 3],
  ['resync.joining', 3],
];

const actions: readonly StrikeAction[] = [
  'crash',
  'crash',
  'crash',
  'stopDaemon',
  'freeze',
  'isolate',
  'blackout',
  'overtaken',
];

export function drawStrikes(random: SeededRandom, durationMs: number): Strike[] {
  const count = random.pick([0, 0, 1, 1, 2, 3, 5]);
  const strikes = Array.from({ length: count }, (_, index) =>
    drawStrike(random.stream(`strike ${index}`), points, durationMs),
  );
  const again = random.stream('again');
  // The next host to come to the same line may meet the same: two that stand in one another's way.
  return strikes.flatMap((strike) =>
    again.chance(0.3)
      ? [strike, { ...strike, occurrence: strike.occurrence + 1 + again.below(4) }]
      : [strike],
  );
}

/** At the lines at which these changes of policy are made. */
export function drawStrikesAt(random: SeededRandom, changes: readonly Step[]): Strike[] {
  const [first] = changes;
  if (first === undefined) return [];
  const count = random.pick([0, 1, 1, 2, 3]);
  return Array.from({ length: count }, (_, index) => ({
    ...drawStrike(random.stream(`strike ${index}`), layoutPoints, 1),
    fromMs: 0,
  }));
}

function drawStrike(random: SeededRandom, from: typeof points, durationMs: number): Strike {
  const [point, often] = random.pick(from);
  const [least, most] = random.pick([
    [50, 800],
    [500, 3000],
    [2000, 9000],
    [8000, 30_000],
  ] as const);
  return {
    point,
    occurrence: 1 + random.below(often),
    fromMs: random.below(durationMs),
    action: random.pick(actions),
    network: random.pick(['storage', 'ha', 'both'] as const),
    lastsMs: Math.ceil(least + random.next() * (most - least)),
  };
}

export interface StrikeSteps {
  readonly begin: readonly StepKind[];
  /** What ends it again, and how long after it began. */
  readonly end: readonly StepKind[];
  readonly endAfterMs: number;
}

const restartMs = 40;

/** What a strike does to the host that reached its point. `others` are those that do not stand still. */
export function stepsOf(strike: Strike, host: string, others: readonly string[]): StrikeSteps {
  const { action, network, lastsMs } = strike;
  const endAfterMs = lastsMs;
  switch (action) {
    case 'crash':
      return { begin: [{ kind: 'crash', host }], end: [{ kind: 'boot', host }], endAfterMs };
    case 'blackout': {
      // The struck one last: it stands in the middle of its line.
      const hosts = [...others, host];
      return {
        begin: hosts.map((one) => ({ kind: 'crash', host: one })),
        end: hosts.map((one) => ({ kind: 'boot', host: one })),
        endAfterMs,
      };
    }
    case 'stopDaemon': {
      const end: StepKind = { kind: 'startDaemon', host };
      return { begin: [{ kind: 'stopDaemon', host }], end: [end], endAfterMs };
    }
    case 'freeze':
      return { begin: [{ kind: 'freeze', host, forMs: lastsMs }], end: [], endAfterMs };
    case 'isolate': {
      const end: StepKind = { kind: 'heal', network };
      return { begin: [{ kind: 'isolate', host, network }], end: [end], endAfterMs };
    }
    case 'overtaken':
      return {
        begin: [
          { kind: 'freeze', host, forMs: lastsMs },
          ...others.map((one): StepKind => ({ kind: 'stopDaemon', host: one })),
        ],
        end: others.map((one) => ({ kind: 'startDaemon', host: one })),
        endAfterMs: restartMs,
      };
  }
}

export function strikeText(strike: Strike): string {
  const { action, point, occurrence, fromMs, lastsMs } = strike;
  return `${action} at ${point}, occurrence ${occurrence} after ${fromMs} ms, for ${lastsMs} ms`;
}
