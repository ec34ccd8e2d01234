// What may befall the cluster now. A fault is admitted, made milder or refused at the moment when it
// would happen, because what it takes away depends on what the cluster has made of the faults
// before it: a host counts as failed until its copies are in sync again.
//
// Only what the policy tolerates may be asked for in *safety of data*: a flushed write that lay on two
// disks is lost with both, whatever the protocol. Losing power loses no disk, so by default (`data`) it
// has no budget: what was flushed has to survive any number of power cuts. Networks, daemons and
// guests never have one.

import { haLimits } from '../../ha/limits.ts';
import { type Ballot, compareBallots } from '../../model/ballot.ts';
import type { ObjectId } from '../../model/ids.ts';
import { hostsNeeded } from '../../model/policy.ts';
import {
  type Component,
  components,
  type DiskRecord,
  groupsOf,
  type ObjectRecord,
  votersOf,
} from '../../model/record.ts';
import type { Point } from '../../ports/probe.ts';
import type { StepKind } from '../../scenario/scenario.ts';
import type { VirtualDisk } from '../world/disk.ts';
import type { Machine } from '../world/machine.ts';
import type { Observer, World } from '../world/world.ts';

/** `policy`: power is lost at no more hosts at a time than each object tolerates; `data`: only the
 * loss of disks is bounded; `none`: nothing is, and data may be lost. */
export type Mercy = 'policy' | 'data' | 'none';

interface Known {
  readonly ballot: Ballot;
  readonly record: ObjectRecord;
}

interface Knowledge {
  committed: Known | null;
  /** The newest that was proposed: it may be chosen yet, or be already. */
  proposed: Known | null;
}

/** After a disk is gone, for how long nothing else may fail: until its copies are out. */
const quietMs = 12_000;

export class Budget implements Observer {
  readonly #world: World;
  readonly #mercy: Mercy;
  readonly #objects = new Map<ObjectId, Knowledge>();
  /** Hosts that have lost what their main disks held, and further devices (as stores) that have, once or for
   * ever. */
  readonly #lost = new Set<string>();
  /** How often the guest of each VM has hung. */
  readonly #hangs = new Map<string, number>();
  #quietUntilMs = 0;
  #disturbedMs = 0;

  constructor(world: World, mercy: Mercy) {
    this.#world = world;
    this.#mercy = mercy;
    world.observe(this);
  }

  get lostDisks(): ReadonlySet<string> {
    return this.#lost;
  }

  reached(_machine: Machine, point: Point): void {
    if (point.at !== 'register.accepting' && point.at !== 'register.committed') return;
    const { object, ballot, record } = point;
    let known = this.#objects.get(object);
    if (known === undefined) {
      known = { committed: null, proposed: null };
      this.#objects.set(object, known);
    }
    if (isNewer(ballot, known.proposed)) known.proposed = { ballot, record };
    if (point.at === 'register.committed' && isNewer(ballot, known.committed)) {
      known.committed = { ballot, record };
    }
  }

