// The object store of one host, put together: registers and components on its own disk, the
// directory, leases and locks, and the disks that this host's guests use.

import { HoldfastError } from '../model/errors.ts';
import type { EventType } from '../model/events.ts';
import type { Epoch, HostId, VmId } from '../model/ids.ts';
import { incarnation as asIncarnation } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import { limits, type Timings } from '../model/limits.ts';
import { components, type DiskRecord, type NamespaceRecord } from '../model/record.ts';
import type { VmSpec } from '../model/vm.ts';
import { noPayload } from '../peer/frame.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock } from '../ports/clock.ts';
import type { LocalDisk } from '../ports/disk.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';
import type { Streams } from '../ports/streams.ts';
import type {
  ComponentState,
  LeaseEvents,
  ObjectView,
  OpenDisks,
  OpenDisksOptions,
  Storage,
  StorageHostView,
  VmView,
} from './api.ts';
import {
  dataHosts,
  objectAccessibility,
  type StoreReachable,
  vmAccessibility,
} from './directory/accessibility.ts';
import { createDirectory, type DirectoryEntry } from './directory/directory.ts';
import { createDirectorySync } from './directory/sync.ts';
import { createComponentStore } from './disk/component-store.ts';
import { type OpenDisk, openDisk } from './disk/disk.ts';
import type { Gate } from './disk/mirror.ts';
import { type Journal, openJournal } from './journal/journal.ts';
import { createHeartbeats, type Heartbeats } from './lease/heartbeat.ts';
import { createLeaseHolder } from './lease/holder.ts';
import type { ConfirmAnswer, ConfirmRequest, StoreReport } from './lease/messages.ts';
import { createLeaseVoter } from './lease/voter.ts';
import { createLocks, withMetadata } from './locks.ts';
import { serveNbd } from './nbd/server.ts';
import type { PlacementHost } from './placement/placement.ts';
import { createRecords } from './records.ts';
import { createRegisters } from './register/registers.ts';
import { createVmObjects } from './vm-objects.ts';
import { watchVms } from './watches.ts';

export interface StoreOptions {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly disk: LocalDisk;
  readonly streams: Streams;
  readonly timings: Timings;
  /** Hosts of the cluster, this one included, and whether they hold data. */
  readonly members: () => readonly { readonly host: HostId; readonly kind: 'full' | 'witness' }[];
  /** Where a disk of a VM is served. */
  readonly socketPath: (vm: VmId, disk: string) => string;
  /** Bytes that components may use of the device at most; null: all. */
  readonly capacityBytes: number | null;
  readonly emit: (
    type: EventType,
    text: string,
    vm?: { readonly vm: VmId; readonly name: string },
  ) => void;
}

export interface Store extends Storage {
  /** Begins to beat, to answer and to bring the directory up to date. */
  start(): void;
  /** Begins to release locks that name this host without need: after its guests were found. */
  releaseForgotten(): void;
  stop(): Promise<void>;
}

