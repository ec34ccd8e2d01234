// The faults of a plan, as steps of a scenario: what breaks, and when it is whole again. How often what
// happens, and how long it lasts, is drawn once per seed; so one seed is a flapping network, another
// one hosts that crash and crash again.

import type {
  NetworkChoice,
  ScenarioHost,
  ScenarioVm,
  Step,
  StepKind,
} from '../../scenario/scenario.ts';
import type { SeededRandom } from '../world/random.ts';

interface Stage {
  readonly hosts: readonly ScenarioHost[];
  readonly vms: readonly string[];
  readonly durationMs: number;
  readonly networks: 'separate' | 'shared';
}

/** `after`: how long after the fault begins. */
interface Act {
  readonly afterMs: number;
  readonly step: StepKind;
}

type Kind =
  | 'crash'
  | 'blackout'
  | 'daemon'
  | 'upgrade'
  | 'freeze'
  | 'partition'
  | 'isolate'
  | 'block'
  | 'heal'
  | 'guest'
  | 'hang'
  | 'user'
  | 'slow'
  | 'full'
  | 'dead';

/** How usual each is among those that a seed has; a kind is left out by more than half of them. */
const usual: Readonly<Record<Kind, number>> = {
  crash: 6,
  blackout: 1,
  daemon: 5,
  upgrade: 1.5,
  freeze: 4,
  partition: 6,
  isolate: 4,
  block: 3,
  heal: 2,
  guest: 2,
  hang: 0.3,
  user: 2,
  slow: 2,
  full: 1,
  dead: 1.5,
};

/** Settled by the seed, for all of its faults. */
interface Swarm {
  readonly weights: readonly (readonly [Kind, number])[];
  /** Mean time between two faults. */
  readonly paceMs: number;
  readonly networks: readonly NetworkChoice[];
  /** Bounds of how long a fault lasts; one of them is drawn for each. */
  readonly spans: readonly (readonly [number, number])[];
}

const spans = [
  [50, 800],
  [500, 3000],
  [2000, 9000],
  [8000, 30_000],
] as const;

export function drawFaults(random: SeededRandom, stage: Stage): Step[] {
  const swarm = drawSwarm(random.stream('swarm'), stage);
  const when = random.stream('when');
  const steps: Step[] = [];
  let atMs = 200;
  for (let count = 0; atMs < stage.durationMs && count < 120; count += 1) {
    // Mostly apart, at times upon each other.
    const gapMs = when.chance(0.25) ? when.next() * 300 : -Math.log(1 - when.next()) * swarm.paceMs;
    atMs = Math.ceil(atMs + gapMs);
    const own = random.stream(`fault ${count}`);
    for (const { afterMs, step } of drawFault(own, swarm, stage)) {
      const whenMs = Math.ceil(atMs + afterMs);
      if (whenMs < stage.durationMs) steps.push({ atMs: whenMs, ...step });
    }
  }
  return steps.sort((a, b) => a.atMs - b.atMs);
}

/** Guests that hang until somebody ends them, in clusters that find it out within a story: by the usual timings one
 * takes as long as half of it. */
export function drawHangs(
  random: SeededRandom,
  vms: readonly ScenarioVm[],
  durationMs: number,
): { readonly steps: Step[]; readonly options: Readonly<Record<string, number>> } {
  if (!random.chance(0.25)) return { steps: [], options: {} };
  const steps = Array.from({ length: random.pick([1, 2, 4, 8]) }, (_, hang): Step => {
    const own = random.stream(`hang ${hang}`);
    return { atMs: 300 + own.below(durationMs - 300), kind: 'hangGuest', vm: own.pick(vms).name };
  });
  return {
    steps,
    options: {
      guestSilentAfter: random.pick([1500, 3000, 10_000]),
      guestHungAfter: random.pick([1200, 3000, 9000]),
    },
  };
}

