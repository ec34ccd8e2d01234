// Making and removing the objects of a VM. Both are several steps under the VM's lock, in an order
// that leaves nothing half-made: the namespace object comes first and names all that is to be made,
// and goes last. Whoever finds a VM that is not `ready` with a free lock removes what is there.

import { asHoldfastError, HoldfastError } from '../model/errors.ts';
import {
  epoch,
  type HostId,
  objectId,
  revision,
  type StoreId,
  type VmId,
  vmId,
} from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Timings } from '../model/limits.ts';
import type { StoragePolicy } from '../model/policy.ts';
import {
  components,
  type DiskRecord,
  type NamespaceRecord,
  type ObjectRecord,
  type Voting,
  votingOf,
} from '../model/record.ts';
import { objectDisks, type VmSpec } from '../model/vm.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';
import type { VmPlacement } from './api.ts';
import type { Directory } from './directory/directory.ts';
import type { CreateComponent } from './disk/messages.ts';
import type { LeaseHolder } from './lease/holder.ts';
import type { Locks } from './locks.ts';
import { namespaceFailures, namespaceName, pinsOf, placePinned } from './placement/pins.ts';
import { blueprint, type Placed, type PlacementHost, placeObject } from './placement/placement.ts';
import type { Records } from './records.ts';

const createTimeoutMs = 5000;
/** A device that is slower than 10 MB/s is taken for silent. */
const leastAllocatedBytesPerMs = 10_000;

export interface VmObjects {
  create(spec: VmSpec, placement: VmPlacement): Promise<VmId>;
  remove(vm: VmId): Promise<void>;
  start(): void;
  stop(): void;
}

