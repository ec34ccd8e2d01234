// Runs a scenario on real daemons and guests: the lab is brought to time 0, the steps are done at their times,
// and what must hold is looked at. Whoever calls removes the lab afterwards, however this ends.

import { setTimeout as delay } from 'node:timers/promises';
import { HoldfastError } from '../model/errors.ts';
import { befallen } from '../scenario/befallen.ts';
import type { Check, CheckResult, Scenario, ScenarioResult } from '../scenario/scenario.ts';
import { askAll, checkNow, checkRecord, vmState } from './checks.ts';
import { LabCluster } from './cluster.ts';
import { Diary, type Entry, isTold } from './diary.ts';
import type { LabRecord } from './labs.ts';
import { leastRateHz } from './observer.ts';
import { type Happened, type RunRecord, recordOf } from './record.ts';
import { apply, guestsOf, type World } from './steps.ts';
import { makeVms, startVms, waitForVms } from './vms.ts';
import { type Violation, Watch } from './watch.ts';

export interface LabOptions {
  readonly lab: LabRecord;
  readonly scenario: Scenario;
  /** As of `ClusterOptions`. */
  readonly guestIntervalMs: number | null;
  readonly signal: AbortSignal;
  /** A step of the preparation. */
  readonly say: (text: string) => void;
  /** A line of the story. */
  readonly tell: (line: string) => void;
}

export interface LabRun {
  readonly result: ScenarioResult;
  readonly violations: readonly Violation[];
  /** How often the guests' processes were looked at, and the longest time between two looks. */
  readonly looked: { readonly rateHz: number; readonly longestGapMs: number };
}

/** Between two looks whether what shall never be is so; states of guests are seen much more often. */
const sampleMs = 250;
/** A step that comes later than this after its time is told. */
const lateMs = 300;
/** What a guest's process is last seen to do may be as old as this. */
const sightMs = 100;

export async function runLab(options: LabOptions): Promise<LabRun> {
  const run = new Run(options);
  try {
    return await run.play();
  } finally {
    run.abandon();
  }
}

class Run {
  readonly #options: LabOptions;
  readonly #scenario: Scenario;
  readonly #startedAt = Date.now();
  readonly #story: Happened[] = [];
  readonly #violations: Violation[] = [];
  readonly #results = new Map<Check, CheckResult>();
  readonly #broken = new Map<Check, string>();
  /** When all steps of this time, in milliseconds from time 0, had been done. */
  readonly #done = new Map<number, number>();
  /** Daemons that ended without having been told to. */
  readonly #deaths: string[] = [];
  #watch: Watch | null = null;
  #zero: number | null = null;
  #sampling = false;

  constructor(options: LabOptions) {
    this.#options = options;
    this.#scenario = options.scenario;
  }

  async play(): Promise<LabRun> {
    const { lab, scenario, guestIntervalMs, signal, say } = this.#options;
    const died = new AbortController();
    const cluster = await LabCluster.start({
      lab,
      scenario,
      guestIntervalMs,
      signal: AbortSignal.any([signal, died.signal]),
      say,
      onDaemonExit: (host, why) => {
        if (signal.aborted) return; // the lab ends
        const text = `the daemon of ${host} ended by itself: ${why}`;
        this.#deaths.push(text);
        this.#tell(text);
        died.abort(new HoldfastError('unreachable', text));
      },
    });
    const watch = await this.#ready(cluster, AbortSignal.any([signal, died.signal]));
    this.#zero = Date.now();
    say('all VMs run, are protected and have written some numbers: this is time 0');
    await this.#steps(cluster, watch);
    await watch.finish();
    const { rateHz, longestGapMs } = watch.observer;
    return {
      result: this.#result(watch),
      violations: this.#violations,
      looked: { rateHz, longestGapMs },
    };
  }

  /** Looks no more. */
  abandon(): void {
    this.#watch?.abandon();
  }

