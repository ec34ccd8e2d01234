// What a scenario expects, held against the world: guests as they are, and hosts as they would answer a
// user.

import type { Check, CheckResult } from '../../scenario/scenario.ts';
import {
  type CheckOf,
  counterVerdict,
  mastersVerdict,
  type ProtectionSaid,
  protectedVerdict,
  restartVerdict,
  type Seen,
  statesVerdict,
  type Verdict,
} from '../../scenario/verdicts.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { Observer, World } from '../world/world.ts';
import type { RunRecord } from './record.ts';

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

  #nevers(): CheckOf<'never'>[] {
    const nowMs = this.#world.nowMs();
    return this.#checks.filter(
      (check): check is CheckOf<'never'> =>
        check.kind === 'never' && nowMs >= check.fromMs && nowMs <= check.toMs,
    );
  }

  #break(check: Check, who: string): void {
    if (this.#broken.has(check)) return;
    this.#broken.set(check, `${who} at ${(this.#world.nowMs() / 1000).toFixed(3)}s`);
  }

  #look(check: Check): Verdict {
    switch (check.kind) {
      case 'state':
        return statesVerdict(
          check,
          check.vms.map((vm) => this.#stateOf(vm)),
        );
      case 'masters':
        return mastersVerdict(
          check,
          this.#world.machines.filter(isMaster).map(({ name }) => name),
        );
      case 'protected':
        return protectedVerdict(check, (vm) => this.#protectionSaid(vm));
      case 'restartedWithin':
        return restartVerdict(check, this.#record.recoveries);
      case 'counter':
        return counterVerdict(check, this.#record.counters);
      case 'never':
        throw new Error('a check of a span is no check of a moment');
    }
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

  #protectionSaid(vm: string): ProtectionSaid[] {
    return this.#world.machines.flatMap(({ name, host, isFrozen }) => {
      const info = isFrozen ? undefined : host?.manager.vms().find((one) => one.name === vm);
      return info?.accessible === true ? [{ host: name, status: info.protection.status }] : [];
    });
  }
}

function isMaster(machine: Machine): boolean {
  return machine.host !== null && machine.host.manager.status().master === machine.name;
}
