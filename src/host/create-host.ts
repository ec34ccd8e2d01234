// One host, built out of the rooms: networks at the bottom, then the store, HA, and the manager on
// top. Everything from outside comes through the ports; the same code runs on real machines and on
// virtual time.

import { createHa } from '../ha/ha.ts';
import type { Manager } from '../manager/api.ts';
import { createDiskServices } from '../manager/disk-service.ts';
import { createEventLog } from '../manager/event-log.ts';
import { createManager } from '../manager/manager.ts';
import { createPolicies } from '../manager/policies.ts';
import { createRunner } from '../manager/runner.ts';
import type { DeviceClass } from '../model/device.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import { createPeer } from '../peer/peer.ts';
import type { HostPorts } from '../ports/ports.ts';
import type { SmallFile } from '../ports/small-file.ts';
import type { Storage } from '../storage/api.ts';
import type { FillThresholds } from '../storage/fill.ts';
import { createStore } from '../storage/store.ts';
import { watchFailedStore } from './failed-store.ts';
import { type MemberList, shareMembers } from './members.ts';

export interface HostOptions {
  readonly cluster: string;
  readonly name: HostId;
  readonly kind: 'full' | 'witness';
  readonly members: MemberList;
  /** Where this host keeps the named storage policies. */
  readonly policyFile: SmallFile;
  readonly timings: Timings;
  readonly socketPath: (vm: VmId, disk: string) => string;
  /** What the main device is; absent: the usual class. */
  readonly diskClass?: DeviceClass;
  /** Bytes of the main device that components may use; null: all. */
  readonly capacityBytes: number | null;
  /** From how full on a device is told of, and takes no new objects; absent: the usual. */
  readonly thresholds?: FillThresholds;
}

export interface Host {
  readonly manager: Manager;
  /** The member list has grown by other means than the other hosts' word: a host has joined here. */
  membersChanged(): void;
  /** Ends the daemon's part; guests go on under their guards until their deadlines. */
  stop(): Promise<void>;
}

/**
 * Where other ways to do HA plug in that the product is compared with. A daemon passes none of them:
 * what it runs is what stands here as the default.
 */
export interface HostParts {
  readonly createHa?: typeof createHa;
  /** What HA alone gets to see of the store; users and the runner see the store itself. */
  readonly storageForHa?: (storage: Storage) => Storage;
}

/** Rejects where the store belongs to another host, or can not even be looked at. */
export async function createHost(
  ports: HostPorts,
  options: HostOptions,
  parts: HostParts = {},
): Promise<Host> {
  const { clock, random, probe } = ports;
  const { name: self, timings, members } = options;
  const log = ports.log.child(self);
  const events = createEventLog(self, clock, log.child('events'));
  const storagePeer = createPeer({
    self,
    network: 'storage',
    transport: ports.storageNetwork,
    clock,
    log,
  });
  const haPeer = createPeer({ self, network: 'HA', transport: ports.haNetwork, clock, log });

  let wasRemoved = false;
  function setPeers(): void {
    const list = members.list();
    if (!wasRemoved && list.length > 0 && !list.some((member) => member.name === self)) {
      wasRemoved = true;
      const text = `${self} was removed from the cluster: nothing that is here counts any more`;
      log.error(`${text}; its daemon may be stopped`);
      events.emit('host.removed', text);
    }
    // The others hear nobody who was removed.
    const others = wasRemoved ? [] : list.filter((member) => member.name !== self);
    ports.storageNetwork.setPeers(new Map(others.map((one) => [one.name, one.storageAddress])));
    ports.haNetwork.setPeers(new Map(others.map((one) => [one.name, one.haAddress])));
  }

  const store = await createStore({
    peer: storagePeer,
    clock,
    random,
    log,
    probe,
    cluster: options.cluster,
    disk: ports.disk,
    devices: ports.devices ?? [],
    ...(options.diskClass === undefined ? {} : { diskClass: options.diskClass }),
    streams: ports.streams,
    timings,
    members: () =>
      members.list().map(({ name, kind, site = null }) => ({ host: name, kind, site })),
    socketPath: options.socketPath,
    capacityBytes: options.capacityBytes,
    ...(options.thresholds === undefined ? {} : { thresholds: options.thresholds }),
    emit: events.emit,
  });
  const runner = createRunner({
    self,
    kind: options.kind,
    storage: store,
    guests: ports.guests,
    clock,
    log: log.child('runner'),
    probe,
    timings,
    emit: events.emit,
    onPoweredOn: (vm, epoch) => ha.poweredOn(vm, epoch),
    onPoweredOff: (vm, epoch) => ha.poweredOff(vm, epoch),
  });
  const ha = (parts.createHa ?? createHa)({
    self,
    kind: options.kind,
    members: () => members.list().map((member) => member.name),
    peer: haPeer,
    clock,
    random,
    log: log.child('ha'),
    probe,
    timings,
    storage: parts.storageForHa?.(store) ?? store,
    runner,
    emit: (event) => events.add(event),
  });
  const policies = createPolicies({
    peers: [storagePeer, haPeer],
    file: options.policyFile,
    clock,
    timings,
    log: log.child('policies'),
  });
  const diskServices = createDiskServices({ storage: store, self, log: log.child('disks') });
  async function removeHost(name: HostId): Promise<void> {
    await members.remove(name);
    for (const one of shared) one.tellAll();
    setPeers();
  }

  const manager = createManager({
    cluster: options.cluster,
    accelerator: ports.guests.accelerator,
    storage: store,
    ha,
    runner,
    events,
    policies,
    diskServices,
    removeHost,
    peer: haPeer,
    timings,
  });
  const shared = [storagePeer, haPeer].map((peer) =>
    shareMembers({ peer, members, log, onChange: setPeers }),
  );

  const failedStore = watchFailedStore({
    clock,
    disk: ports.disk,
    log,
    failure: () => store.failure(),
    restart: ports.restart,
  });

  async function stop(): Promise<void> {
    failedStore.stop();
    policies.stop();
    ha.stop();
    await diskServices.stop();
    await runner.detach();
    await store.stop();
    await Promise.all([haPeer.stop(), storagePeer.stop()]);
  }

  try {
    // The guests of an earlier daemon first: until they are found, no lock that names this host may
    // be taken for forgotten, and nothing may be started here.
    storagePeer.start();
    setPeers();
    store.start();
    await runner.recover();
    store.releaseForgotten();
    haPeer.start();
    setPeers();
    ha.start();
  } catch (error) {
    await stop();
    throw error;
  }

  return {
    manager,
    membersChanged() {
      setPeers();
      for (const one of shared) one.tellAll();
    },
    stop,
  };
}
