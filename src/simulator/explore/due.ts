// Which VMs must run when all has been healed that will be: those that are protected by their newest
// committed record, and whose objects are to be had. Looked up in what was committed, not asked of hosts.

import { haService, protectionKey, readProtection } from '../../model/protection.ts';
import {
  components,
  isQuorum,
  type NamespaceRecord,
  type ObjectRecord,
} from '../../model/record.ts';
import type { Ledger } from '../checkers/ledger.ts';
import type { Expected } from '../checkers/liveness.ts';
import type { World } from '../world/world.ts';

/** `lost`: hosts that have another main disk than the one with which the objects were made, and further devices
 * that are no more. */
export function dueVms(world: World, ledger: Ledger, lost: ReadonlySet<string>): Expected[] {
  const holds = ({ host, store }: { readonly host: string; readonly store: string }) =>
    world.machine(host).host !== null && !lost.has(host) && !lost.has(store);
  const wanted = ledger.namespaces().flatMap((record) => {
    const state = readProtection(record.metadata[haService]?.[protectionKey]);
    return state?.protected === true ? [{ record, state }] : [];
  });
  const able = wanted.filter(({ record }) => objectsOf(ledger, record).every(isReachable));
  const names = new Set(able.map(({ record }) => record.name));
  // Those that start after one that can not be had wait for it, for longer than a run lasts.
  const lacking = wanted.filter(({ record }) => !names.has(record.name));
  for (const { record } of lacking) dropFollowers(record.name);
  return [...names].map((name) => ({ name, shouldRun: true }));

  function dropFollowers(of: string): void {
    for (const { record, state } of able) {
      if (state.after?.includes(of) !== true || !names.delete(record.name)) continue;
      dropFollowers(record.name);
    }
  }

  function isReachable(record: ObjectRecord | null): boolean {
    if (record === null) return false;
    if (!isQuorum(record, holds)) return false;
    const doubtful = ledger.doubtful(record.id);
    if (doubtful !== null && !isQuorum(doubtful, holds)) return false;
    if (record.kind !== 'disk') return true;
    const { mirrors } = record.blueprint;
    const stripes = mirrors[0]?.stripes ?? [];
    const isThere = components(record.blueprint).filter(
      (one) => record.inSync.includes(one.id) && holds(one),
    );
    return stripes.every((_, index) =>
      mirrors.some(({ stripes: own }) => isThere.some((one) => one.id === own[index]?.id)),
    );
  }
}

function objectsOf(ledger: Ledger, record: NamespaceRecord): (ObjectRecord | null)[] {
  return [record, ...record.disks.map((disk) => ledger.record(disk))];
}
