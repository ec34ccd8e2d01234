// The object store of one host, put together: registers and components on its own disk, the
// directory, leases and locks, and the disks that this host's guests use.

import { type DeviceClass, usualClass } from '../model/device.ts';
import { HoldfastError } from '../model/errors.ts';
import type { EventType } from '../model/events.ts';
import {
  incarnation as asIncarnation,
  type HostId,
  type ObjectId,
  type VmId,
} from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Timings } from '../model/limits.ts';
import { noPayload } from '../peer/frame.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock } from '../ports/clock.ts';
import type { DevicePort } from '../ports/device.ts';
import type { LocalDisk } from '../ports/disk.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Random } from '../ports/random.ts';
import type { Streams } from '../ports/streams.ts';
import type { Storage } from './api.ts';
import { measured } from './devices/measured-disk.ts';
import { openDevices } from './devices/pool.ts';
import { type AccessibleVms, createAccessibleVms } from './directory/accessible-vms.ts';
import { createDirectory, type DirectoryEntry } from './directory/directory.ts';
import { createDirectorySync } from './directory/sync.ts';
import { createComponentStore } from './disk/component-store.ts';
import { type FillThresholds, usualThresholds } from './fill.ts';
import { type Journal, openJournal } from './journal/journal.ts';
import { createHeartbeats, type Heartbeats } from './lease/heartbeat.ts';
import { createLeaseHolder, votingKey } from './lease/holder.ts';
import type { ConfirmAnswer, ConfirmRequest } from './lease/messages.ts';
import { createLeaseVoter } from './lease/voter.ts';
import { createLocks } from './locks.ts';
import { createMetadata } from './metadata.ts';
import { trackUsage } from './placement/usage.ts';
import { createRecords } from './records.ts';
import { createRegisters } from './register/registers.ts';
import { createAbsence } from './repair/absence.ts';
import { createLayoutChange } from './repair/layout-change.ts';
import { createOffRepair } from './repair/off-repair.ts';
import { createPolicyChange } from './repair/policy-change.ts';
import { createRepair } from './repair/repair.ts';
import { createVoterChange } from './repair/voter-change.ts';
import { withRequired } from './required.ts';
import { createResyncNews } from './resync-news.ts';
import { createServedDisks } from './served-disks.ts';
import { createViews, type StoreMember, storesWithinReach } from './views.ts';
import { createVmObjects } from './vm-objects.ts';
import { watchVms } from './watches.ts';

export interface StoreOptions {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly probe: Probe;
  /** The cluster's name, which further devices are told apart by. */
  readonly cluster: string;
  /** The main device: registers and journal, and components. */
  readonly disk: LocalDisk;
  readonly diskClass?: DeviceClass;
  /** Further devices, for components. */
  readonly devices?: readonly DevicePort[];
  readonly streams: Streams;
  readonly timings: Timings;
  /** Hosts of the cluster, this one included, and whether they hold data. */
  readonly members: () => readonly StoreMember[];
  /** Where a disk of a VM is served. */
  readonly socketPath: (vm: VmId, disk: string) => string;
  /** Bytes that components may use of the main device at most; null: all. */
  readonly capacityBytes: number | null;
  /** From how full on it is told, and no new objects are taken; absent: the usual. */
  readonly thresholds?: FillThresholds;
  readonly emit: (
    type: EventType,
    text: string,
    vm?: { readonly vm: VmId; readonly name: string },
  ) => void;
}

export interface Store extends Storage {
  /** Why this host's own store is not used until the next start, or null. */
  failure(): HoldfastError | null;
  /** Begins to beat, to answer and to bring the directory up to date. */
  start(): void;
  /** Begins to release locks that name this host without need: after its guests were found. */
  releaseForgotten(): void;
  stop(): Promise<void>;
}

