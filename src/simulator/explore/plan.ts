// From a seed to a run: a scenario, with its faults as plain steps, and what a scenario file can not say,
// faults planted at points of the protocols. Swarm testing (Groce et al., 2012): each seed leaves most
// kinds of faults out and mixes the others in its own proportions, because a run in which everything
// happens all the time never reaches the states in which one thing happens for long.
//
// A plan says what is tried. What the cluster must stand is decided when it happens (`Budget`).

import { timings, timingsProblem } from '../../model/limits.ts';
import { defaultPolicy } from '../../model/policy.ts';
import {
  productStrategies,
  type Scenario,
  type ScenarioCluster,
  type ScenarioHost,
  type ScenarioVm,
} from '../../scenario/scenario.ts';
import type { Workload } from '../world/guest.ts';
import { SeededRandom } from '../world/random.ts';
import type { Mercy } from './budget.ts';
import { drawClasses, drawDeviceFaults, drawDevices } from './draw-devices.ts';
import { drawErrors, drawFaults, drawHangs, drawRot } from './draw-faults.ts';
import { drawPolicyChanges, possibleFailures } from './draw-policies.ts';
import { drawStrikes, drawStrikesAt, type Strike } from './strikes.ts';

export interface Plan {
  readonly scenario: Scenario;
  readonly strikes: readonly Strike[];
  readonly mercy: Mercy;
  readonly workload: Workload;
  /** Hosts that stay without power when the faults stop and all others are healed. */
  readonly abandoned: readonly string[];
}

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;

/** The same seed gives the same plan. Each part draws from a stream of its own. */
export function planOf(seed: number): Plan {
  const random = new SeededRandom(`plan ${seed}`);
  const drawn = drawCluster(random);
  const cluster = { ...drawn, hosts: drawDevices(random.stream('devices'), drawn.hosts) };
  const plainVms = drawVms(random.stream('VMs'), cluster.hosts);
  const ruledVms = drawRules(random.stream('rules'), plainVms);
  const placedVms = drawClasses(random.stream('classes'), ruledVms, cluster.hosts);
  const vms = drawShared(random.stream('shared storage'), placedVms);
  const vmsOnObjects = vms.filter((vm) => vm.storage === 'object');
  const durationMs = 40_000 + random.stream('story').below(50_000);
  const names = { hosts: cluster.hosts, vms: vms.map((vm) => vm.name), durationMs };
  const stage = { ...names, networks: cluster.networks };
  const hangs = drawHangs(random.stream('hangs'), vms, durationMs);
  const options = { ...cluster.options, ...hangs.options };
  const rot = drawRot(random.stream('rot'), vmsOnObjects, durationMs);
  const policies = drawPolicyChanges(
    random.stream('policies'),
    cluster.hosts,
    vmsOnObjects,
    durationMs,
  );
  const faults = [
    ...drawFaults(random.stream('faults'), stage),
    ...rot,
    ...hangs.steps,
    ...policies,
    ...drawDeviceFaults(random.stream('device faults'), cluster.hosts, durationMs),
    ...drawErrors(random.stream('errors'), cluster.hosts, vmsOnObjects, durationMs),
  ];
  return {
    scenario: {
      name: `explored seed ${seed}`,
      seed,
      pending: null,
      durationMs,
      // What nobody reads would be found after a week.
      cluster: {
        ...cluster,
        options: rot.length === 0 ? options : { ...options, scrubInterval: 5000 },
      },
      strategies: productStrategies,
      vms,
      steps: faults.sort((a, b) => a.atMs - b.atMs),
      expect: [],
    },
    strikes: [
      ...drawStrikes(random.stream('strikes'), durationMs),
      ...drawStrikesAt(random.stream('policy strikes'), policies),
    ],
    mercy: drawMercy(random.stream('mercy')),
    workload: drawWorkload(random.stream('workload')),
    abandoned: drawAbandoned(random.stream('core'), cluster.hosts),
  };
}

function drawCluster(random: SeededRandom): ScenarioCluster {
  const swarm = random.stream('cluster');
  const count = swarm.pick([3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 7, 8, 9]);
  const hasWitness = swarm.chance(0.15);
  const hosts = Array.from(
    { length: count },
    (_, index): ScenarioHost => ({
      name: `h${index + 1}`,
      kind: hasWitness && index === count - 1 ? 'witness' : 'full',
      cpus: 16,
      memoryBytes: 64 * gibibyte,
      diskBytes: 2000 * gibibyte,
      site: null,
    }),
  );
  const networks = swarm.chance(0.4) ? 'shared' : 'separate';
  const loss = random.stream('loss');
  const some = () => loss.pick([0, 0, 0, 0, 0.001, 0.01]);
  const options = drawOptions(random.stream('timings'));
  return {
    hosts,
    networks,
    options,
    drift: drawDrift(random.stream('drift'), hosts, options),
    loss: { storage: some(), ha: some() },
    backend: 'builtin',
    guest: 'qemu',
  };
}

