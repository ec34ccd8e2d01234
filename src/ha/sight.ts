// What a host sees of VMs, whoever looks: their protection states, their locks and whether their objects are
// accessible, and how to reach their voters. By itself a host sees what its own store says; a master sees
// more (`agents-sight.ts`).

import type { HostId, VmId } from '../model/ids.ts';
import { haService, type ProtectionState, protectionKey } from '../model/protection.ts';
import type { Lock } from '../model/record.ts';
import { type Attempts, attemptsKey } from '../model/restart.ts';
import type { Accessibility, LockStatus, Storage } from '../storage/api.ts';
import type { HaState, ProtectionView } from './protection-view.ts';

export interface SeenVm {
  readonly name: string;
  readonly lock: Pick<Lock, 'holder' | 'epoch'>;
  readonly dataHosts: readonly HostId[];
}

export interface Sight {
  /** The generic GET: of all VMs that are accessible now and have one, or of those of these. */
  states(vms: readonly VmId[] | null): ReadonlyMap<VmId, HaState>;
  /** Null: there is no such VM, or it is being made or removed. */
  vm(vm: VmId): SeenVm | null;
  accessibility(vms: readonly VmId[]): ReadonlyMap<VmId, Accessibility>;
  /** Hosts of the storage network that are reached by anybody who is asked. */
  reaches(host: HostId): boolean;
  /** Asks the voters; rejects as the storage's does, or because an agent does not answer. */
  lockStatus(vm: VmId): Promise<LockStatus>;
  /** The generic SET of the protection state, on condition that the lock is held at its epoch. */
  protect(vm: VmId, state: ProtectionState): Promise<void>;
  /** The generic SET of the attempts so far; null: there are none. */
  saveAttempts(vm: VmId, attempts: Attempts | null): Promise<void>;
}

export function ownSight(storage: Storage, view: ProtectionView): Sight {
  return {
    states: (vms) => (vms === null ? view.all() : view.of(vms)),
    vm(vm) {
      const found = storage.vm(vm);
      return found?.lifecycle === 'ready' ? found : null;
    },
    accessibility: (vms) => storage.accessibility(vms),
    reaches: (host) => storage.reachableHosts().includes(host),
    lockStatus: (vm) => storage.lockStatus(vm),
    protect: (vm, state) =>
      storage.setMetadata(vm, haService, protectionKey, { ...state }, { heldAtEpoch: state.epoch }),
    saveAttempts: (vm, attempts) =>
      storage.setMetadata(vm, haService, attemptsKey, attempts === null ? null : { ...attempts }),
  };
}