export async function createStore(options: StoreOptions): Promise<Store> {
  const { peer, clock, random, timings, emit } = options;
  const self = peer.self;
  const log = options.log.child('storage');
  const journal = await openStore(options, log);
  const failed = journal instanceof HoldfastError ? journal : null;
  if (failed !== null)
    emit('storage.damaged', `The store of ${self} is not used: ${failed.message}`);
  // A store that can not be read gives no incarnation: then the host votes for nothing, and its
  // heartbeats must still not be taken for those of an earlier start.
  const incarnation =
    journal instanceof HoldfastError
      ? asIncarnation(Math.floor(clock.wallTime()))
      : journal.superblock.state.incarnation;

  const directory = createDirectory();
  const sync = createDirectorySync({ peer, clock, log, timings, directory });
  let longestLeaseMs =
    journal instanceof HoldfastError
      ? timings.leaseDurationMs
      : journal.superblock.state.longestLeaseMs;

  function problem(): string | null {
    if (journal instanceof HoldfastError) return journal.message;
    return journal.failure?.message ?? null;
  }

  function report(): StoreReport {
    const space = options.disk.space();
    const cap = options.capacityBytes ?? space.totalBytes;
    const usedBytes = space.totalBytes - space.freeBytes;
    return {
      id: journal instanceof HoldfastError ? null : journal.superblock.state.store,
      problem: problem(),
      totalBytes: Math.min(cap, space.totalBytes),
      freeBytes: Math.max(
        0,
        Math.min(space.freeBytes, cap - (options.capacityBytes === null ? usedBytes : 0)),
      ),
    };
  }

  function allowLease(leaseMs: number): void {
    if (leaseMs <= longestLeaseMs) return;
    if (journal instanceof HoldfastError) return;
    journal.superblock.update({ longestLeaseMs: leaseMs }).then(
      () => {
        longestLeaseMs = Math.max(longestLeaseMs, leaseMs);
      },
      (error: unknown) => log.error(`a longer lease can not be granted: ${String(error)}`),
    );
  }

  let heartbeats: Heartbeats;
  const voter = createLeaseVoter({
    clock,
    incarnation,
    longestLeaseMs: () => longestLeaseMs,
    heardSince: (host) => heartbeats.heardSince(host),
  });
  const holder = createLeaseHolder({
    clock,
    log,
    leaseDurationMs: timings.leaseDurationMs,
    safetyMarginMs: timings.safetyMarginMs,
    confirm: askToConfirm,
    repair: (vm, epoch) => locks.repair(vm, epoch),
    beatNow: () => heartbeats.beatNow(),
  });
  heartbeats = createHeartbeats({
    peer,
    clock,
    timings,
    incarnation,
    members: () => options.members().map((member) => member.host),
    holder,
    voter: () => voter,
    store: report,
    digest: () => directory.digest(),
    allowLease,
    onDigest: (host, digest) => sync.onDigest(host, digest),
  });

  const registers = createRegisters({
    peer,
    clock,
    random,
    log,
    journal,
    admission: voter,
    timings,
    onCommitted: (record, ballot) => {
      const entry = { record, ballot };
      if (directory.update(entry)) sync.announce(entry);
    },
  });
  for (const [, { accepted, committed }] of registers.all()) {
    if (accepted !== null && committed) directory.update(accepted);
  }

  const records = createRecords({ registers, directory, self });
  const locks = createLocks({
    peer,
    clock,
    log,
    timings,
    directory,
    records,
    holder,
    voter,
    accepted: (object) => registers.accepted(object)?.record ?? null,
  });
  const componentStore = createComponentStore({
    peer,
    disk: options.disk,
    log,
    incarnation,
    problem,
    isDeleted: (object) => directory.isDeleted(object),
  });
  const vmObjects = createVmObjects({
    peer,
    clock,
    random,
    log,
    timings,
    directory,
    records,
    locks,
    holder,
    placementHosts,
    isReachable: (host) => heartbeats.isReachable(host),
  });
  const watches = watchVms({ clock, directory, heartbeats, accessibility });
  const openDisksOf = new Map<VmId, OpenDisk[]>();
  const gateWaiting = new Map<VmId, (() => void)[]>();

  directory.onChange((record, previous) => {
    if (record.kind === 'tombstone' && previous?.kind !== 'namespace') {
      componentStore.objectDeleted(record.id);
    }
  });

  peer.on('lease.confirm', (from, body, _payload, reply) => {
    const { locks: asked } = body as unknown as ConfirmRequest;
    const confirmed = asked
      .filter(({ object, epoch }) => {
        const accepted = registers.accepted(object);
        const record = accepted?.record;
        return (
          accepted?.durable === true &&
          record?.kind === 'namespace' &&
          record.lock.holder === from &&
          record.lock.epoch === epoch
        );
      })
      .map(({ object }) => object);
    const answer: ConfirmAnswer = { number: voter.number(from), confirmed };
    reply.ok(answer as unknown as JsonValue);
  });

  function askToConfirm(
    host: HostId,
    request: ConfirmRequest,
    done: (answer: ConfirmAnswer | null) => void,
  ): void {
    const body = request as unknown as JsonValue;
    peer.request(
      host,
      'lease.confirm',
      body,
      noPayload,
      timings.registerTimeoutMs,
      (error, answer) => {
        done(error === null ? (answer as unknown as ConfirmAnswer) : null);
      },
    );
  }

  holder.onLease({
    extended: openGate,
    lapsed: () => undefined,
    regained: openGate,
    lost: (vm) => gateWaiting.delete(vm),
  });

  function openGate(vm: VmId): void {
    const waiting = gateWaiting.get(vm);
    gateWaiting.delete(vm);
    for (const proceed of waiting ?? []) proceed();
  }

  function gateOf(vm: VmId): Gate {
    const gate: Gate = {
      isOpen: () => holder.deadline(vm) !== null,
      pass(proceed) {
        if (gate.isOpen()) return proceed();
        const waiting = gateWaiting.get(vm) ?? [];
        waiting.push(() => gate.pass(proceed));
        gateWaiting.set(vm, waiting);
      },
    };
    return gate;
  }

  const reachable: StoreReachable = (host, store) => {
    const heard = heartbeats.heard(host);
    return (
      heard !== null &&
      heartbeats.isReachable(host) &&
      heard.store.problem === null &&
      heard.store.id === store
    );
  };

  function accessibility(record: NamespaceRecord) {
    return vmAccessibility(directory, record, reachable);
  }

  function placementHosts(): PlacementHost[] {
    return options.members().flatMap(({ host, kind }) => {
      const heard = heartbeats.heard(host);
      if (heard === null || heard.store.id === null || heard.store.problem !== null) return [];
      if (!heartbeats.isReachable(host)) return [];
      return [{ host, kind, store: heard.store.id, freeBytes: heard.store.freeBytes }];
    });
  }

  function disksOf(record: NamespaceRecord): DiskRecord[] {
    return record.disks.flatMap((object) => directory.disk(object) ?? []);
  }

  function view(record: NamespaceRecord): VmView {
    return {
      vm: record.vm,
      name: record.name,
      spec: JSON.parse(record.files['vm.json'] ?? '{}') as VmSpec,
      lifecycle: record.lifecycle,
      lock: record.lock,
      accessible: accessibility(record),
      dataHosts: dataHosts(disksOf(record)),
    };
  }

  function objectView(record: NamespaceRecord | DiskRecord): ObjectView {
    const resyncing = (openDisksOf.get(record.vm) ?? [])
      .find((disk) => disk.object === record.id)
      ?.resyncing();
    return {
      object: record.id,
      vm: record.vm,
      kind: record.kind,
      name: record.name,
      sizeBytes: record.kind === 'disk' ? record.sizeBytes : 0,
      policy: record.policy,
      accessible: objectAccessibility(record, reachable),
      voters: record.voters.map((one) => one.host),
      components:
        record.kind === 'namespace'
          ? []
          : components(record.blueprint).map((component) => {
              const mirror = record.blueprint.mirrors.findIndex((one) =>
                one.stripes.includes(component),
              );
              const state: ComponentState = !reachable(component.host, component.store)
                ? 'absent'
                : record.inSync.includes(component.id)
                  ? 'active'
                  : resyncing?.has(component.id)
                    ? 'resyncing'
                    : 'stale';
              return {
                component: component.id,
                host: component.host,
                mirror,
                stripe: record.blueprint.mirrors[mirror]?.stripes.indexOf(component) ?? 0,
                state,
              };
            }),
    };
  }

  function known(vm: VmId): NamespaceRecord {
    const record = directory.namespace(vm);
    if (record === null) throw new HoldfastError('unknown-vm', `VM ${vm} is not known on ${self}`);
    return record;
  }

  async function openDisks(vm: VmId, wanted: OpenDisksOptions): Promise<OpenDisks> {
    const record = known(vm);
    const name = { vm, name: record.name };
    const open: {
      disk: OpenDisk;
      server: { close(): Promise<void> };
      name: string;
      socket: string;
    }[] = [];
    const close = async () => {
      openDisksOf.delete(vm);
      for (const { server, disk } of open) {
        await server.close();
        await disk.close();
      }
    };
    let resetAsked = false;
    try {
      for (const object of record.disks) {
        const disk = await openDisk({
          object,
          epoch: wanted.epoch,
          guestRuns: wanted.guestRuns,
          onWritesLost: () => {
            if (resetAsked) return;
            resetAsked = true;
            wanted.onWritesLost();
          },
          onFenced: () => holder.lost(vm),
          onEvent: (type, text) => emit(`storage.${type}`, `VM ${record.name}: ${text}`, name),
          gate: gateOf(vm),
          change: (id, change) => records.changeDisk(id, change),
          isReachable: (host) => heartbeats.isReachable(host),
          peer,
          clock,
          timings,
          log,
        });
        const diskName = directory.disk(object)?.name ?? 'disk';
        const socket = options.socketPath(vm, diskName);
        const server = await serveNbd({
          streams: options.streams,
          path: socket,
          exportName: diskName,
          device: disk,
          log: log.child('nbd'),
        });
        open.push({ disk, server, name: diskName, socket });
      }
    } catch (error) {
      await close();
      throw error;
    }
    openDisksOf.set(
      vm,
      open.map(({ disk }) => disk),
    );
    return { disks: open.map(({ name: diskName, socket }) => ({ name: diskName, socket })), close };
  }

  async function setMetadata(
    vm: VmId,
    service: string,
    key: string,
    value: JsonValue,
    condition: { readonly heldAtEpoch?: Epoch } = {},
  ): Promise<void> {
    if (JSON.stringify(value).length > limits.maxMetadataValueBytes) {
      throw new HoldfastError(
        'bad-request',
        `metadata ${service}/${key}: expected at most ${limits.maxMetadataValueBytes} bytes`,
      );
    }
    await records.changeNamespace(vm, (current) => {
      const { lock } = current;
      const wanted = condition.heldAtEpoch;
      if (wanted !== undefined && (lock.holder === null || lock.epoch !== wanted)) {
        throw new HoldfastError(
          'conflict',
          `VM ${current.name}: its lock is not held at epoch ${wanted} any more`,
        );
      }
      return withMetadata(current, service, key, value);
    });
  }

  return {
    setMetadata,
    getMetadata(service, key) {
      const values = new Map<VmId, JsonValue>();
      for (const record of directory.namespaces()) {
        const value = record.metadata[service]?.[key];
        if (value !== undefined && accessibility(record).accessible) values.set(record.vm, value);
      }
      return { values, objectReads: 0 };
    },
    accessibility: (vms) =>
      new Map(
        vms.map((vm) => {
          const record = directory.namespace(vm);
          const missing = {
            accessible: false,
            object: null,
            hosts: [],
            text: `VM ${vm} is not known here`,
          } as const;
          return [vm, record === null ? missing : accessibility(record)];
        }),
      ),
    watchAccessibility: watches.onAccessible,
    watchMetadata: watches.onMetadata,
    reachableHosts: () =>
      options
        .members()
        .map((member) => member.host)
        .filter((host) => heartbeats.isReachable(host)),
    hosts: () =>
      options.members().map(({ host }): StorageHostView => {
        const heard = heartbeats.heard(host);
        const storeProblem = heard?.store.problem ?? null;
        return {
          host,
          reachable: heartbeats.isReachable(host),
          store: heard === null ? 'unknown' : storeProblem === null ? 'ok' : 'failed',
          ...(storeProblem === null ? {} : { problem: storeProblem }),
          totalBytes: heard?.store.totalBytes ?? 0,
          freeBytes: heard?.store.freeBytes ?? 0,
        };
      }),
    vms: () => directory.namespaces().map(view),
    vm(vm) {
      const record = directory.namespace(vm);
      return record === null ? null : view(record);
    },
    objects(vm) {
      const record = known(vm);
      return [record, ...disksOf(record)].map(objectView);
    },
    knowledge(vm) {
      const record = known(vm);
      const entries = [record.id, ...record.disks].flatMap((object) => directory.get(object) ?? []);
      return entries as unknown as JsonValue;
    },
    learn(knowledge) {
      for (const entry of knowledge as unknown as DirectoryEntry[]) directory.update(entry);
    },
    createVm: (spec) => vmObjects.create(spec),
    removeVm: (vm) => vmObjects.remove(vm),
    lockStatus: (vm) => locks.status(vm),
    lock: (vm, wanted) => locks.lock(vm, wanted),
    adopt: (vm, epoch) => locks.adopt(vm, epoch),
    unlock: (vm, epoch, protection) => locks.unlock(vm, epoch, protection),
    leaseDeadline: (vm) => holder.deadline(vm),
    onLease: (events: LeaseEvents) => holder.onLease(events),
    openDisks,
    start() {
      registers.start();
      heartbeats.start();
    },
    releaseForgotten() {
      locks.start();
      vmObjects.start();
    },
    async stop() {
      vmObjects.stop();
      locks.stop();
      heartbeats.stop();
      watches.stop();
      await componentStore.close();
      registers.stop();
      if (!(journal instanceof HoldfastError)) await journal.close();
    },
  };
}

/** The journal of this host's store, or why the store must not be used. */
async function openStore(options: StoreOptions, log: Log): Promise<Journal | HoldfastError> {
  try {
    return await openJournal({
      disk: options.disk,
      folder: 'registers',
      host: options.peer.self,
      random: options.random,
      clock: options.clock,
      log,
    });
  } catch (error) {
    if (error instanceof HoldfastError && error.code !== 'bad-request') {
      log.error(error.message);
      return error;
    }
    throw error;
  }
}
