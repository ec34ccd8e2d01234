// Repair of the disks of VMs that are switched off: copies that missed something, copies on hosts that are
// gone, another layout. The responsible host (the first voter within reach) takes the VM's lock *for repair*,
// opens the disks with no guest, as any holder does, and they come up to date as those of a guest do. So
// nothing has to be argued anew: there is one writer, under the lock, with a lease.
//
// Nobody is to wait for that. Who wants the lock for anything else asks for it (`lock.yield`): the disks
// are closed and the lock is free, some milliseconds later; what was copied so far is not copied
// again. A host that dies meanwhile is waited for as long as a lease, as always. VMs that are protected
// are left to HA, which starts them.

import { asHoldfastError, HoldfastError } from '../../model/errors.ts';
import type { Epoch, HostId, StoreId, VmId } from '../../model/ids.ts';
import type { Timings } from '../../model/limits.ts';
import { haService, protectionKey, readProtection } from '../../model/protection.ts';
import {
  components,
  type DiskRecord,
  type NamespaceRecord,
  type ObjectRecord,
  votersOf,
} from '../../model/record.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import { objectAccessibility } from '../directory/accessibility.ts';
import type { Directory } from '../directory/directory.ts';
import type { LeaseHolder } from '../lease/holder.ts';
import type { Locks } from '../locks.ts';
import type { RepairedDisks, ServedDisks } from '../served-disks.ts';
import type { Absence } from './absence.ts';
import { isLaidOut } from './layout-step.ts';

/** So many VMs are repaired at once by one host. */
const maxRunning = 2;
/** After that the lock is left to others for a while, whoever wants it. */
const restMs = 10_000;

interface Running {
  epoch: Epoch | null;
  /** Somebody wants the lock, or it is lost. */
  isOver: boolean;
  /** When a need was last seen. */
  neededAtMs: number;
  readonly ended: Promise<void>;
}

export interface OffRepair {
  start(): void;
  /** Gives up all locks. */
  stop(): Promise<void>;
}