/** Timings that the product accepts; half of the seeds have the usual ones. */
function drawOptions(random: SeededRandom): Record<string, number> {
  const usual = random.chance(0.5);
  const heartbeatInterval = random.pick([250, 500, 500, 800]);
  const leaseDuration = random.pick([3000, 4000, 4000, 6000, 10_000]);
  const suspectAfter = random.pick([1700, 2000, 3000]);
  const drawn = {
    heartbeatInterval,
    leaseDuration,
    // A fifth is small, and more than any drift that is drawn.
    safetyMargin: random.chance(0.4) ? leaseDuration / 5 : leaseDuration / 4,
    suspectAfter,
    failAfter: suspectAfter + random.pick([500, 1000, 2000]),
    componentTimeout: random.pick([1000, 2000, 2000, 4000]),
    finishAfter: random.pick([300, 500, 1500]),
    bitmapClear: random.pick([300, 2000]),
    resyncRetry: random.pick([500, 1000]),
    directorySync: random.pick([2000, 5000]),
  };
  const named = Object.entries(drawn).map(([name, ms]) => [`${name}Ms`, ms]);
  const problem = timingsProblem({ ...timings, ...Object.fromEntries(named) });
  if (problem !== null) throw new Error(`drew timings that can not be: ${problem}`);
  // Usually a run is over before anybody counts as gone for good.
  const repair = random.stream('repair');
  const repairs = repair.chance(0.4)
    ? {
        repairDelay: repair.pick([16_000, 20_000, 30_000]),
        repairInterval: repair.pick([500, 2000]),
      }
    : {};
  return usual ? repairs : { ...drawn, ...repairs };
}

/** Two clocks never part by more than four fifths of the safety margin during one lease. */
function drawDrift(
  random: SeededRandom,
  hosts: readonly ScenarioHost[],
  options: Readonly<Record<string, number>>,
): Record<string, number> {
  const lease = options['leaseDuration'] ?? timings.leaseDurationMs;
  const margin = options['safetyMargin'] ?? timings.safetyMarginMs;
  const limit = Math.floor(((0.4 * margin) / lease) * 1000) / 1000;
  const bound = Math.min(limit, random.pick([0, 0, 0, 0.001, 0.01, 0.05, limit, limit]));
  if (bound === 0) return {};
  return Object.fromEntries(
    hosts.map(({ name }) => {
      const draw = random.next() * 2 - 1;
      // Often at the limit: between the extremes nothing is at stake.
      const drift = random.chance(0.5) ? Math.sign(draw) * bound : draw * bound;
      return [name, Math.round(drift * 1e5) / 1e5];
    }),
  );
}

function drawVms(random: SeededRandom, hosts: readonly ScenarioHost[]): ScenarioVm[] {
  const full = hosts.filter((host) => host.kind === 'full').map((host) => host.name);
  const count = 1 + random.below(4);
  return Array.from({ length: count }, (_, index): ScenarioVm => {
    const own = random.stream(`vm${index + 1}`);
    const failuresToTolerate = own.pick(possibleFailures([0, 1, 1, 1, 1, 2], hosts));
    const data = shuffled(own, full).slice(0, failuresToTolerate + 1);
    const others = hosts.map((host) => host.name).filter((name) => !data.includes(name));
    const witnesses = shuffled(own, others).slice(0, failuresToTolerate);
    const disks = own.chance(0.3) ? 2 : 1;
    return {
      name: `vm${index + 1}`,
      on: own.pick(full),
      cpus: 1,
      memoryBytes: 96 * mebibyte,
      disksBytes: Array.from({ length: disks }, () => (1 + own.below(3)) * mebibyte),
      policy: { failuresToTolerate, stripes: own.chance(0.2) ? 2 : 1 },
      components: [...data, ...witnesses],
      objects: {},
      required: null,
      storage: 'object',
      protected: own.chance(0.95),
      priority: 'medium',
      after: [],
      separate: null,
      readyWhen: null,
      affinity: null,
      isolationResponse: null,
      whenHung: null,
      powered: own.chance(0.97),
    };
  });
}

/** What HA keeps to, in a third of the seeds. */
function drawRules(random: SeededRandom, vms: readonly ScenarioVm[]): ScenarioVm[] {
  if (!random.chance(0.35)) return [...vms];
  return vms.map((vm, index): ScenarioVm => {
    const own = random.stream(vm.name);
    const before = vms.slice(0, index).map(({ name }) => name);
    return {
      ...vm,
      priority: own.pick(['highest', 'medium', 'lowest']),
      after: before.filter(() => own.chance(0.3)),
      readyWhen: own.chance(0.3) ? 'heard' : null,
      separate: own.chance(0.3) ? 'apart' : null,
      isolationResponse: own.chance(0.3) ? 'kill' : null,
    };
  });
}

/** In a part of the seeds some VMs lie on storage that all hosts see: they have the namespace object alone, placed as
 * any. The other seeds are what they would be without this. */
function drawShared(random: SeededRandom, vms: readonly ScenarioVm[]): ScenarioVm[] {
  if (!random.chance(0.15)) return [...vms];
  return vms.map((vm): ScenarioVm => {
    if (!random.stream(vm.name).chance(0.5)) return vm;
    return { ...vm, storage: 'shared', components: null, policy: defaultPolicy };
  });
}

function drawMercy(random: SeededRandom): Mercy {
  const draw = random.next();
  if (draw < 0.3) return 'policy';
  return draw < 0.96 ? 'data' : 'none';
}

function drawWorkload(random: SeededRandom): Workload {
  return { intervalMs: random.pick([20, 50, 100, 250, 1000]), blocks: random.pick([3, 8, 16]) };
}

/** Usually all come back; else some of the smaller half do not. */
function drawAbandoned(random: SeededRandom, hosts: readonly ScenarioHost[]): string[] {
  if (random.chance(0.8)) return [];
  const names = shuffled(
    random,
    hosts.map((host) => host.name),
  );
  return names.slice(0, 1 + random.below(Math.floor((hosts.length - 1) / 2)));
}

function shuffled<T>(random: SeededRandom, items: readonly T[]): T[] {
  const list = [...items];
  for (let last = list.length - 1; last > 0; last -= 1) {
    const other = random.below(last + 1);
    [list[last], list[other]] = [list[other] as T, list[last] as T];
  }
  return list;
}