export function createVmObjects(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly timings: Timings;
  readonly directory: Directory;
  readonly records: Records;
  readonly locks: Locks;
  readonly holder: LeaseHolder;
  readonly placementHosts: () => PlacementHost[];
  readonly members: () => readonly { readonly host: HostId; readonly kind: 'full' | 'witness' }[];
  readonly isReachable: (host: HostId) => boolean;
}): VmObjects {
  const { peer, clock, random, log, directory, records, locks } = options;
  const names = new Set<string>();
  const cleaning = new Set<VmId>();
  /** VMs that are being made or removed, by somebody, and since when this host knows. */
  const unready = new Map<VmId, number>();
  let timer: Timer | null = null;

  function noticeLifecycle(record: ObjectRecord, previous: ObjectRecord | null): void {
    if (record.kind === 'namespace' && record.lifecycle !== 'ready') {
      if (!unready.has(record.vm)) unready.set(record.vm, clock.now());
    }
    // The tombstone of a disk says nothing: its VM is there until its namespace object is gone.
    else if (record.kind === 'namespace' || previous?.kind === 'namespace')
      unready.delete(record.vm);
  }

  for (const record of directory.namespaces()) noticeLifecycle(record, null);
  directory.onChange(noticeLifecycle);

  function plan(
    spec: VmSpec,
    placement: VmPlacement,
  ): { namespace: NamespaceRecord; disks: DiskRecord[] } {
    const vm = vmId(random.id());
    const hosts = options.placementHosts();
    // A disk on a path is no object: its VM has the namespace object, and with it lock and protection.
    const wanted = objectDisks(spec.disks);
    const pinOf = pinsOf(
      placement,
      wanted.map((disk) => disk.name),
    );
    const used = new Map<StoreId, number>();
    let together: readonly HostId[] = [];
    const place = (name: string, policy: StoragePolicy, sizeBytes: number): Placed => {
      const free = hosts.map((host) => withUsed(host, used));
      const pin = pinOf(name);
      if (pin === null) return placeObject(policy, sizeBytes, free, together);
      return placePinned(name, pin, policy, sizeBytes, free, options.members());
    };
    const disks = wanted.map((disk): DiskRecord => {
      const placed = place(disk.name, disk.policy, disk.sizeBytes);
      if (together.length === 0) together = placed.voters.map((voter) => voter.host);
      const id = objectId(random.id());
      const tree = blueprint(id, disk.policy, disk.sizeBytes, placed.dataHosts);
      for (const { store, sizeBytes } of components(tree)) {
        used.set(store, (used.get(store) ?? 0) + sizeBytes);
      }
      return {
        kind: 'disk',
        id,
        vm,
        name: disk.name,
        revision: revision(0),
        policy: disk.policy,
        voters: placed.voters,
        sizeBytes: disk.sizeBytes,
        blueprint: tree,
        inSync: components(tree).map((component) => component.id),
        fence: { epoch: epoch(0), open: 0 },
      };
    });
    // The namespace object survives whatever any of the disks survives.
    const ofDisks = Math.max(0, ...wanted.map((disk) => disk.policy.failuresToTolerate));
    const pin = pinOf(namespaceName);
    const failuresToTolerate =
      pin === null
        ? Math.max(ofDisks, Math.min(1, Math.floor((hosts.length - 1) / 2)))
        : namespaceFailures(pin, ofDisks);
    const policy: StoragePolicy = { failuresToTolerate, stripes: 1 };
    const placed = place(namespaceName, policy, 0);
    const optional = disks
      .filter((_, index) => wanted[index]?.required === false)
      .map((disk) => disk.id);
    const namespace: NamespaceRecord = {
      kind: 'namespace',
      id: objectId(random.id()),
      vm,
      name: spec.name,
      revision: revision(0),
      policy,
      voters: placed.voters,
      lifecycle: 'creating',
      lock: { holder: peer.self, epoch: epoch(1) },
      metadata: {},
      files: {
        'vm.json': JSON.stringify(spec),
        ...Object.fromEntries(disks.map((disk) => [`${disk.name}.json`, descriptor(disk)])),
      },
      disks: disks.map((disk) => disk.id),
      ...(optional.length === 0 ? {} : { optional }),
    };
    return { namespace, disks };
  }

  function assertNameFree(name: string): void {
    const other = directory.named(name);
    if (other === null && !names.has(name)) return;
    const state = other === null || other.lifecycle === 'creating' ? ' (it is being made)' : '';
    throw new HoldfastError('name-in-use', `There is a VM named ${name} already${state}`);
  }

  async function makeComponents(disk: DiskRecord): Promise<void> {
    await Promise.all(
      components(disk.blueprint).map((component) => {
        const request: CreateComponent = {
          component: component.id,
          object: disk.id,
          sizeBytes: component.sizeBytes,
          store: component.store,
          ...(disk.policy.thick === true ? { thick: true } : {}),
        };
        const allocatedMs = request.thick ? component.sizeBytes / leastAllocatedBytesPerMs : 0;
        return peer.ask(
          component.host,
          'component.create',
          request as unknown as JsonValue,
          createTimeoutMs + allocatedMs,
        );
      }),
    );
  }

  async function create(spec: VmSpec, placement: VmPlacement): Promise<VmId> {
    assertNameFree(spec.name);
    const { namespace, disks } = plan(spec, placement);
    const { vm } = namespace;
    names.add(spec.name);
    locks.busy(vm, true);
    try {
      await records.create(namespace);
      await locks.holdNew(namespace);
      for (const disk of disks) {
        await makeComponents(disk);
        await records.create(disk);
      }
      await records.changeNamespace(vm, (current) => {
        // Who found it left half-made while this host was cut off has begun to remove it.
        if (current.lock.epoch !== namespace.lock.epoch || current.lifecycle !== 'creating') {
          throw new HoldfastError('conflict', `VM ${spec.name} was removed while it was made`);
        }
        return {
          ...current,
          lifecycle: 'ready',
          lock: { holder: null, epoch: current.lock.epoch },
        };
      });
      letGo(vm);
      return vm;
    } catch (error) {
      log.warn(`VM ${spec.name} could not be made: ${asHoldfastError(error).message}`, { vm });
      // Where this host can not clean up, others must be able to.
      options.holder.drop(vm);
      await removeObjects(namespace).catch((cleanup: unknown) => {
        log.warn(`what was made of VM ${spec.name} goes later: ${String(cleanup)}`, { vm });
      });
      throw error;
    } finally {
      names.delete(spec.name);
      locks.busy(vm, false);
    }
  }

  /** The disks first: as long as the namespace object stands, what remains can be found. */
  async function removeObjects(namespace: NamespaceRecord): Promise<void> {
    for (const object of namespace.disks) {
      const described = Object.values(namespace.files)
        .map((file) => JSON.parse(file) as { object?: string } & Partial<Voting>)
        .find((file) => file.object === object);
      const voting: Voting = directory.disk(object) ?? {
        voters: described?.voters ?? namespace.voters,
      };
      if (!directory.isDeleted(object)) await records.bury(object, namespace.vm, votingOf(voting));
    }
    await records.bury(namespace.id, namespace.vm, votingOf(namespace));
    letGo(namespace.vm);
  }

  /** No record names this host its holder any more. */
  function letGo(vm: VmId): void {
    options.holder.drop(vm);
    options.holder.forget(vm);
  }

  async function remove(vm: VmId): Promise<void> {
    const record = directory.namespace(vm);
    if (record === null)
      throw new HoldfastError('unknown-vm', `VM ${vm} is not known on ${peer.self}`);
    cleaning.add(vm);
    try {
      const epochTaken = await locks.lock(vm, {}, (current) => ({
        ...current,
        lifecycle: 'removing',
      }));
      try {
        await removeObjects(directory.namespace(vm) ?? record);
      } catch (error) {
        await locks.unlock(vm, epochTaken).catch(() => undefined);
        throw error;
      }
    } finally {
      cleaning.delete(vm);
    }
  }

  /** Removes what a host that failed meanwhile has left half-made or half-removed. */
  function janitor(): void {
    timer = clock.after(options.timings.directorySyncMs, janitor);
    for (const [vm, sinceMs] of unready) {
      // The voters protect the lock of a VM that is being made only once its maker has asked them to,
      // some milliseconds after its first record (one of 2000 was taken for left behind in between).
      if (clock.now() - sinceMs < options.timings.directorySyncMs) continue;
      const record = directory.namespace(vm);
      if (record === null || cleaning.has(vm) || names.has(record.name)) continue;
      const first = record.voters.map((one) => one.host).find((host) => options.isReachable(host));
      if (first !== peer.self) continue;
      remove(record.vm).then(
        () => log.info(`removed VM ${record.name}, which was left half-${record.lifecycle}`),
        (error: unknown) => log.debug(`VM ${record.name} is not removed yet: ${String(error)}`),
      );
    }
  }

  return {
    create,
    remove,
    start: janitor,
    stop: () => timer?.cancel(),
  };
}

/** The host when so many bytes are promised on its devices. */
function withUsed(host: PlacementHost, used: ReadonlyMap<StoreId, number>): PlacementHost {
  const less = <Space extends Pick<PlacementHost, 'store' | 'freeBytes' | 'placedBytes'>>(
    space: Space,
  ): Space => {
    const bytes = used.get(space.store) ?? 0;
    const { freeBytes, placedBytes = 0 } = space;
    return { ...space, freeBytes: freeBytes - bytes, placedBytes: placedBytes + bytes };
  };
  const { devices } = host;
  return { ...less(host), ...(devices === undefined ? {} : { devices: devices.map(less) }) };
}

/** What `<disk>.json` in the namespace object says: enough to find and to remove the disk object. */
function descriptor(disk: DiskRecord): string {
  return JSON.stringify({
    object: disk.id,
    name: disk.name,
    sizeBytes: disk.sizeBytes,
    policy: disk.policy,
    voters: disk.voters,
  });
}
