// Protection state in files instead of in each VM's own namespace object. HA goes on calling SET and
// GET; this decorator turns them into writes and reads of a file, of which there are four kinds. What
// the product gets from the register for nothing, a condition on the VM's lock in the same change, no
// file can have: the best that it can do is not to replace a newer entry by an older one.

import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import type { HostId, VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import {
  haService,
  type ProtectionState,
  protectionKey,
  readProtection,
} from '../../model/protection.ts';
import type { SetCondition, Storage } from '../../storage/api.ts';
import type { Shared } from './shared.ts';

export type States = ReadonlyMap<VmId, ProtectionState>;

export interface ProtectionFile {
  /** What can be read here now; null where the file can not be read. */
  read(): States | null;
  /** Rejects with `inaccessible` or `lock-held` (to be tried again) or `conflict` (never). */
  write(vm: VmId, state: ProtectionState, condition?: SetCondition): Promise<void>;
  /** The VM has been switched off by its user. */
  switchedOff(vm: VmId, state: ProtectionState): Promise<void>;
  /** VMs of which the file says something else than before. */
  watch(listener: (vms: readonly VmId[]) => void): void;
  /** A VM whose accessibility stands for that of the file; null: there is none. */
  readonly vm: VmId | null;
  /** The file is the VM's namespace object: a start by HA can still be made on condition of it. */
  readonly guardsStarts: boolean;
  /** This host becomes or ceases to be master. */
  elected?(): void;
  abdicated?(): void;
}

/** Refuses what must not replace the entry that is known: an older epoch, or a delayed protection
 * of a VM that has been switched off since. */
export function assertNewer(vm: VmId, known: ProtectionState | undefined, wanted: ProtectionState) {
  if (newest(known, wanted) === wanted) return;
  throw new HoldfastError('conflict', `VM ${vm}: the file has a newer entry (${known?.epoch})`);
}

/** The later power-on, or of the same one its end; `b` where they say the same. */
export function newest<
  A extends ProtectionState | undefined,
  B extends ProtectionState | undefined,
>(a: A, b: B): A | B {
  if (a === undefined || b === undefined) return a ?? b;
  if (a.epoch !== b.epoch) return a.epoch > b.epoch ? a : b;
  return !a.protected && b.protected ? a : b;
}

export function statesIn(content: Readonly<Record<string, JsonValue>>): Map<VmId, ProtectionState> {
  const states = new Map<VmId, ProtectionState>();
  for (const [vm, value] of Object.entries(content)) {
    const state = readProtection(value);
    if (state !== null) states.set(vm as VmId, state);
  }
  return states;
}

/** What differs from the last call. */
export class Differences {
  #last: States = new Map();

  since(now: States): VmId[] {
    const before = this.#last;
    this.#last = now;
    return [...now].flatMap(([vm, state]) => {
      const old = before.get(vm);
      const isSame = old?.epoch === state.epoch && old.protected === state.protected;
      return isSame ? [] : [vm];
    });
  }
}

/** The storage whose protection state is in the file. `noted`: what this host, as master, has been
 * told and could not write yet. */
export function storeInFile(options: {
  readonly self: HostId;
  readonly storage: Storage;
  readonly file: ProtectionFile;
  readonly noted: () => States;
  readonly shared: Shared;
}): Storage {
  const { storage, file, noted } = options;
  const isProtection = (service: string, key: string) =>
    service === haService && key === protectionKey;
  return {
    ...storage,
    async setMetadata(vm, service, key, value, condition) {
      const state = isProtection(service, key) ? readProtection(value) : null;
      if (state === null) return storage.setMetadata(vm, service, key, value, condition);
      await countRefused(options.shared, options.self, vm, state, async () => {
        assertNewer(vm, noted().get(vm), state);
        await file.write(vm, state, condition);
      });
    },
    getMetadata(service, key) {
      if (!isProtection(service, key)) return storage.getMetadata(service, key);
      const values = new Map<VmId, JsonValue>();
      for (const [vm, state] of file.read() ?? []) values.set(vm, { ...state });
      for (const [vm, state] of noted()) {
        const written = readProtection(values.get(vm)) ?? undefined;
        if (newest(written, state) === state) values.set(vm, { ...state });
      }
      return { values: [...values].map(([vm, value]) => ({ vm, value })), objectReads: 0 };
    },
    // The voters of the VM's own object know nothing of it.
    lockStatus: async (vm) => ({ ...(await storage.lockStatus(vm)), isProtected: true }),
    watchMetadata(service, listener) {
      if (service === haService) file.watch(listener);
      else storage.watchMetadata(service, listener);
    },
    watchAccessibility(listener) {
      storage.watchAccessibility((vms) => {
        // With the file, the protection of every VM can be read and written again.
        const isFileBack = file.vm !== null && vms.includes(file.vm);
        listener(isFileBack ? storage.vms().map((view) => view.vm) : vms);
      });
    },
  };
}

/** An update counts once, however often it is repeated. */
export async function countRefused(
  shared: Shared,
  self: HostId,
  vm: VmId,
  state: ProtectionState,
  write: () => Promise<void>,
): Promise<void> {
  try {
    await write();
  } catch (error) {
    const { code } = asHoldfastError(error);
    const update = `${self} ${vm} ${state.epoch} ${state.protected}`;
    if (code !== 'conflict' && code !== 'unknown-vm' && shared.isNew(`refused ${update}`)) {
      shared.counters.protectionUpdatesRefused += 1;
    }
    throw error;
  }
}