  /** What is to be done instead: the step itself, a milder one, or nothing (null). */
  admit(step: StepKind): StepKind | null {
    if (this.#mercy === 'none') return step;
    const admitted = this.#admitted(step);
    const now = this.#world.nowMs();
    if (admitted === null) return null;
    if (isDisturbance(admitted)) this.#disturbedMs = now;
    if (admitted.kind === 'failDisk') {
      const { host, device } = admitted;
      this.#lost.add(device === undefined ? host : this.#world.machine(host).device(device).store);
      this.#quietUntilMs = now + quietMs;
    }
    return admitted;
  }

  #admitted(step: StepKind): StepKind | null {
    if (isDisturbance(step) && this.#world.nowMs() < this.#quietUntilMs) return null;
    // A copy that rots is a failure until it is repaired, and nobody is asked to stand a second one. (A
    // guest that ends fails no copy: the next one reads everything.)
    const isSecond = isDisturbance(step) && step.kind !== 'killGuest';
    if (isSecond && this.#disks().some((disk) => disk.isRotten)) return null;
    switch (step.kind) {
      case 'crash':
        if (this.#mercy === 'data' || this.#standsPowerLoss(step.host)) return step;
        return { kind: 'stopDaemon', host: step.host };
      case 'failDisk':
        return this.#standsDiskLoss(step.host, step.device) ? step : null;
      case 'pullDisk':
      case 'flakyDisk':
        // What was not synced there may be lost, as if the host had lost its power.
        return this.#mercy === 'data' || this.#standsPowerLoss(step.host) ? step : null;
      case 'corruptDisk':
        return this.#standsRot(step.host) ? step : null;
      case 'repairDisk':
        // An empty disk in the place of a good one would be a loss as well.
        return this.#disk(step.host, step.device).isFailed ? step : null;
      case 'hangGuest':
        return this.#standsHang(step.vm) ? step : null;
      default:
        return step;
    }
  }

  /** One that hangs more often is left alone, for longer than a run lasts. */
  #standsHang(vm: string): boolean {
    const often = (this.#hangs.get(vm) ?? 0) + 1;
    this.#hangs.set(vm, often);
    return often <= haLimits.hungRestarts;
  }

  /** All is well and has been for a while, and all that the host holds others hold, too. */
  #standsRot(host: string): boolean {
    if (this.#disturbedMs > 0 && this.#world.nowMs() < this.#disturbedMs + quietMs) return false;
    if (!this.#isWell()) return false;
    return [...this.#objects.values()].every(({ committed, proposed }) => {
      if (committed === null || isNewer(proposed?.ballot ?? null, committed)) return false;
      const { record } = committed;
      if (record.kind !== 'disk') return true;
      if (isChanging(record)) return false;
      const copies = components(record.blueprint);
      if (!copies.every((one) => record.inSync.includes(one.id))) return false;
      return record.blueprint.mirrors.length > 1 || !copies.some((one) => one.host === host);
    });
  }

  #isWell(): boolean {
    const world = this.#world;
    return (
      world.machines.every(
        (one) =>
          one.isPowered &&
          one.host !== null &&
          !one.isFrozen &&
          one.disks.every(
            (disk) => disk.slowerByMs === 0 && disk.errorChance === 0 && !disk.isPulled,
          ),
      ) &&
      world.storageNetwork.isWhole &&
      world.haNetwork.isWhole
    );
  }

  /** Whether no object has more failed hosts than it tolerates when this one fails too. */
  #standsPowerLoss(host: string): boolean {
    return [...this.#objects.values()].every(({ committed }) => {
      if (committed === null) return false;
      const { record } = committed;
      const failed = new Set([host, ...this.#failedHosts(record)]);
      const voters = votersOf(record).map((voter) => voter.host as string);
      const concerned = voters.filter((voter) => failed.has(voter)).length;
      return !voters.includes(host) || concerned <= tolerated(record);
    });
  }

  /** Hosts of the object without power, without their disk's contents, or with a copy out of sync. */
  #failedHosts(record: ObjectRecord): string[] {
    const isDown = ({ host }: { readonly host: string }) => {
      const machine = this.#world.machine(host);
      return (
        !machine.isPowered ||
        this.#lost.has(host) ||
        machine.disks.some((it) => it.isPulled || it.errorChance > 0)
      );
    };
    const down = votersOf(record)
      .filter(isDown)
      .map((voter) => voter.host as string);
    if (record.kind !== 'disk') return down;
    const stale = components(record.blueprint).filter((one) => !record.inSync.includes(one.id));
    return [...down, ...stale.map((one) => one.host as string)];
  }

  /** All is well and has been for a while, and each object of the host can do without it for ever. */
  #standsDiskLoss(host: string, device: string | undefined): boolean {
    const world = this.#world;
    if (world.nowMs() < this.#disturbedMs + quietMs) return false;
    if (!this.#isWell()) return false;
    const store = device === undefined ? host : world.machine(host).device(device).store;
    return [...this.#objects.values()].every(({ committed, proposed }) => {
      if (committed === null || isNewer(proposed?.ballot ?? null, committed)) return false;
      const { record } = committed;
      if (device !== undefined) return this.#standsLossOf(record, store);
      const voters = votersOf(record).map((voter) => voter.host as string);
      if (!voters.includes(host)) return this.#standsLossOf(record, host);
      const gone = voters.filter((voter) => voter === host || this.#lost.has(voter)).length;
      if (gone > tolerated(record) || isChanging(record)) return false;
      return this.#standsLossOf(record, host);
    });
  }

  /** Whether each stripe keeps a copy, and none is out of sync that may come back, when everything on this host,
   * or on this device of one, is lost. */
  #standsLossOf(record: ObjectRecord, hostOrStore: string): boolean {
    if (record.kind !== 'disk') return true;
    const isOn = ({ host, store }: Component) => host === hostOrStore || store === hostOrStore;
    const all = components(record.blueprint);
    if (!all.some(isOn)) return true;
    if (isChanging(record)) return false;
    const isLost = ({ host, store }: Component) => this.#lost.has(host) || this.#lost.has(store);
    if (!all.every((one) => record.inSync.includes(one.id) || isLost(one))) return false;
    return stripesOf(record).every((copies) =>
      copies.some((one) => record.inSync.includes(one.id) && !isOn(one) && !isLost(one)),
    );
  }

  #disk(host: string, device: string | undefined): VirtualDisk {
    const machine = this.#world.machine(host);
    return device === undefined ? machine.disk : machine.device(device).disk;
  }

  #disks(): VirtualDisk[] {
    return this.#world.machines.flatMap((machine) => machine.disks);
  }
}

/** For each stripe its copies. */
function stripesOf({ blueprint: { mirrors } }: DiskRecord): Component[][] {
  const stripes = mirrors[0]?.stripes ?? [];
  return stripes.map((_, index) => mirrors.flatMap((mirror) => mirror.stripes[index] ?? []));
}

function isNewer(ballot: Ballot | null, known: Known | null): boolean {
  return compareBallots(ballot, known?.ballot ?? null) > 0;
}

/** What the object survives as it is: with another policy it is first made as that says. */
function tolerated(record: ObjectRecord): number {
  const votes = Math.min(...groupsOf(record).map((group) => Math.floor((group.length - 1) / 2)));
  const least = Math.min(record.policy.failuresToTolerate, votes);
  return record.kind === 'disk' ? Math.min(least, record.blueprint.mirrors.length - 1) : least;
}

/** It is not yet as its policy says: a copy that is to go may be the one that would be left. */
function isChanging(record: ObjectRecord): boolean {
  const { policy, voters, nextVoters } = record;
  if (nextVoters !== undefined || voters.length !== hostsNeeded(policy)) return true;
  if (record.kind !== 'disk') return false;
  const { mirrors } = record.blueprint;
  return (
    record.next !== undefined ||
    mirrors.length !== policy.failuresToTolerate + 1 ||
    mirrors[0]?.stripes.length !== policy.stripes
  );
}

/** Takes something away, if only for a while. */
function isDisturbance({ kind }: StepKind): boolean {
  const mends = ['heal', 'boot', 'startDaemon', 'freeDisk', 'repairDisk', 'plugDisk', 'powerOn'];
  return !mends.includes(kind);
}
