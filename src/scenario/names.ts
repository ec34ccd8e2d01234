// Fields for what a scenario refers to: its hosts, its VMs, times before its end. Where the list of
// hosts or of VMs is itself bad, every name passes, so that one error does not cause a hundred.

import { formatDuration } from '../model/quantities.ts';
import { matching } from './check-text.ts';
import { distinct, duration, type Field, label, list } from './fields.ts';
import { hint } from './nearest.ts';
import type { ScenarioHost } from './scenario.ts';

export interface HostNames {
  /** Null: they could not be read. */
  readonly hosts: ReadonlyMap<string, ScenarioHost> | null;
  readonly host: Field<string>;
  /** A host that can run VMs. */
  readonly fullHost: Field<string>;
  /** Lists of hosts, none of which stands twice. */
  readonly groups: Field<string[][]>;
  /** Why there is no such host, or null. */
  problemOf(name: string): string | null;
}

export function createHostNames(known: readonly ScenarioHost[] | null): HostNames {
  const hosts = known === null ? null : new Map(known.map((host) => [host.name, host]));

  function problemOf(name: string): string | null {
    if (hosts === null || hosts.has(name)) return null;
    return `there is no host ${JSON.stringify(name)}${hint(name, hosts.keys())}`;
  }

  const host: Field<string> = (place) => {
    const name = place.scalar();
    if (typeof name !== 'string') return place.expected('the name of a host');
    const problem = problemOf(name);
    return problem === null ? name : place.report(problem);
  };

  const fullHost: Field<string> = (place) => {
    const name = host(place);
    const isWitness = name !== undefined && hosts?.get(name)?.kind === 'witness';
    return isWitness ? place.report(`${name} is a witness, and these run no VMs`) : name;
  };

  const groups: Field<string[][]> = (place) => list(list(distinct(host, new Set()), 1), 1)(place);

  return { hosts, host, fullHost, groups, problemOf };
}

export interface VmNames {
  readonly vm: Field<string>;
  /** What a VM starts after: a VM, or all members of a counted entry by the entry's name. */
  readonly dependency: Field<readonly string[]>;
  readonly pattern: Field<{ readonly pattern: string; readonly vms: readonly string[] }>;
}

/** `groups`: name of an entry with a count above one -> its VMs. */
export function createVmNames(
  names: readonly string[] | null,
  groups: ReadonlyMap<string, readonly string[]>,
): VmNames {
  const known = names === null ? null : new Set(names);
  /** Many checks of many VMs mostly share few patterns. */
  const matches = new Map<string, readonly string[]>();

  function problemOf(name: string): string | null {
    if (known === null || known.has(name)) return null;
    const group = groups.get(name);
    const guess =
      group === undefined
        ? hint(name, candidates(known))
        : `; ${name} stands for ${group.length} VMs, ${group[0]} to ${group.at(-1)}`;
    return `there is no VM ${JSON.stringify(name)}${guess}`;
  }

  function* candidates(all: Iterable<string>): Iterable<string> {
    yield* groups.keys();
    yield* all;
  }

  const vm: Field<string> = (place) => {
    const name = label(place);
    const problem = name === undefined ? null : problemOf(name);
    return problem === null ? name : place.report(problem);
  };

  const dependency: Field<readonly string[]> = (place) => {
    const name = place.scalar();
    const group = typeof name === 'string' ? groups.get(name) : undefined;
    if (group !== undefined && known?.has(name as string) !== true) return group;
    const one = vm(place);
    return one === undefined ? undefined : [one];
  };

  function vmsOf(pattern: string): readonly string[] {
    const vms = matches.get(pattern) ?? matching(pattern, names ?? []);
    matches.set(pattern, vms);
    return vms;
  }

  const pattern: VmNames['pattern'] = (place) => {
    const text = place.scalar();
    if (typeof text !== 'string' || !/^[a-z0-9*-]+$/.test(text)) {
      return place.expected('a VM, or a pattern of VMs such as web-*');
    }
    const vms = vmsOf(text);
    if (vms.length > 0 || known === null) return { pattern: text, vms };
    return place.report(
      text.includes('*') ? `no VM matches ${text}` : (problemOf(text) ?? 'there is no such VM'),
    );
  };

  return { vm, dependency, pattern };
}

/** A time of the run; `endMs` null: the run ends after the last of them. */
export function timeBefore(endMs: number | null): Field<number> {
  return (place) => {
    const at = duration()(place);
    if (at === undefined || endMs === null || at <= endMs) return at;
    return place.report(
      `${formatDuration(at)} is after the end of the run (duration: ${formatDuration(endMs)})`,
    );
  };
}
