// What a scenario expects, held against the world: guests as they are, and hosts as they would answer a
// user.

import type { Check, CheckResult, VmStateName } from '../../scenario/scenario.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { Observer, World } from '../world/world.ts';
import type { RunRecord } from './record.ts';

interface Seen {
  readonly state: VmStateName;
  /** Where it runs, or stands still; or who waits for what. */
  readonly detail: string;
}

type Of<Kind extends Check['kind']> = Extract<Check, { readonly kind: Kind }>;

/** Collects what the checks of a run see; `now` for those of one moment, `results` at the end. */
export class Checks implements Observer {
  readonly #world: World;
  readonly #record: RunRecord;
  readonly #checks: readonly Check[];
  readonly #results = new Map<Check, CheckResult>();
  readonly #broken = new Map<Check, string>();

  constructor(world: World, checks: readonly Check[], record: RunRecord) {
    this.#world = world;
    this.#checks = checks;
    this.#record = record;
    world.observe(this);
  }

  /** A check of a moment, in that moment. */
  now(check: Check): void {
    this.#results.set(check, { check: check.text, ...this.#look(check) });
  }

  /** Looks whether what shall never be is so; the guests tell of themselves. */
  sample(): void {
    for (const check of this.#nevers()) {
      if (check.state !== 'waiting' && check.state !== 'off') continue;
      for (const vm of check.vms) {
        if (this.#stateOf(vm).state === check.state) this.#break(check, vm);
      }
    }
  }

  guestChanged(machine: Machine, guest: VirtualGuest): void {
    for (const check of this.#nevers()) {
      if (check.state !== guest.state || !check.vms.includes(guest.name)) continue;
      this.#break(check, `${guest.name} on ${machine.name}`);
    }
  }

  /** In the order of the file. `pending`: what is missing; then failing checks do not count. */
  results(pending: string | null): CheckResult[] {
    for (const check of this.#checks) {
      if (check.kind === 'never') {
        const saw = this.#broken.get(check);
        this.#results.set(check, { check: check.text, ok: saw === undefined, saw: saw ?? 'never' });
      } else if (check.kind === 'restartedWithin' || check.kind === 'counter') this.now(check);
    }
    return this.#checks.map((check) => {
      const result = this.#results.get(check) ?? {
        check: check.text,
        ok: false,
        saw: 'the run ended before',
      };
      return result.ok || pending === null ? result : { ...result, pending };
    });
  }

  #nevers(): Of<'never'>[] {
    const nowMs = this.#world.nowMs();
    return this.#checks.filter(
      (check): check is Of<'never'> =>
        check.kind === 'never' && nowMs >= check.fromMs && nowMs <= check.toMs,
    );
  }

  #break(check: Check, who: string): void {
    if (this.#broken.has(check)) return;
    this.#broken.set(check, `${who} at ${(this.#world.nowMs() / 1000).toFixed(3)}s`);
  }

  #look(check: Check): { readonly ok: boolean; readonly saw: string } {
    switch (check.kind) {
      case 'state':
        return this.#states(check);
      case 'masters':
        return this.#masters(check);
      case 'protected':
        return this.#protected(check);
      case 'restartedWithin':
        return this.#restarted(check);
      case 'counter': {
        const value = this.#record.counters[check.counter as keyof RunRecord['counters']] ?? 0;
        const ok = value >= (check.min ?? 0) && value <= (check.max ?? Number.POSITIVE_INFINITY);
        return { ok, saw: String(value) };
      }
      case 'never':
        throw new Error('a check of a span is no check of a moment');
    }
  }

  #states(check: Of<'state'>): { readonly ok: boolean; readonly saw: string } {
    const seen = check.vms.map((vm) => ({ vm, ...this.#stateOf(vm) }));
    const fits = ({ state, detail }: Seen) =>
      state === check.state &&
      (check.on === null || check.on.includes(detail)) &&
      (check.for === null || detail === check.for);
    return { ok: seen.every(fits), saw: summary(seen) };
  }

  #stateOf(vm: string): Seen {
    const guests = this.#world.machines.flatMap((machine) => {
      const guest = machine.guest(vm);
      return guest === null || guest.state === 'exited' ? [] : [{ on: machine.name, guest }];
    });
    const running = guests.filter(({ guest }) => guest.state === 'running');
    if (running.length > 0) {
      return { state: 'running', detail: running.map(({ on }) => on).join(' and ') };
    }
    for (const { host } of this.#world.machines) {
      const waiting = host?.manager.status().waiting.find((one) => one.name === vm);
      if (waiting !== undefined) return { state: 'waiting', detail: waiting.reason };
    }
    const [paused] = guests;
    if (paused !== undefined) return { state: 'paused', detail: paused.on };
    return { state: 'off', detail: '' };
  }

  #masters(check: Of<'masters'>): { readonly ok: boolean; readonly saw: string } {
    const all = this.#world.machines
      .filter((machine) => isMaster(machine))
      .map((machine) => machine.name);
    const perGroup = check.groups.map((group) => all.filter((host) => group.includes(host)));
    const saw = all.length === 0 ? 'no master' : `masters ${all.join(', ')}`;
    return { ok: perGroup.every((masters) => masters.length === 1), saw };
  }

  #protected(check: Of<'protected'>): { readonly ok: boolean; readonly saw: string } {
    const wrong: string[] = [];
    for (const vm of check.vms) {
      let hosts = 0;
      for (const { name, host, isFrozen } of this.#world.machines) {
        const info = isFrozen ? undefined : host?.manager.vms().find((one) => one.name === vm);
        if (info === undefined || !info.accessible) continue;
        hosts += 1;
        if (info.protection.status !== 'protected') {
          wrong.push(`${name} says ${vm} is ${info.protection.status}`);
        }
      }
      if (hosts === 0) wrong.push(`no host can reach ${vm}`);
    }
    return { ok: wrong.length === 0, saw: wrong.length === 0 ? 'all' : few(wrong) };
  }

  #restarted(check: Of<'restartedWithin'>): { readonly ok: boolean; readonly saw: string } {
    const wrong: string[] = [];
    const took: number[] = [];
    for (const vm of check.vms) {
      const recoveries = this.#record.recoveries.filter((one) => one.vm === vm);
      if (recoveries.length === 0) wrong.push(`${vm} was not restarted`);
      for (const { failedAtMs, startedAtMs } of recoveries) {
        const ms = (startedAtMs ?? Number.POSITIVE_INFINITY) - failedAtMs;
        took.push(ms);
        if (ms > check.withinMs) wrong.push(`${vm} after ${(ms / 1000).toFixed(3)}s`);
      }
    }
    if (wrong.length > 0) return { ok: false, saw: few(wrong) };
    return { ok: true, saw: `at most ${(Math.max(...took) / 1000).toFixed(3)}s` };
  }
}

function isMaster(machine: Machine): boolean {
  return machine.host !== null && machine.host.manager.status().master === machine.name;
}

function summary(seen: readonly Seen[]): string {
  const groups = new Map<VmStateName, { count: number; details: Set<string> }>();
  for (const { state, detail } of seen) {
    const group = groups.get(state) ?? { count: 0, details: new Set() };
    groups.set(state, group);
    group.count += 1;
    if (detail !== '') group.details.add(detail);
  }
  return [...groups]
    .map(([state, { count, details }]) => {
      const names = [...details].sort().join(', ');
      const link = state === 'waiting' ? 'for' : 'on';
      return `${count} ${state}${names === '' ? '' : ` ${link} ${names}`}`;
    })
    .join('; ');
}

function few(texts: readonly string[]): string {
  const shown = texts.slice(0, 3).join('; ');
  return texts.length > 3 ? `${shown}; and ${texts.length - 3} more` : shown;
}
