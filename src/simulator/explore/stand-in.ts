import type { Point } from '../../ports/probe.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { Guests } from '../checkers/guests.ts';
import { Ledger } from '../checkers/ledger.ts';
import type { Violation } from '../checkers/violation.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { World } from '../world/world.ts';

export class Invariants {
  readonly violations: Violation[] = [];
  readonly #ledger = new Ledger();
  readonly #guests: Guests;
  constructor(world: World) {
    const report = (invariant: Violation['invariant'], text: string) =>
      void this.violations.push({ atMs: world.nowMs(), invariant, text });
    this.#guests = new Guests(this.#ledger, report);
    world.observe({
      reached: (_: Machine, point: Point) => {
        if (point.at === 'register.committed') this.#ledger.committed(point.ballot, point.record);
      },
      guestChanged: (machine: Machine, guest: VirtualGuest) =>
        this.#guests.changed(machine.name, guest),
      misread: (_m, guest, problem) => report('no-lost-write', `${guest.name}: ${problem}`),
    });
  }
  finish(): void {}
}

export function liveness(world: World, scenario: Scenario): string[] {
  const problems: string[] = [];
  const up = world.machines.filter((m) => m.host !== null);
  const manager = up[0]?.host?.manager;
  if (manager === undefined) return ['nobody is up'];
  for (const vm of manager.vms()) {
    const detail = manager.vm(vm.name);
    if (vm.protection.status === 'protected' && vm.power !== 'running' && vm.accessible)
      problems.push(`${vm.name} is ${vm.power}: ${vm.note}`);
    if (vm.protection.status !== 'protected' && vm.power === 'running' && vm.spec.protected)
      problems.push(`${vm.name} runs and is ${vm.protection.status}`);
    if (vm.power === 'running')
      for (const object of detail.objects)
        for (const c of object.components)
          if (
            c.state !== 'active' &&
            up.some((m) => m.name === c.host) &&
            !world.machine(c.host).disk.incarnation.includes('x')
          )
            problems.push(`${vm.name}: ${c.component} on ${c.host} is ${c.state}`);
  }
  const masters = up.filter((m) => m.host?.manager.status().master === m.name);
  if (masters.length !== 1) problems.push(`${masters.length} masters`);
  void scenario;
  return problems;
}
