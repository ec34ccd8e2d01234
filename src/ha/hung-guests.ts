// What the master does about guests that hang on living hosts: it has their hosts end them, so that they count as
// guests that ended by themselves, and the failover machine starts them again. It asks only for what helps: of a
// protected VM whose rules allow it and whose objects can be had, and not again and again. A guest that hangs
// does no harm while it is left alone; one that is ended for nothing loses what its user was doing.

import type { Epoch, HostId, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import { haLimits } from './limits.ts';
import type { Report } from './relations.ts';

export interface HungWorld {
  /** Guests that hang, as the hosts say that run them. */
  hung(): readonly Report[];
  state(vm: VmId): ProtectionState | null;
  isAccessible(vm: VmId): boolean;
}

export interface EndHung {
  readonly vm: VmId;
  readonly name: string;
  readonly host: HostId;
  readonly epoch: Epoch;
}

interface History {
  /** When its guests were ended. */
  endedAtMs: number[];
  /** Not to be asked for before. */
  askAtMs: number;
  /** Of which epoch it was told that it is left alone. */
  toldEpoch: Epoch | null;
}

export class HungGuests {
  readonly #world: HungWorld;
  /** It hangs once more, and is left alone. */
  readonly #onLeft: (vm: EndHung, text: string) => void;
  readonly #histories = new Map<VmId, History>();
  #nextWakeMs = Number.POSITIVE_INFINITY;

  constructor(world: HungWorld, onLeft: (vm: EndHung, text: string) => void) {
    this.#world = world;
    this.#onLeft = onLeft;
  }

  /** Guests that their hosts are to be told to end. */
  advance(nowMs: number): EndHung[] {
    this.#nextWakeMs = Number.POSITIVE_INFINITY;
    return this.#world.hung().flatMap((report) => this.#look(report, nowMs) ?? []);
  }

  /** Its host has ended it, or refused to, or did not answer. */
  answered(vm: VmId, isEnded: boolean, nowMs: number): void {
    const history = this.#histories.get(vm);
    if (history === undefined) return;
    history.askAtMs = nowMs + haLimits.hungAskAgainMs;
    if (isEnded) history.endedAtMs.push(nowMs);
  }

  nextWakeMs(): number {
    return this.#nextWakeMs;
  }

  #look({ host, row }: Report, nowMs: number): EndHung | null {
    const { vm, name, epoch } = row;
    const state = this.#world.state(vm);
    if (row.state !== 'running' || state?.protected !== true || state.whenHung === 'leave') {
      return null;
    }
    const history = this.#historyOf(vm, nowMs);
    if (nowMs < history.askAtMs) {
      this.#wakeAt(history.askAtMs);
      return null;
    }
    const [first] = history.endedAtMs;
    if (history.endedAtMs.length >= haLimits.hungRestarts && first !== undefined) {
      this.#wakeAt(first + haLimits.hungWindowMs);
      if (history.toldEpoch === epoch) return null;
      history.toldEpoch = epoch;
      const often = `it was restarted for that ${history.endedAtMs.length} times within an hour`;
      this.#onLeft({ vm, name, host, epoch }, `${name} hangs, and is left alone: ${often}.`);
      return null;
    }
    // What is not accessible could not be started again; it is looked at with each turn that news of it brings.
    if (!this.#world.isAccessible(vm)) return null;
    history.askAtMs = Number.POSITIVE_INFINITY; // until it is answered
    return { vm, name, host, epoch };
  }

  #historyOf(vm: VmId, nowMs: number): History {
    const history = this.#histories.get(vm) ?? { endedAtMs: [], askAtMs: 0, toldEpoch: null };
    this.#histories.set(vm, history);
    history.endedAtMs = history.endedAtMs.filter((atMs) => nowMs - atMs < haLimits.hungWindowMs);
    return history;
  }

  #wakeAt(atMs: number): void {
    this.#nextWakeMs = Math.min(this.#nextWakeMs, atMs);
  }
}