export async function createStore(options: StoreOptions): Promise<Store> {
  const { peer, clock, random, probe, timings, emit } = options;
  const self = peer.self;
  const log = options.log.child('storage');
  const disk = measured(options.disk, clock);
  const journal = await openStore(options, disk, log);
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
  const usage = trackUsage(directory);
  const sync = createDirectorySync({ peer, clock, log, timings, directory });
  let longestLeaseMs =
    journal instanceof HoldfastError
      ? timings.leaseDurationMs
      : journal.superblock.state.longestLeaseMs;

  const failure = () => (journal instanceof HoldfastError ? journal : journal.failure);
  const problem = () => failure()?.message ?? null;

  const devices = await openDevices({
    self,
    cluster: options.cluster,
    clock,
    log,
    main: {
      disk,
      class: options.diskClass ?? usualClass,
      capacityBytes: options.capacityBytes,
      id: () => (journal instanceof HoldfastError ? null : journal.superblock.state.store),
      problem,
    },
    ports: options.devices ?? [],
    thresholds: options.thresholds ?? usualThresholds,
    placedBytes: (store) => usage.of(store).placedBytes,
    emit,
  });

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

  const voter = createLeaseVoter({
    clock,
    probe,
    incarnation,
    longestLeaseMs: () => longestLeaseMs,
    heardSince: (host) => heartbeats.heardSince(host),
  });
  const holder = createLeaseHolder({
    clock,
    log,
    probe,
    leaseDurationMs: timings.leaseDurationMs,
    safetyMarginMs: timings.safetyMarginMs,
    confirm: askToConfirm,
    repair: (vm, epoch) => locks.repair(vm, epoch),
    beatNow: (hosts) => heartbeats.beatNow(hosts),
  });
  const heartbeats: Heartbeats = createHeartbeats({
    peer,
    clock,
    timings,
    incarnation,
    members: () => options.members().map((member) => member.host),
    holder,
    voter: () => voter,
    store: () => ({
      ...devices.report(),
      ...(options.thresholds === undefined ? {} : { thresholds: options.thresholds }),
    }),
    digest: () => directory.digest(),
    allowLease,
    onDigest: (host, digest) => sync.onDigest(host, digest),
  });

  const registers = createRegisters({
    peer,
    clock,
    random,
    log,
    probe,
    journal,
    admission: voter,
    timings,
    onCommitted: (record, ballot, told) => {
      const entry = { record, ballot };
      if (directory.update(entry)) sync.announce(entry, told);
    },
    onLearned: (record, ballot) => directory.update({ record, ballot }),
    onMissed: (host, objects) => sync.want(host, objects),
  });
  for (const accepted of registers.committed()) directory.update(accepted);
  // A voter that missed a commit hears of it here, whoever else is away: see register.md, "Learning".
  directory.onChange(({ id }) => {
    const { record, ballot } = directory.get(id) as DirectoryEntry;
    registers.learn(record, ballot);
  });

  const records = createRecords({ registers, directory, self });
  const locks = createLocks({
    peer,
    clock,
    log,
    probe,
    timings,
    directory,
    records,
    holder,
    voter,
    accepted: (object) => registers.accepted(object)?.record ?? null,
  });
  const isReachable = storesWithinReach(heartbeats);
  const disks = createServedDisks({
    peer,
    clock,
    log,
    probe,
    timings,
    streams: options.streams,
    directory,
    records,
    holder,
    heartbeats,
    isReachable,
    socketPath: options.socketPath,
    emit,
  });
  const accessibleVms = createAccessibleVms(directory, isReachable);
  let namespaces: AccessibleVms | null = null;
  function accessibleNamespaces(): AccessibleVms {
    if (namespaces === null) {
      namespaces = createAccessibleVms(directory, isReachable, 'namespace');
      namespaces.takeNews(); // what is accessible already is no news
    }
    return namespaces;
  }
  const resyncNews = createResyncNews({ peer, clock, own: disks.resyncs });
  const views = createViews({
    self,
    directory,
    heartbeats,
    reachable: isReachable,
    accessibleVms,
    members: options.members,
    usage: usage.of,
    resyncOf: (object) => resyncNews.of(object),
  });
  const componentStore = createComponentStore({
    peer,
    clock,
    scrubIntervalMs: timings.scrubIntervalMs,
    onBadBlock(object, text) {
      const vm = directory.disk(object)?.vm;
      const namespace = vm === undefined ? null : directory.namespace(vm);
      emit('storage.badBlock', text, namespace ?? undefined);
    },
    pool: devices,
    log,
    incarnation,
    isDeleted: (object) => directory.isDeleted(object),
    diskOf: (object) => directory.disk(object),
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
    placementHosts: views.placementHosts,
    members: options.members,
    isReachable: (host) => heartbeats.isReachable(host),
  });
  const metadata = createMetadata({
    directory,
    records,
    accessibleVms,
    accessibility: views.accessibilityAmong,
  });
  const watches = watchVms({
    clock,
    directory,
    heartbeats,
    accessibleVms,
    accessibleNamespaces,
  });
  const absence = createAbsence({
    clock,
    timings,
    usage,
    heartbeats,
    members: () => options.members().map(({ host }) => host),
  });
  const policyChange = createPolicyChange({
    directory,
    records,
    placementHosts: views.placementHosts,
  });
  const repair = createRepair({
    self,
    clock,
    log: log.child('repair'),
    timings,
    directory,
    holder,
    absence,
    voterChange: createVoterChange({ self, records, holder, probe }),
    isReachable: (host) => heartbeats.isReachable(host),
    placementHosts: views.placementHosts,
    layoutChange: createLayoutChange({
      peer,
      openDisk: disks.openDisk,
      placementHosts: views.placementHosts,
      isGone: (host) => !heartbeats.isReachable(host),
      isLost: ({ host, store }) => absence.isGone(host, store),
      emit,
    }),
    policyChange,
    emit,
  });
  const offRepair = createOffRepair({
    self,
    clock,
    log: log.child('repair'),
    timings,
    directory,
    locks,
    holder,
    disks,
    absence,
    isHostReachable: (host) => heartbeats.isReachable(host),
    isStoreReachable: isReachable,
  });
  directory.onChange((record, previous) => {
    if (record.kind === 'disk') componentStore.objectChanged(record, previous);
    if (record.kind === 'tombstone' && previous?.kind !== 'namespace') {
      componentStore.objectDeleted(record.id);
    }
  });

  peer.on('lease.confirm', (from, body, _payload, reply) => {
    const { locks: asked } = body as unknown as ConfirmRequest;
    const confirmed = asked
      .filter(({ object, epoch, voting }) => {
        const accepted = registers.accepted(object);
        const record = accepted?.record;
        const carried =
          accepted?.durable === true &&
          record?.kind === 'namespace' &&
          record.lock.holder === from &&
          record.lock.epoch === epoch &&
          votingKey(record) === voting;
        if (carried) voter.confirmed(record);
        return carried;
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

  return {
    failure,
    setMetadata: (vm, service, key, value, condition = {}) =>
      metadata.set({ vm, service, key, value, condition }),
    setAllMetadata: metadata.setAll,
    getMetadata: metadata.get,
    accessibility: views.accessibility,
    watchAccessibility: watches.onAccessible,
    watchMetadata: watches.onMetadata,
    reachableHosts: () =>
      options
        .members()
        .map((member) => member.host)
        .filter((host) => heartbeats.isReachable(host)),
    hosts: views.hosts,
    vms: views.vms,
    vm(vm) {
      const record = directory.namespace(vm);
      return record === null ? null : views.vm(record);
    },
    vmNamed(name) {
      const record = directory.named(name);
      return record === null ? null : views.vm(record);
    },
    objects: (vm) => views.objects(views.known(vm)),
    object: views.object,
    knowledge(vm) {
      const record = views.known(vm);
      const entries = [record.id, ...record.disks].flatMap((object) => directory.get(object) ?? []);
      return entries as unknown as JsonValue;
    },
    learn(knowledge) {
      for (const entry of knowledge as unknown as DirectoryEntry[]) directory.update(entry);
    },
    createVm: (spec, placement = {}) => vmObjects.create(spec, placement),
    async setRequired(vm, disk, required) {
      const nameOf = (object: ObjectId) => directory.disk(object)?.name ?? null;
      await records.changeNamespace(vm, (current) => withRequired(current, disk, required, nameOf));
    },
    setDiskPolicy: async (vm, disk, policy) => policyChange.set(views.known(vm), disk, policy),
    removeVm: (vm) => vmObjects.remove(vm),
    async lockStatus(vm) {
      const status = await locks.status(vm);
      // Whoever takes it has it given up: nobody needs to wait for its lease.
      return status.use === 'repair' ? { ...status, remainingMs: 0 } : status;
    },
    lock: (vm, wanted) => locks.lock(vm, wanted),
    adopt: (vm, epoch) => locks.adopt(vm, epoch),
    unlock: (vm, epoch, protection) => locks.unlock(vm, epoch, protection),
    hasStore: () => failed === null,
    withhold: (vm) => holder.withhold(vm),
    leaseDeadline: (vm) => holder.deadline(vm),
    onLease: (events) => holder.onLease(events),
    openDisks: async (vm, wanted) => disks.open(views.known(vm), wanted),
    start() {
      registers.start();
      heartbeats.start();
    },
    releaseForgotten() {
      locks.start();
      vmObjects.start();
      repair.start();
      offRepair.start();
      resyncNews.start();
    },
    async stop() {
      repair.stop();
      resyncNews.stop();
      await offRepair.stop();
      vmObjects.stop();
      locks.stop();
      heartbeats.stop();
      watches.stop();
      await componentStore.close();
      devices.stop();
      registers.stop();
      if (!(journal instanceof HoldfastError)) await journal.close();
    },
  };
}

/** The journal of this host's store, or why the store must not be used. */
async function openStore(
  options: StoreOptions,
  disk: LocalDisk,
  log: Log,
): Promise<Journal | HoldfastError> {
  try {
    return await openJournal({
      disk,
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
