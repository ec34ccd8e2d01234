// What a run is remembered by: counters, and for each restart of a VM when its steps were taken, in
// true time. It only listens.

import type { ClusterEvent } from '../../model/events.ts';
import type { HostId } from '../../model/ids.ts';
import type { Point } from '../../ports/probe.ts';
import {
  counterOf,
  type Moments,
  momentOf,
  noCounts,
  noMoments,
} from '../../scenario/run-counts.ts';
import type { CounterName, RecoveryResult } from '../../scenario/scenario.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { Observer, World } from '../world/world.ts';

interface Instance {
  readonly machine: HostId;
  readonly guest: VirtualGuest;
  /** Since when it does not run any more. */
  stoodSinceMs: number | null;
}

export class RunRecord implements Observer {
  readonly counters: Record<CounterName, number> = noCounts();
  readonly recoveries: RecoveryResult[] = [];
  readonly #world: World;
  readonly #instances = new Map<string, Instance>();
  readonly #moments = new Map<string, Moments>();
  readonly #faults: { readonly atMs: number; readonly hosts: ReadonlySet<string> }[] = [];
  /** VMs whose user has switched them off: what follows is no recovery. */
  readonly #switchedOff = new Set<string>();
  #isOn = false;

  constructor(world: World) {
    this.#world = world;
    world.observe(this);
  }

  /** From here on it counts; instances that run already are known. */
  begin(): void {
    this.#isOn = true;
  }

  /** Something befell these hosts: VMs that stop there from now on failed at this time. */
  fault(hosts: readonly string[]): void {
    if (hosts.length > 0) this.#faults.push({ atMs: this.#world.nowMs(), hosts: new Set(hosts) });
  }

  switchedOff(vm: string): void {
    this.#switchedOff.add(vm);
  }

  reached(_machine: Machine, point: Point): void {
    if (!this.#isOn) return;
    const counter = counterOf[point.at];
    if (counter !== undefined) this.counters[counter] += 1;
  }

  told(_machine: Machine, event: ClusterEvent): void {
    const name = event.vmName;
    if (name === undefined) return;
    const atMs = Math.round(this.#world.nowMs());
    if (event.type === 'failover.detected') this.#moments.set(name, { ...noMoments });
    const moment = momentOf[event.type];
    const moments = this.#moments.get(name);
    if (moment !== undefined && moments !== undefined) moments[moment] = atMs;
    if (event.type === 'vm.ready') this.#ready(name, atMs);
  }

  guestChanged(machine: Machine, guest: VirtualGuest): void {
    const known = this.#instances.get(guest.name);
    if (known?.guest !== guest) {
      if (guest.state === 'running') this.#began(machine, guest, known);
      return;
    }
    if (guest.state === 'running') {
      if (this.#isOn && known.stoodSinceMs !== null) this.counters.resumes += 1;
      known.stoodSinceMs = null;
    } else {
      if (this.#isOn && guest.state === 'paused') this.counters.pauses += 1;
      known.stoodSinceMs ??= this.#world.nowMs();
    }
  }

  #began(machine: Machine, guest: VirtualGuest, before: Instance | undefined): void {
    this.#instances.set(guest.name, { machine: machine.name, guest, stoodSinceMs: null });
    const isByUser = this.#switchedOff.delete(guest.name);
    const moments = this.#moments.get(guest.name) ?? noMoments;
    this.#moments.delete(guest.name);
    if (!this.#isOn || before === undefined || isByUser) return;
    const atMs = Math.round(this.#world.nowMs());
    this.recoveries.push({
      vm: guest.name,
      from: before.machine,
      to: machine.name,
      failedAtMs: this.#failedAtMs(before.machine, before.stoodSinceMs ?? atMs),
      ...moments,
      startedAtMs: atMs,
      guestReadyAtMs: null,
    });
  }

  #failedAtMs(machine: HostId, stoodSinceMs: number): number {
    const fault = this.#faults.findLast(
      (one) => one.atMs <= stoodSinceMs && one.hosts.has(machine),
    );
    return Math.round(fault?.atMs ?? stoodSinceMs);
  }

  #ready(name: string, atMs: number): void {
    const index = this.recoveries.findLastIndex((one) => one.vm === name);
    const found = this.recoveries[index];
    if (found === undefined || found.guestReadyAtMs !== null) return;
    this.recoveries[index] = { ...found, guestReadyAtMs: atMs };
  }
}