/**
 * Rot comes early, where it comes: later there is hardly a time at which nothing else is broken. It comes
 * to the copy that is read, and soon afterwards somebody reads: the guest's successor.
 */
export function drawRot(
  random: SeededRandom,
  vms: readonly ScenarioVm[],
  durationMs: number,
): Step[] {
  const safe = vms.filter((vm) => vm.policy.failuresToTolerate > 0);
  if (safe.length === 0 || !random.chance(0.2)) return [];
  return [4000, 20_000, 40_000].flatMap((latestMs): Step[] => {
    const vm = random.pick(safe);
    const data = (vm.components ?? []).slice(0, vm.policy.failuresToTolerate + 1);
    const host = data.find((one) => one === vm.on) ?? data[0];
    if (host === undefined) return [];
    const atMs = 500 + random.below(latestMs);
    const steps: Step[] = [
      { atMs, kind: 'corruptDisk', host, blocks: random.pick([1, 5, 20, 100]) },
      { atMs: atMs + 1 + random.below(1000), kind: 'killGuest', vm: vm.name },
    ];
    return steps.filter((step) => step.atMs < durationMs);
  });
}

/** Devices of which some operations fail, for a while, on hosts that have something on them. */
export function drawErrors(
  random: SeededRandom,
  hosts: readonly ScenarioHost[],
  vms: readonly ScenarioVm[],
  durationMs: number,
): Step[] {
  const used = hosts.filter(({ name }) => vms.some((vm) => vm.components?.includes(name)));
  if (used.length === 0 || !random.chance(0.2)) return [];
  const count = random.pick([1, 2, 4, 8]);
  return Array.from({ length: count }, (_, fault) => random.stream(`errors ${fault}`)).flatMap(
    (own): Step[] => {
      const { name: host, devices = [] } = own.pick(used);
      const device = own.pick([undefined, ...devices.map(({ name }) => name)]);
      const on = { host, ...(device === undefined ? {} : { device }) };
      const atMs = 300 + own.below(durationMs);
      const endMs = atMs + 50 + own.below(own.pick([500, 3000, 10_000]));
      const errorShare = own.pick([0.01, 0.05, 0.3]);
      const steps: Step[] = [
        { atMs, kind: 'flakyDisk', ...on, errorShare },
        { atMs: endMs, kind: 'flakyDisk', ...on, errorShare: 0 },
      ];
      return steps.filter((step) => step.atMs < durationMs);
    },
  );
}

function drawSwarm(random: SeededRandom, stage: Stage): Swarm {
  const kinds = Object.entries(usual) as [Kind, number][];
  const drawn = kinds.map(([kind, weight]): [Kind, number] => [
    kind,
    random.chance(0.4) ? weight * (0.2 + random.next()) : 0,
  ]);
  const weights = drawn.filter(([, weight]) => weight > 0);
  const choices: readonly NetworkChoice[] = ['storage', 'ha', 'both'];
  const networks = choices.filter(() => random.chance(0.6));
  const chosen = spans.filter(() => random.chance(0.5));
  return {
    weights: weights.length > 0 ? weights : [random.pick(kinds)],
    paceMs: random.pick([700, 1500, 3000, 3000, 6000, 12_000]),
    networks: stage.networks === 'shared' || networks.length === 0 ? ['both'] : networks,
    spans: chosen.length > 0 ? chosen : spans,
  };
}