  async #ready(cluster: LabCluster, signal: AbortSignal): Promise<Watch> {
    const vms = await makeVms(cluster);
    this.#watch = new Watch({
      hosts: cluster.hosts,
      vms,
      diary: new Diary(cluster.hosts),
      onViolation: (violation) => {
        this.#violations.push(violation);
        this.#tell(`BROKEN: ${violation.invariant}: ${violation.text}`);
      },
      onEntry: (entry) => this.#entry(entry),
      onChange: (change) => this.#story.push({ what: 'change', at: change.at, change }),
    });
    this.#idOf = new Map(vms.map(({ id, name }) => [name, id]));
    await startVms(cluster);
    await waitForVms(cluster, this.#watch, signal);
    return this.#watch;
  }

  #idOf: ReadonlyMap<string, string> = new Map();

  async #steps(cluster: LabCluster, watch: Watch): Promise<void> {
    const { signal } = this.#options;
    const world: World = {
      cluster,
      signal,
      idOf: (vm) => this.#idOf.get(vm) ?? vm,
      tell: (text) => this.#tell(text),
    };
    const sampler = setInterval(() => void this.#sample(cluster, watch), sampleMs);
    try {
      for (const atMs of moments(this.#scenario)) {
        await delay(Math.max(0, this.#zeroAt() + atMs - Date.now()), undefined, { signal });
        await this.#checksOf(atMs, cluster, watch);
        await this.#stepsOf(atMs, world);
      }
    } finally {
      clearInterval(sampler);
    }
  }

  /** A check of the same moment as a step sees what was before the step. */
  async #checksOf(atMs: number, { hosts }: LabCluster, { instances }: Watch): Promise<void> {
    const checks = this.#scenario.expect.flatMap((check) =>
      'atMs' in check && check.atMs === atMs ? [check] : [],
    );
    if (checks.length === 0) return;
    const answers = await askAll(hosts);
    for (const check of checks) this.#results.set(check, checkNow(check, instances, answers));
  }

  async #stepsOf(atMs: number, world: World): Promise<void> {
    const steps = this.#scenario.steps.filter((step) => step.atMs === atMs);
    if (steps.length === 0) return;
    const late = this.#nowMs() - atMs;
    if (late > lateMs) this.#tell(`(${(late / 1000).toFixed(1)} s later than it should be)`);
    const hostsOfGuest = (vm: string) => guestsOf(vm, world).map(({ host }) => host.name);
    for (const step of steps) {
      this.#story.push({ what: 'fault', at: Date.now(), hosts: befallen(step, hostsOfGuest) });
      if (step.kind === 'powerOff') {
        this.#story.push({ what: 'switchedOff', at: Date.now(), vm: step.vm });
      }
      await apply(step, world);
    }
    this.#done.set(atMs, Date.now());
  }

  /** Looks whether a VM waits, or is off, that never shall be; its guest's process tells the rest. */
  async #sample(cluster: LabCluster, { instances }: Watch): Promise<void> {
    const nowMs = this.#nowMs();
    const due = this.#scenario.expect.filter(
      (check) =>
        check.kind === 'never' &&
        (check.state === 'waiting' || check.state === 'off') &&
        nowMs >= check.fromMs &&
        nowMs <= check.toMs &&
        !this.#broken.has(check),
    );
    if (due.length === 0 || this.#sampling) return;
    this.#sampling = true;
    const answers = await askAll(cluster.hosts);
    this.#sampling = false;
    for (const check of due) {
      if (check.kind !== 'never') continue;
      for (const vm of check.vms) {
        if (vmState(vm, instances, answers).state !== check.state) continue;
        this.#broken.set(check, `${vm} at ${(nowMs / 1000).toFixed(3)}s`);
      }
    }
  }

  #result(watch: Watch): LabRun['result'] {
    const { scenario } = this.#options;
    const { pending } = scenario;
    const record = recordOf(this.#story, this.#zeroAt());
    const results = [
      ...this.#troubles(watch),
      ...scenario.expect.map((check) => this.#resultOf(check, watch, record)),
    ].map((one) => (one.ok || pending === null ? one : { ...one, pending }));
    const invariants = (['single-instance', 'no-lost-write'] as const).map((name) => ({
      name,
      violations: this.#violations.filter(({ invariant }) => invariant === name).length,
    }));
    const failed = results.some((one) => !one.ok && !('pending' in one));
    const isPendingInVain = pending !== null && results.every((one) => one.ok);
    return {
      name: scenario.name,
      ok: !failed && !isPendingInVain && invariants.every((one) => one.violations === 0),
      executor: 'lab',
      seed: scenario.seed,
      simulatedMs: scenario.durationMs,
      wallMs: Date.now() - this.#startedAt,
      checks: results,
      invariants,
      counters: record.counters,
      recoveries: record.recoveries,
    };
  }

  #resultOf(check: Check, { instances }: Watch, record: RunRecord): CheckResult {
    if (check.kind === 'restartedWithin' || check.kind === 'counter') {
      return checkRecord(check, record);
    }
    if (check.kind !== 'never') {
      const none = { check: check.text, ok: false, saw: 'the run ended before' };
      return this.#results.get(check) ?? none;
    }
    const { state } = check;
    let saw = this.#broken.get(check) ?? null;
    if (state === 'running' || state === 'paused') {
      const zero = this.#zeroAt();
      // What steps of the same moment end, such as a crash, has had its time.
      const from = (this.#done.get(check.fromMs) ?? zero + check.fromMs) + sightMs;
      for (const vm of check.vms) {
        const seen = instances.seen(vm, state, from, zero + check.toMs);
        if (seen === null) continue;
        saw ??= `${vm} on ${seen.host} at ${((seen.at - zero) / 1000).toFixed(3)}s`;
      }
    }
    return { check: check.text, ok: saw === null, saw: saw ?? 'never' };
  }

  /** What keeps the whole run from being worth anything; nobody wants to read that there was nothing. */
  #troubles({ observer }: Watch): CheckResult[] {
    const troubles: CheckResult[] = [];
    if (this.#deaths.length > 0) {
      const saw = this.#deaths.join('; ');
      troubles.push({ check: 'daemons end only where they are told to', ok: false, saw });
    }
    if (observer.rateHz < leastRateHz) {
      const saw = `${observer.rateHz.toFixed(1)}, and ${observer.longestGapMs} ms without a look`;
      const check = `processes are looked at ${leastRateHz} times a second`;
      troubles.push({ check, ok: false, saw });
    }
    return troubles;
  }

  #entry(entry: Entry): void {
    this.#story.push({ what: 'entry', at: entry.at, entry });
    if (this.#zero === null || entry.at < this.#zero || !isTold(entry)) return;
    const { at, host, room, message } = entry;
    this.#options.tell(`${this.#time(at)} ${host}/${room}: ${message}`);
  }

  #tell(text: string): void {
    this.#options.tell(`${this.#time(Date.now())} world: ${text}`);
  }

  #time(at: number): string {
    return this.#zero === null ? '-' : `${((at - this.#zero) / 1000).toFixed(3)}s`;
  }

  #zeroAt(): number {
    if (this.#zero === null) throw new Error('time 0 has not come');
    return this.#zero;
  }

  #nowMs(): number {
    return Date.now() - this.#zeroAt();
  }
}

/** All times at which something is done or looked at, in order, without doubles. */
function moments(scenario: Scenario): number[] {
  const times = new Set<number>([scenario.durationMs]);
  for (const step of scenario.steps) times.add(step.atMs);
  for (const check of scenario.expect) if ('atMs' in check) times.add(check.atMs);
  return [...times].filter((atMs) => atMs <= scenario.durationMs).sort((a, b) => a - b);
}
