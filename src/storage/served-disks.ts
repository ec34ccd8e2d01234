// The disks of the VMs that this host runs: opened under the VM's lock, served as NBD exports, and
// held still while the VM's lease is not valid.

import { asHoldfastError, isError } from '../model/errors.ts';
import type { EventType } from '../model/events.ts';
import type { Epoch, ObjectId, VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import type { DiskRecord, NamespaceRecord } from '../model/record.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Streams } from '../ports/streams.ts';
import type { OpenDisks, OpenDisksOptions } from './api.ts';
import { objectAccessibility, type StoreReachable } from './directory/accessibility.ts';
import type { Directory } from './directory/directory.ts';
import { openDisk as openUnder } from './disk/disk.ts';
import type { BadBlock } from './disk/messages.ts';
import type { Gate } from './disk/mirror.ts';
import type { OpenDisk } from './disk/open-disk.ts';
import type { Heartbeats } from './lease/heartbeat.ts';
import type { LeaseHolder } from './lease/holder.ts';
import { type NbdServer, serveNbd } from './nbd/server.ts';
import type { Records } from './records.ts';
import type { ObjectResync } from './resync-news.ts';

export interface ServedDisks {
  open(record: NamespaceRecord, wanted: OpenDisksOptions): Promise<OpenDisks>;
  /** What this host brings up to date now. */
  resyncs(): ObjectResync[];
  /** All disks of a VM that is switched off, those that it can do without only if they can be opened. */
  openForRepair(record: NamespaceRecord, epoch: Epoch): Promise<RepairedDisks>;
  /** Null: it is not open here. */
  openDisk(record: DiskRecord): OpenDisk | null;
}

export interface RepairedDisks {
  readonly disks: readonly OpenDisk[];
  close(): Promise<void>;
}

interface Served {
  readonly name: string;
  readonly disk: OpenDisk;
  readonly server: NbdServer;
}

type HowOpened = Pick<OpenDisksOptions, 'epoch' | 'guestRuns' | 'onWritesLost'> & {
  /** Nobody wants it any more. */
  readonly isOver?: () => boolean;
};

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
  readonly isReachable: StoreReachable;
  readonly socketPath: (vm: VmId, disk: string) => string;
  readonly emit: (
    type: EventType,
    text: string,
    vm: { readonly vm: VmId; readonly name: string },
  ) => void;
}): ServedDisks {
  const { peer, clock, log, timings, directory, records, holder, heartbeats } = options;
  const served = new Map<VmId, readonly Served[]>();
  /** Open with nobody who uses them. */
  const repaired = new Map<VmId, readonly OpenDisk[]>();
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

  function open(record: NamespaceRecord, object: ObjectId, how: HowOpened): Promise<OpenDisk> {
    const { vm } = record;
    const { epoch, guestRuns, onWritesLost, isOver = () => false } = how;
    return openUnder({
      object,
      name: `${record.name}/${directory.disk(object)?.name ?? object}`,
      epoch,
      guestRuns,
      onWritesLost,
      // A late opening may find its own VM started again.
      onFenced: () => void (isOver() || holder.lost(vm, epoch)),
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
  }

  async function serve(
    record: NamespaceRecord,
    object: ObjectId,
    wanted: OpenDisksOptions & HowOpened,
  ): Promise<Served> {
    const { vm } = record;
    const name = directory.disk(object)?.name ?? object;
    const disk = await open(record, object, wanted);
    try {
      const server = await serveNbd({
        streams: options.streams,
        path: wanted.only?.socket ?? options.socketPath(vm, name),
        exportName: name,
        device: disk,
        readOnly: wanted.only?.readOnly ?? false,
        log: log.child('nbd'),
      });
      return { name, disk, server };
    } catch (error) {
      await disk.close();
      throw error;
    }
  }

  function openDisksOf(vm: VmId): readonly OpenDisk[] {
    return served.get(vm)?.map(({ disk }) => disk) ?? repaired.get(vm) ?? [];
  }

  function openDisk({ vm, id }: DiskRecord): OpenDisk | null {
    return openDisksOf(vm).find((disk) => disk.object === id) ?? null;
  }

  peer.on('component.bad', (_from, body) => {
    const { component, object, offset } = body as unknown as BadBlock;
    for (const vm of [...served.keys(), ...repaired.keys()]) {
      for (const disk of openDisksOf(vm)) {
        if (disk.object === object) disk.verify(component, offset);
      }
    }
  });

  /** A disk that is not required may be missing, for a reason; being fenced is none. */
  async function attempt(
    record: NamespaceRecord,
    object: ObjectId,
    wanted: OpenDisksOptions & HowOpened,
  ): Promise<Served | { readonly reason: string }> {
    if (wanted.only !== undefined || !record.optional?.includes(object)) {
      return serve(record, object, wanted);
    }
    const disk = directory.disk(object);
    if (disk === null) return { reason: 'its record is not known here' };
    // To try what can not succeed would cost the start of the VM some seconds.
    const accessible = objectAccessibility(disk, options.isReachable);
    if (!accessible.accessible) return { reason: accessible.text };
    try {
      return await serve(record, object, wanted);
    } catch (error) {
      if (isError(error, 'fenced')) throw error;
      return { reason: asHoldfastError(error).message };
    }
  }

  return {
    async open(record, wanted) {
      const { vm } = record;
      const opened: Served[] = [];
      const missing: { name: string; reason: string }[] = [];
      /** Names of disks that are being opened: one attempt at a time, or one would fence the other. */
      const opening = new Set<string>();
      let isClosed = false;
      const isOver = () => isClosed;
      let areWritesLost = false;
      const onWritesLost = () => {
        if (!areWritesLost) wanted.onWritesLost();
        areWritesLost = true;
      };
      const close = async () => {
        isClosed = true;
        if (served.get(vm) === opened) served.delete(vm);
        for (const { server, disk } of opened.splice(0)) {
          await server.close();
          await disk.close();
        }
      };
      try {
        for (const object of record.disks) {
          const { only } = wanted;
          if (only !== undefined && directory.disk(object)?.name !== only.disk) continue;
          const name = directory.disk(object)?.name ?? object;
          if (wanted.without?.includes(name)) continue;
          const served = await attempt(record, object, { ...wanted, onWritesLost, isOver });
          if ('server' in served) opened.push(served);
          else {
            missing.push({ name, reason: served.reason });
            if (wanted.guestRuns) openLater(object, name);
          }
        }
      } catch (error) {
        await close();
        throw error;
      }
      served.set(vm, opened);
      return {
        disks: opened.map(({ name, server }) => ({ name, socket: server.path })),
        missing,
        openLate,
        activity: () => ({
          requests: sumOf(opened, ({ requests }) => requests),
          inFlight: sumOf(opened, ({ inFlight }) => inFlight),
        }),
        close,
      };

      async function openLate(
        name: string,
      ): Promise<{ readonly socket: string } | { readonly reason: string }> {
        const there = opened.find((one) => one.name === name);
        if (there !== undefined) return { socket: there.server.path };
        const object = record.disks.find((one) => directory.disk(one)?.name === name);
        if (object === undefined) return { reason: 'its record is not known here' };
        if (opening.has(name)) return { reason: 'it is being opened' };
        opening.add(name);
        try {
          // What it has acknowledged was not to this guest.
          const late = { ...wanted, guestRuns: false, onWritesLost, isOver };
          const one = await attempt(record, object, late);
          if (!('server' in one)) return one;
          if (await keep(one)) return { socket: one.server.path };
          return { reason: 'its VM is being stopped' };
        } finally {
          opening.delete(name);
        }
      }

      async function keep(one: Served): Promise<boolean> {
        if (isClosed) {
          await one.server.close();
          await one.disk.close();
        } else opened.push(one);
        return !isClosed;
      }

      /** The guest waits for it: until it is there, or to its own end. */
      function openLater(object: ObjectId, name: string): void {
        opening.add(name);
        clock.after(timings.resyncRetryMs, () => {
          if (isClosed) return;
          attempt(record, object, { ...wanted, onWritesLost, isOver }).then(
            async (served) => {
              if (!('server' in served)) {
                if (!isClosed) openLater(object, name);
                return;
              }
              await keep(served);
              opening.delete(name);
            },
            (error: unknown) => log.warn(`${record.name}/${name}: ${String(error)}`, { vm }),
          );
        });
      }
    },
    async openForRepair(record, epoch) {
      const { vm } = record;
      const disks: OpenDisk[] = [];
      const close = async () => {
        if (repaired.get(vm) === disks) repaired.delete(vm);
        for (const disk of disks.splice(0)) await disk.close();
      };
      try {
        for (const object of record.disks) {
          const how = { epoch, guestRuns: false, onWritesLost: () => {} };
          const opened = await open(record, object, how).catch((error: unknown) => {
            if (isError(error, 'fenced') || !record.optional?.includes(object)) throw error;
            return null;
          });
          if (opened !== null) disks.push(opened);
        }
      } catch (error) {
        await close();
        throw error;
      }
      repaired.set(vm, disks);
      return { disks, close };
    },
    openDisk,
    resyncs: () =>
      [...served.keys(), ...repaired.keys()].flatMap((vm) =>
        openDisksOf(vm).flatMap((disk) => {
          const resync = disk.resync();
          return resync === null ? [] : [{ object: disk.object, ...resync }];
        }),
      ),
  };
}

function sumOf(disks: readonly Served[], count: (server: NbdServer) => number): number {
  return disks.reduce((sum, { server }) => sum + count(server), 0);
}