function drawFault(random: SeededRandom, swarm: Swarm, stage: Stage): Act[] {
  const kind = weighted(random, swarm.weights);
  const host = random.pick(stage.hosts).name;
  const vm = random.pick(stage.vms);
  const network = random.pick(swarm.networks);
  const [least, most] = random.pick(swarm.spans);
  const lastsMs = Math.ceil(least + random.next() * (most - least));
  const until = (begin: StepKind, end: StepKind): Act[] => [
    { afterMs: 0, step: begin },
    { afterMs: lastsMs, step: end },
  ];
  const heal: StepKind = { kind: 'heal', network };
  switch (kind) {
    case 'crash':
      return until({ kind: 'crash', host }, { kind: 'boot', host });
    case 'blackout':
      return blackout(random, stage, lastsMs);
    case 'daemon':
      return until({ kind: 'stopDaemon', host }, { kind: 'startDaemon', host });
    case 'upgrade':
      return upgrade(random, stage);
    case 'freeze':
      return [{ afterMs: 0, step: { kind: 'freeze', host, forMs: lastsMs } }];
    case 'partition':
      return until({ kind: 'partition', network, groups: drawGroups(random, stage) }, heal);
    case 'isolate':
      return until({ kind: 'isolate', host, network }, heal);
    case 'block': {
      const others = stage.hosts.filter((one) => one.name !== host);
      return until({ kind: 'block', network, from: host, to: random.pick(others).name }, heal);
    }
    case 'heal':
      return [{ afterMs: 0, step: { kind: 'heal', network: 'both' } }];
    case 'guest':
      return [{ afterMs: 0, step: { kind: 'killGuest', vm } }];
    case 'hang':
      return until({ kind: 'hangGuest', vm }, { kind: 'killGuest', vm });
    case 'user': {
      const via = random.chance(0.5) ? host : null;
      return until({ kind: 'powerOff', vm, via }, { kind: 'powerOn', vm, via: null });
    }
    case 'slow': {
      const byMs = random.pick([20, 200, 1000, 3000]);
      return until({ kind: 'slowDisk', host, byMs }, { kind: 'slowDisk', host, byMs: 0 });
    }
    case 'full':
      return until({ kind: 'fillDisk', host }, { kind: 'freeDisk', host });
    case 'dead':
      return until({ kind: 'failDisk', host }, { kind: 'repairDisk', host });
  }
}

/** Power is lost everywhere, or nearly; it comes back everywhere, or nearly at once. */
function blackout(random: SeededRandom, stage: Stage, lastsMs: number): Act[] {
  const share = random.pick([0.5, 1, 1]);
  const hosts = stage.hosts.map((one) => one.name).filter(() => random.chance(share));
  const togetherMs = random.pick([0, 0, 300]);
  return hosts.flatMap((host): Act[] => [
    { afterMs: Math.floor(random.next() * togetherMs), step: { kind: 'crash', host } },
    { afterMs: lastsMs + Math.floor(random.next() * 3000), step: { kind: 'boot', host } },
  ]);
}

/** All daemons are started anew, one after the other or nearly so. */
function upgrade(random: SeededRandom, stage: Stage): Act[] {
  const gapMs = random.pick([50, 400, 2000]);
  const downMs = random.pick([20, 200, 1500]);
  return stage.hosts.flatMap(({ name: host }, index): Act[] => {
    const afterMs = Math.floor(index * gapMs * random.next());
    return [
      { afterMs, step: { kind: 'stopDaemon', host } },
      { afterMs: afterMs + downMs, step: { kind: 'startDaemon', host } },
    ];
  });
}

/** Two sides, or three; at least two of them with somebody. */
function drawGroups(random: SeededRandom, stage: Stage): string[][] {
  const sides = random.chance(0.85) ? 2 : 3;
  const groups: string[][] = Array.from({ length: sides }, () => []);
  for (const { name } of stage.hosts) random.pick(groups).push(name);
  const used = groups.filter((group) => group.length > 0);
  const [only] = used;
  if (used.length > 1 || only === undefined) return used;
  return [only.slice(0, 1), only.slice(1)];
}

function weighted(random: SeededRandom, weights: readonly (readonly [Kind, number])[]): Kind {
  const total = weights.reduce((sum, [, weight]) => sum + weight, 0);
  let draw = random.next() * total;
  for (const [kind, weight] of weights) {
    draw -= weight;
    if (draw < 0) return kind;
  }
  return (weights.at(-1) as readonly [Kind, number])[0];
}
