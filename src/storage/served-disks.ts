// The disks of the VMs that this host runs: opened under the VM's lock, served as NBD exports, and
// held still while the VM's lease is not valid.

import type { EventType } from '../model/events.ts';
import type { VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import type { Component, NamespaceRecord } from '../model/record.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Streams } from '../ports/streams.ts';
import type { OpenDisks, OpenDisksOptions } from './api.ts';
import type { Directory } from './directory/directory.ts';
import { type OpenDisk, openDisk } from './disk/disk.ts';
import type { Gate } from './disk/mirror.ts';
import type { Heartbeats } from './lease/heartbeat.ts';
import type { LeaseHolder } from './lease/holder.ts';
import { type NbdServer, serveNbd } from './nbd/server.ts';
import type { Records } from './records.ts';

export interface ServedDisks {
  open(record: NamespaceRecord, wanted: OpenDisksOptions): Promise<OpenDisks>;
  isResyncing(vm: VmId, component: Component): boolean;
}

interface Served {
  readonly name: string;
  readonly disk: OpenDisk;
  readonly server: NbdServer;
}

export function createServedDisks(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly log: Log;
  readonly probe: Probe;
  readonly timings: Timings;
  readonly streams: Streams;
  readonly directory: Directory;
  readonly records: Records;
  readonly holder: LeaseHolder;
  readonly heartbeats: Heartbeats;
  readonly socketPath: (vm: VmId, disk: string) => string;
  readonly emit: (
    type: EventType,
    text: string,
    vm: { readonly vm: VmId; readonly name: string },
  ) => void;
}): ServedDisks {
  const { peer, clock, log, timings, directory, records, holder, heartbeats } = options;
  const served = new Map<VmId, readonly Served[]>();
  const waiting = new Map<VmId, (() => void)[]>();

  function letThrough(vm: VmId): void {
    if (waiting.size === 0) return; // nearly always, and it is asked with every extension
    const requests = waiting.get(vm);
    waiting.delete(vm);
    for (const proceed of requests ?? []) proceed();
  }

  holder.onLease({
    extended: letThrough,
    regained: letThrough,
    lapsed: () => {},
    lost: (vm) => waiting.delete(vm),
  });

  function gateOf(vm: VmId): Gate {
    const gate: Gate = {
      isOpen: () => holder.deadline(vm) !== null,
      pass(proceed) {
        if (gate.isOpen()) return proceed();
        const requests = waiting.get(vm) ?? [];
        requests.push(() => gate.pass(proceed));
        waiting.set(vm, requests);
      },
    };
    return gate;
  }

  async function serve(
    record: NamespaceRecord,
    object: NamespaceRecord['id'],
    wanted: OpenDisksOptions,
  ): Promise<Served> {
    const { vm } = record;
    const name = directory.disk(object)?.name ?? object;
    const disk = await openDisk({
      object,
      name: `${record.name}/${name}`,
      epoch: wanted.epoch,
      guestRuns: wanted.guestRuns,
      onWritesLost: wanted.onWritesLost,
      onFenced: () => holder.lost(vm),
      onEvent: (type, text) => options.emit(`storage.${type}`, text, record),
      gate: gateOf(vm),
      change: (id, change) => records.changeDisk(id, change),
      isReachable: (host) => heartbeats.isReachable(host),
      peer,
      clock,
      timings,
      log,
      probe: options.probe,
    });
    try {
      const server = await serveNbd({
        streams: options.streams,
        path: options.socketPath(vm, name),
        exportName: name,
        device: disk,
        log: log.child('nbd'),
      });
      return { name, disk, server };
    } catch (error) {
      await disk.close();
      throw error;
    }
  }

  return {
    async open(record, wanted) {
      const { vm } = record;
      const open: Served[] = [];
      // One reset is enough, however many disks have lost writes.
      let isReset = false;
      const onWritesLost = () => {
        if (!isReset) wanted.onWritesLost();
        isReset = true;
      };
      const close = async () => {
        if (served.get(vm) === open) served.delete(vm);
        for (const { server, disk } of open.splice(0)) {
          await server.close();
          await disk.close();
        }
      };
      try {
        for (const object of record.disks) {
          open.push(await serve(record, object, { ...wanted, onWritesLost }));
        }
      } catch (error) {
        await close();
        throw error;
      }
      served.set(vm, open);
      return { disks: open.map(({ name, server }) => ({ name, socket: server.path })), close };
    },
    isResyncing: (vm, component) =>
      (served.get(vm) ?? []).some(({ disk }) => disk.resyncing().has(component.id)),
  };
}