export function createOffRepair(options: {
  readonly self: HostId;
  readonly clock: Clock;
  readonly log: Log;
  readonly timings: Timings;
  readonly directory: Directory;
  readonly locks: Locks;
  readonly holder: LeaseHolder;
  readonly disks: ServedDisks;
  readonly absence: Absence;
  readonly isHostReachable: (host: HostId) => boolean;
  readonly isStoreReachable: (host: HostId, store: StoreId) => boolean;
}): OffRepair {
  const { self, clock, log, timings, directory, locks, disks, isStoreReachable } = options;
  const running = new Map<VmId, Running>();
  /** VMs of which some disk is not as it shall be, or whose lock somebody has for repair. */
  const wanting = new Set<VmId>();
  /** Until when a VM is left alone. */
  const restingUntil = new Map<VmId, number>();
  let timer: Timer | null = null;
  let isStopped = false;

  function notice(record: ObjectRecord): void {
    const vm = directory.namespace(record.vm);
    if (vm === null) wanting.delete(record.vm);
    else if (vm.lock.use === 'repair' || disksOf(vm).some(isWanting)) wanting.add(vm.vm);
    else wanting.delete(vm.vm);
  }
  for (const record of directory.namespaces()) notice(record);
  directory.onChange(notice);
  locks.onYield(yielded);
  options.holder.onLease({
    extended() {},
    lapsed() {},
    regained() {},
    lost(vm) {
      const one = running.get(vm);
      if (one !== undefined) one.isOver = true;
    },
  });

  function disksOf(vm: NamespaceRecord): DiskRecord[] {
    return vm.disks.flatMap((object) => directory.disk(object) ?? []);
  }

  async function yielded(vm: VmId): Promise<void> {
    const one = running.get(vm);
    if (one === undefined) return;
    log.info(`the repair of ${nameOf(vm)} stops: its lock is wanted`);
    one.isOver = true;
    await one.ended;
  }

  function nameOf(vm: VmId): string {
    return directory.namespace(vm)?.name ?? vm;
  }

  function look(): void {
    timer = clock.after(timings.repairIntervalMs, look);
    if (options.absence.isAnyoneGone())
      for (const record of directory.namespaces()) consider(record);
    else for (const vm of wanting) consider(directory.namespace(vm));
  }

  function consider(record: NamespaceRecord | null): void {
    if (record === null || running.size >= maxRunning || running.has(record.vm)) return;
    if (isDue(record)) begin(record);
  }

  function isDue(vm: NamespaceRecord): boolean {
    if ((restingUntil.get(vm.vm) ?? 0) > clock.now()) return false;
    if (vm.lifecycle !== 'ready' || isProtected(vm)) return false;
    const { holder, use } = vm.lock;
    const isLeft = use === 'repair' && holder !== null && !options.isHostReachable(holder);
    if (holder !== null && !isLeft) return false;
    const first = votersOf(vm).find(({ host }) => options.isHostReachable(host));
    return first?.host === self && (isLeft || canBeRepaired(vm));
  }

  /** Something is to be done that can be done now. */
  function canBeRepaired(vm: NamespaceRecord): boolean {
    const known = disksOf(vm);
    const isUsable = [vm, ...known].every(
      (record) => objectAccessibility(record, isStoreReachable).accessible,
    );
    return isUsable && known.some(hasWork);
  }

  function hasWork(disk: DiskRecord): boolean {
    if (!isLaidOut(disk)) return true;
    // One that is gone may count still: while nobody writes, nobody misses it.
    return components(disk.blueprint).some(
      ({ id, host, store }) =>
        options.absence.isGone(host, store) ||
        (!disk.inSync.includes(id) && isStoreReachable(host, store)),
    );
  }

  function begin(vm: NamespaceRecord): void {
    let end = () => {};
    const one: Running = {
      epoch: null,
      isOver: false,
      neededAtMs: clock.now(),
      ended: new Promise((resolve) => {
        end = resolve;
      }),
    };
    running.set(vm.vm, one);
    repair(vm, one)
      .catch((error: unknown) => {
        log.debug(`${vm.name} is not repaired yet: ${asHoldfastError(error).message}`);
      })
      .finally(() => {
        running.delete(vm.vm);
        restingUntil.set(vm.vm, clock.now() + restMs);
        end();
      });
  }

  async function repair(vm: NamespaceRecord, one: Running): Promise<void> {
    one.epoch = await locks.lock(vm.vm, { use: 'repair' }, assertOff);
    let open: RepairedDisks | null = null;
    try {
      if (!one.isOver && disksOf(vm).some(hasWork)) {
        log.info(`${vm.name}, which is switched off, is being repaired`, { epoch: one.epoch });
        open = await disks.openForRepair(vm, one.epoch);
        await worked(vm.vm, one, open);
      }
    } finally {
      await open?.close();
      await locks.unlock(vm.vm, one.epoch).catch((error: unknown) => {
        log.debug(`the lock of ${vm.name} is given back later: ${asHoldfastError(error).message}`);
      });
    }
  }

  /** Resolves when there is nothing left to do, nothing gets on, or somebody wants the lock. */
  async function worked(vm: VmId, one: Running, { disks: open }: RepairedDisks): Promise<void> {
    const pauseMs = timings.heartbeatIntervalMs / 5;
    // A copy that can not be had now, or a layout for which there is no host, must not keep the lock.
    const patienceMs = 4 * timings.repairIntervalMs + timings.bitmapClearMs + timings.resyncRetryMs;
    let seen = '';
    for (;;) {
      if (one.isOver || isStopped) return;
      const record = directory.namespace(vm);
      const left = open.map((disk) => disk.resync()?.bytesLeft);
      const known = record === null ? [] : disksOf(record);
      // Bits that stay set would have the next opening compare all that they stand for.
      const isDone = !known.some(isWanting) && !open.some((disk) => disk.isDirty);
      if (record === null || isDone) return;
      const now = JSON.stringify([left, record.revision, known.map((disk) => disk.revision)]);
      if (now !== seen) {
        seen = now;
        one.neededAtMs = clock.now();
      }
      if (clock.now() - one.neededAtMs > patienceMs) return;
      await new Promise<void>((resolve) => clock.after(pauseMs, resolve));
    }
  }

  return {
    start: look,
    async stop() {
      isStopped = true;
      timer?.cancel();
      await Promise.all([...running.values()].map(({ ended }) => ended));
    },
  };
}

function isWanting(disk: DiskRecord): boolean {
  return !isLaidOut(disk) || components(disk.blueprint).some(({ id }) => !disk.inSync.includes(id));
}

function isProtected(vm: NamespaceRecord): boolean {
  return readProtection(vm.metadata[haService]?.[protectionKey])?.protected === true;
}

/** The register decides: a user may have switched it on, or be removing it, just now. */
function assertOff(vm: NamespaceRecord): NamespaceRecord {
  if (vm.lifecycle === 'ready' && !isProtected(vm)) return vm;
  throw new HoldfastError('conflict', `VM ${vm.name} is not just switched off`);
}
