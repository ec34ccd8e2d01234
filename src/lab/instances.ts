// The guests of a lab as the kernel shows them, in time: each process that runs a VM, where, and when it ran
// and stood still. Nothing that Holdfast says is asked. Pure; who looks is `sampler.ts`.

export type InstanceState = 'running' | 'paused' | 'gone';

/** Something about a process was seen to be otherwise than before. */
export interface Change {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly pid: number;
  readonly vm: string;
  readonly host: string;
  readonly state: InstanceState;
}

export interface Instance {
  readonly pid: number;
  readonly vm: string;
  readonly host: string;
  /** In order of time; the last one holds. */
  readonly states: { readonly at: number; readonly state: InstanceState }[];
}

export class Instances {
  readonly #all: Instance[] = [];
  readonly #living = new Map<number, Instance>();

  take(change: Change): Instance {
    const { pid, vm, host, state, at } = change;
    let instance = this.#living.get(pid);
    if (instance === undefined) {
      instance = { pid, vm, host, states: [] };
      this.#living.set(pid, instance);
      this.#all.push(instance);
    }
    instance.states.push({ at, state });
    if (state === 'gone') this.#living.delete(pid);
    return instance;
  }

  of(vm: string): Instance[] {
    return this.#all.filter((instance) => instance.vm === vm);
  }

  /** Those that run or stand still now. */
  living(vm: string): Instance[] {
    return [...this.#living.values()].filter((instance) => instance.vm === vm);
  }

  /** When one of the VM's instances was first in this state from `from` to `to`; null: never. */
  seen(
    vm: string,
    state: InstanceState,
    from: number,
    to: number,
  ): { readonly at: number; readonly host: string } | null {
    let first: { at: number; host: string } | null = null;
    for (const { host, states } of this.of(vm)) {
      for (const [index, { at, state: was }] of states.entries()) {
        const until = states[index + 1]?.at ?? Number.POSITIVE_INFINITY;
        if (was !== state || at > to || until <= from) continue;
        const moment = Math.max(at, from);
        if (first === null || moment < first.at) first = { at: moment, host };
      }
    }
    return first;
  }
}

export const stateOf = ({ states }: Instance): InstanceState => states.at(-1)?.state ?? 'gone';

/** Since when it does not run any more; null: it does. */
export function stoodSince({ states }: Instance): number | null {
  const last = states.findLastIndex(({ state }) => state === 'running');
  return states[last + 1]?.at ?? null;
}
