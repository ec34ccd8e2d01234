// What a run is remembered by: counters, and for each restart of a VM when its steps were taken. That a guest
// stood still or began is known from its process; what the hosts decided meanwhile, from their logs. No SET of
// the product's own is ever refused, which leaves one of the counters to the simulator's strategies.

import { counterOf, type Moments, momentOf, noCounts, noMoments } from '../scenario/run-counts.ts';
import type { CounterName, RecoveryResult } from '../scenario/scenario.ts';
import type { Entry } from './diary.ts';
import { type Change, type Instance, Instances, stoodSince } from './instances.ts';

/** What happened, in milliseconds since 1970. */
export type Happened =
  | { readonly what: 'change'; readonly at: number; readonly change: Change }
  | { readonly what: 'entry'; readonly at: number; readonly entry: Entry }
  /** Something befell these hosts: VMs that stop there from now on failed at this time. */
  | { readonly what: 'fault'; readonly at: number; readonly hosts: readonly string[] }
  /** By its user: what follows is no recovery. */
  | { readonly what: 'switchedOff'; readonly at: number; readonly vm: string };

export interface RunRecord {
  readonly counters: Record<CounterName, number>;
  readonly recoveries: readonly RecoveryResult[];
}

/** Goes through all that happened once more, in order of time; `zero` is when it begins to count. */
export function recordOf(story: readonly Happened[], zero: number): RunRecord {
  const replay = new Replay(zero);
  for (const one of story.toSorted((a, b) => a.at - b.at)) replay.take(one);
  return replay;
}

class Replay implements RunRecord {
  readonly counters: Record<CounterName, number> = noCounts();
  readonly recoveries: RecoveryResult[] = [];
  readonly #zero: number;
  readonly #instances = new Instances();
  readonly #current = new Map<string, Instance>();
  readonly #moments = new Map<string, Moments>();
  readonly #faults: { readonly at: number; readonly hosts: ReadonlySet<string> }[] = [];
  readonly #switchedOff = new Set<string>();

  constructor(zero: number) {
    this.#zero = zero;
  }

  take(one: Happened): void {
    if (one.what === 'change') this.#changed(one.change);
    else if (one.what === 'entry') this.#told(one.entry);
    else if (one.what === 'switchedOff') this.#switchedOff.add(one.vm);
    else if (one.hosts.length > 0) this.#faults.push({ at: one.at, hosts: new Set(one.hosts) });
  }

  #told({ event, point, vm, at }: Entry): void {
    if (at < this.#zero) return;
    const counter = counterOf[point ?? ''];
    if (counter !== undefined) this.counters[counter] += 1;
    if (event === null || vm === null) return;
    const atMs = Math.round(at - this.#zero);
    if (event === 'failover.detected') this.#moments.set(vm, { ...noMoments });
    const moment = momentOf[event];
    const moments = this.#moments.get(vm);
    if (moment !== undefined && moments !== undefined) moments[moment] = atMs;
    if (event === 'vm.ready') this.#ready(vm, atMs);
  }

  #changed(change: Change): void {
    const instance = this.#instances.take(change);
    const { vm, state, at } = change;
    const known = this.#current.get(vm);
    if (known !== instance) {
      if (state === 'running') this.#began(instance, at, known);
      return;
    }
    if (at < this.#zero) return;
    if (state === 'paused') this.counters.pauses += 1;
    if (state === 'running' && instance.states.at(-2)?.state === 'paused')
      this.counters.resumes += 1;
  }

  #began(instance: Instance, at: number, before: Instance | undefined): void {
    const { vm } = instance;
    this.#current.set(vm, instance);
    const isByUser = this.#switchedOff.delete(vm);
    const moments = this.#moments.get(vm) ?? noMoments;
    this.#moments.delete(vm);
    if (at < this.#zero || before === undefined || isByUser) return;
    this.recoveries.push({
      vm,
      from: before.host,
      to: instance.host,
      failedAtMs: this.#failedAtMs(before.host, stoodSince(before) ?? at),
      ...moments,
      startedAtMs: Math.round(at - this.#zero),
      guestReadyAtMs: null,
    });
  }

  #failedAtMs(host: string, stoodAt: number): number {
    const fault = this.#faults.findLast((one) => one.at <= stoodAt && one.hosts.has(host));
    return Math.round((fault?.at ?? stoodAt) - this.#zero);
  }

  #ready(vm: string, atMs: number): void {
    const index = this.recoveries.findLastIndex((one) => one.vm === vm);
    const found = this.recoveries[index];
    if (found === undefined || found.guestReadyAtMs !== null) return;
    this.recoveries[index] = { ...found, guestReadyAtMs: atMs };
  }
}
