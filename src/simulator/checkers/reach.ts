// What the machines can truly reach, by the wires and not by what hosts believe: to hold the hosts'
// reasons against.

import type { Host } from '../../host/create-host.ts';
import type { HostInfo } from '../../manager/api.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import { isQuorum, majority, type Voting } from '../../model/record.ts';
import type { ObjectView } from '../../storage/api.ts';
import type { Machine } from '../world/machine.ts';
import type { World } from '../world/world.ts';
import { fileOf } from './copies.ts';

/** A machine with a daemon that works. */
export interface Working {
  readonly machine: Machine;
  readonly host: Host;
}

export function working(world: Pick<World, 'machines'>): Working[] {
  return world.machines.flatMap((machine) => {
    const { host, isFrozen } = machine;
    return host === null || isFrozen ? [] : [{ machine, host }];
  });
}

type Network = 'storage' | 'ha';

/** The parts of a network: machines that hear each other, directly or through others. */
export function parts(
  world: Pick<World, 'areLinked'>,
  network: Network,
  machines: readonly Working[],
): Working[][] {
  const found: Working[][] = [];
  const rest = new Set(machines);
  for (const first of machines) {
    if (!rest.delete(first)) continue;
    const part = [first];
    // The part grows while it is gone through.
    for (const { machine } of part) {
      for (const other of rest) {
        if (!world.areLinked(network, machine.name, other.machine.name)) continue;
        rest.delete(other);
        part.push(other);
      }
    }
    found.push(part);
  }
  return found;
}

export class Reach {
  readonly #world: Pick<World, 'areLinked'>;
  readonly #working: ReadonlyMap<HostId, Working>;
  readonly #doubtful: (object: ObjectId) => Voting | null;

  /** `doubtful`: see `Ledger.doubtful`. */
  constructor(
    world: Pick<World, 'areLinked'>,
    machines: readonly Working[],
    doubtful: (object: ObjectId) => Voting | null,
  ) {
    this.#world = world;
    this.#doubtful = doubtful;
    this.#working = new Map(machines.map((one) => [one.machine.name, one]));
  }

  /** Whether a host on the machine has a majority of the voters and a copy of every stripe of each. */
  canUse(from: HostId, vm: string, objects: readonly ObjectView[]): boolean {
    return objects.every((object) => this.#canUseObject(from, vm, object));
  }

  /** Whether the machine still has the component, on a device that works: what went with a replaced
   * device comes back only when it is rebuilt. */
  hasComponent(host: HostId, component: ObjectView['components'][number]['component']): boolean {
    const { machine } = this.#working.get(host) ?? {};
    const disk = machine?.diskWith(fileOf(component)) ?? null;
    if (disk === null) return false;
    const further = machine?.devices.find((one) => one.disk === disk);
    if (further === undefined) return this.storeProblem(host) === null;
    const device = this.#own(host)?.devices.find(({ name }) => name === further.name);
    return device?.problem === null;
  }

  #canUseObject(from: HostId, vm: string, { object, voters, components }: ObjectView): boolean {
    const heard = voters.filter((host) => this.#hears(from, host));
    if (heard.length < majority(voters.length)) return false;
    const doubtful = this.#doubtful(object);
    if (doubtful !== null && !isQuorum(doubtful, ({ host }) => this.#hears(from, host)))
      return false;
    const stripes = new Set(components.map((one) => one.stripe));
    for (const one of components) {
      if (!stripes.has(one.stripe) || !this.#isLinked(from, one.host)) continue;
      // Whether it counts, its own host knows best: it reaches itself.
      if (this.#ownState(vm, object, one.component, one.host) === 'active')
        stripes.delete(one.stripe);
    }
    return stripes.size === 0;
  }

  /** Why the machine's store does nothing, by its own account; null: it works. */
  storeProblem(host: HostId): string | null {
    const info = this.#own(host);
    return info?.storage === 'failed' ? (info.problem ?? 'it does not say why') : null;
  }

  /** What the machine says of itself. */
  #own(host: HostId): HostInfo | undefined {
    const own = this.#working.get(host)?.host.manager.hosts();
    return own?.find((one) => one.name === host);
  }

  #hears(from: HostId, to: HostId): boolean {
    return this.#isLinked(from, to) && this.storeProblem(to) === null;
  }

  #isLinked(from: HostId, to: HostId): boolean {
    return this.#working.has(to) && this.#world.areLinked('storage', from, to);
  }

  #ownState(vm: string, object: string, component: string, host: HostId): string | null {
    const own = this.#working.get(host)?.host.manager;
    if (own?.vms().some((one) => one.name === vm) !== true) return null;
    const view = own.vm(vm).objects.find((one) => one.object === object);
    return view?.components.find((one) => one.component === component)?.state ?? null;
  }
}
