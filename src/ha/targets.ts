// The hosts on which a VM could be started now, with the room that they say they have, less what this
// host has just placed there for a user and what is not reported yet.

import type { HostId, VmId } from '../model/ids.ts';
import type { Storage } from '../storage/api.ts';
import type { VmRunner } from './api.ts';
import { haLimits } from './limits.ts';
import type { Membership } from './membership.ts';
import type { HostKind } from './messages.ts';
import { choose, fits, type Target, targetOf } from './placement.ts';

interface Placed {
  readonly host: HostId;
  readonly memoryBytes: number;
  readonly untilMs: number;
}

export class Targets {
  readonly #self: HostId;
  readonly #kind: HostKind;
  readonly #membership: Membership;
  readonly #runner: VmRunner;
  readonly #storage: Storage;
  readonly #placed = new Map<VmId, Placed>();

  constructor(options: {
    readonly self: HostId;
    readonly kind: HostKind;
    readonly membership: Membership;
    readonly runner: VmRunner;
    readonly storage: Storage;
  }) {
    this.#self = options.self;
    this.#kind = options.kind;
    this.#membership = options.membership;
    this.#runner = options.runner;
    this.#storage = options.storage;
  }

  /** Hosts on both networks. Where `master` is given, those that follow it instead: they are asked what they reach. */
  list(nowMs: number, master: HostId | null = null): Target[] {
    const reachable = new Set(master === null ? this.#storage.reachableHosts() : []);
    const targets: Target[] = [];
    if (this.#kind === 'full') {
      targets.push(targetOf(this.#self, this.#runner.capacity(), this.#runner.running()));
    }
    for (const { host, condition, beat, list } of this.#membership.members()) {
      if (condition !== 'linked' || beat?.kind !== 'full' || list === null) continue;
      if (master === null ? !reachable.has(host) : beat.master !== master) continue;
      targets.push(targetOf(host, beat, list.vms));
    }
    for (const [vm, { untilMs }] of this.#placed) {
      if (untilMs <= nowMs || this.#membership.runsOn(vm) !== null) this.#placed.delete(vm);
    }
    return targets.map((target) => this.#lessPlaced(target));
  }

  /** The best host for a VM that its user starts. */
  place(
    vm: VmId,
    ordered: readonly { host: HostId; memoryBytes: number }[],
    nowMs: number,
  ): HostId | null {
    const view = this.#storage.vm(vm);
    if (view === null || !view.accessible.accessible) return null;
    this.#placed.delete(vm); // an earlier placement of it was not used
    const able = this.list(nowMs)
      .map((target) => ({
        ...target,
        freeMemoryBytes: ordered
          .filter((it) => it.host === target.host)
          .reduce((free, it) => free - it.memoryBytes, target.freeMemoryBytes),
      }))
      .filter((target) => fits(view.spec, target));
    const { separate, affinity } = view.spec;
    const crowd = this.#crowd(vm, separate);
    const host = choose(able, {
      prefer: null,
      avoid: null,
      affinity,
      crowd,
      dataHosts: view.dataHosts,
    });
    if (host !== null) {
      const { memoryBytes } = view.spec;
      this.#placed.set(vm, { host, memoryBytes, untilMs: nowMs + haLimits.placementKeptMs });
    }
    return host;
  }

  /** How many VMs of the label each host runs, as far as this host knows them. */
  #crowd(vm: VmId, label: string | undefined): ReadonlyMap<HostId, number> {
    const crowd = new Map<HostId, number>();
    if (label === undefined) return crowd;
    const lists = [...this.#membership.members()].map(
      ({ host, list }) => [host, list?.vms ?? []] as const,
    );
    for (const [host, vms] of [...lists, [this.#self, this.#runner.running()] as const]) {
      const apart = vms.filter(
        (one) => one.vm !== vm && this.#storage.vm(one.vm)?.spec.separate === label,
      );
      crowd.set(host, apart.length);
    }
    return crowd;
  }

  #lessPlaced(target: Target): Target {
    let freeMemoryBytes = target.freeMemoryBytes;
    for (const placed of this.#placed.values()) {
      if (placed.host === target.host) freeMemoryBytes -= placed.memoryBytes;
    }
    return { ...target, freeMemoryBytes };
  }
}
