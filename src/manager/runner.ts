// Runs VMs on this host: lock, disks and guest in this order at the start, and in the opposite order
// at the end. It carries the lease from the store to the guard: what lapses is paused, what is
// regained goes on, what is lost is ended. Each VM has its own queue of steps, so that no step of
// one VM waits for another VM's, and two steps of one VM never mix.

import type { RunningVm, StartOptions, VmRunner } from '../ha/api.ts';
import { LifeCycle } from '../hypervisor/life-cycle.ts';
import { asHoldfastError, HoldfastError, isError } from '../model/errors.ts';
import type { Epoch, HostId, VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Timings } from '../model/limits.ts';
import { unusableText } from '../model/path-disk.ts';
import type { ProtectionState } from '../model/protection.ts';
import { restartKey } from '../model/restart.ts';
import {
  type GuestState,
  isPathDisk,
  objectDisks,
  pathDisks,
  rulesOf,
  runnerService,
  type VmSpec,
} from '../model/vm.ts';
import type { Clock } from '../ports/clock.ts';
import type { DiskActivity, Guest, GuestDisk, GuestDriver, GuestEvent } from '../ports/guests.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { OpenDisks, Storage, VmView } from '../storage/api.ts';
import { createAbsentDisks } from './absent-disks.ts';
import type { Emit } from './event-log.ts';
import { activityOf, type GuestWatch, watchGuest } from './guest-watch.ts';

interface Entry extends GuestWatch {
  readonly vm: VmId;
  readonly name: string;
  epoch: Epoch;
  readonly life: LifeCycle;
  /** Written once, when the VM is made; null until the directory has shown it. */
  spec: VmSpec | null;
  guest: Guest | null;
  disks: OpenDisks | null;
  /** The last try to open the disks of a guest that was found. */
  opening: Promise<void>;
  /** Found at the daemon's start: its disks are opened when its lease is valid. */
  reopening: boolean;
  /** Why they were not, the last time. */
  notReopened: string | null;
  /** Another host has the lock: whatever is under way here ends. */
  isLost: boolean;
  /** What its guest may have written while it was being started is gone. */
  hasLostWrites: boolean;
  onExit: (() => void) | null;
  /** What is told of it, as long as that has not changed. */
  row: RunningVm | null;
  /** The end of the VM's queue of steps. */
  steps: Promise<void>;
}

export interface Runner extends VmRunner {
  /** Finds the guests that an earlier daemon left, and goes on with them. */
  recover(): Promise<void>;
  /** Switches a VM off that runs here; protection ends in the same change as the lock. */
  stopVm(vm: VmId, options: { readonly force: boolean }): Promise<void>;
  isHere(vm: VmId): boolean;
  /** The daemon ends; the guests go on under their guards. */
  detach(): Promise<void>;
}

export function createRunner(options: {
  readonly storage: Storage;
  readonly guests: GuestDriver;
  readonly clock: Clock;
  readonly log: Log;
  readonly probe: Probe;
  readonly timings: Timings;
  readonly emit: Emit;
  readonly onPoweredOn: (vm: VmId, epoch: Epoch) => void;
  readonly onPoweredOff: (vm: VmId, epoch: Epoch) => void;
  readonly self: HostId;
  /** A witness runs no VMs. */
  readonly kind: 'full' | 'witness';
}): Runner {
  const { storage, guests, clock, log, probe, emit } = options;
  const entries = new Map<VmId, Entry>();
  const absentDisks = createAbsentDisks({ storage, clock, log, emit, timings: options.timings });
  const listeners: (() => void)[] = [];
  let detached = false;
  /** The rows of all, as long as none has changed: it is asked for many times in each turn of HA. */
  let list: readonly RunningVm[] | null = null;

  function tell(): void {
    list = null;
    for (const listener of listeners) listener();
  }

  function changed(entry: Entry): void {
    entry.row = null;
    tell();
  }

  /** Queues a step of one VM. What it throws stays with this VM, is told once, and the step is taken again. */
  function step(entry: Entry, what: string, action: () => Promise<void>, told = ''): void {
    entry.steps = entry.steps.then(action).catch((error: unknown) => {
      const text = `${entry.name}: ${what} failed, and is tried again: ${String(error)}`;
      if (text !== told) log.error(text, { vm: entry.vm });
      clock.after(options.timings.resyncRetryMs, () => {
        if (!detached && entries.get(entry.vm) === entry) step(entry, what, action, text);
      });
    });
  }

  /** Kept, because lists of what runs are made often: with every change of any VM's state. */
  function spec(entry: Entry): VmSpec | null {
    entry.spec ??= storage.vm(entry.vm)?.spec ?? null;
    return entry.spec;
  }

  function rowOf(entry: Entry): RunningVm {
    if (entry.row !== null) return entry.row;
    const { vm, name, epoch, life, heartbeat, hang } = entry;
    const known = spec(entry);
    const row: RunningVm = {
      ...{ vm, name, epoch, state: life.state, ready: heartbeat.isReady, hung: hang.hangs },
      cpus: known?.cpus ?? 1,
      memoryBytes: known?.memoryBytes ?? 0,
    };
    // A specification that the directory has not shown yet comes without a change of anything here.
    if (known !== null) entry.row = row;
    return row;
  }

  function usedMemory(): number {
    let sum = 0;
    for (const entry of entries.values()) sum += spec(entry)?.memoryBytes ?? 0;
    return sum;
  }

  function assertStartable(vm: VmId): VmView {
    const view = storage.vm(vm);
    if (view === null) throw new HoldfastError('unknown-vm', `VM ${vm} is not known here`);
    if (entries.has(vm))
      throw new HoldfastError('already-running', `VM ${view.name} runs here already`);
    if (options.kind === 'witness') {
      throw new HoldfastError(
        'no-capacity',
        `VM ${view.name}: this host is a witness and runs no VMs`,
      );
    }
    const free = guests.capacity().memoryBytes - usedMemory();
    if (view.spec.memoryBytes > free) {
      throw new HoldfastError(
        'no-capacity',
        `VM ${view.name} needs ${view.spec.memoryBytes} bytes of memory, and ${Math.max(0, free)} are free here`,
      );
    }
    if (!view.accessible.accessible) {
      throw new HoldfastError('inaccessible', `VM ${view.name}: ${view.accessible.text}`);
    }
    return view;
  }

  async function start(vm: VmId, { byHa, proof }: StartOptions): Promise<Epoch> {
    if (detached) throw new HoldfastError('stopped', 'The daemon is stopping');
    const view = assertStartable(vm);
    const entry = newEntry(vm, view.name, 0 as Epoch, 'starting');
    entries.set(vm, entry);
    changed(entry);
    let locked: Epoch | null = null;
    try {
      await lookAtPaths(view); // before the lock, which is then not taken in vain
      locked = await storage.lock(vm, {
        onlyIfProtected: byHa,
        ...(proof === undefined
          ? {}
          : { set: { service: runnerService, key: restartKey, value: { ...proof } } }),
      });
      entry.epoch = locked;
      entry.row = null;
      list = null;
      entry.disks = await openDisks(entry, false);
      await absentDisks.noteMissing({ vm, name: view.name, epoch: locked }, entry.disks.missing);
      const deadlineMs = storage.leaseDeadline(vm);
      if (deadlineMs === null) {
        throw new HoldfastError(
          'inaccessible',
          `VM ${view.name}: its lease lapsed while it was started`,
        );
      }
      probe.reached({ at: 'guest.starting', vm, epoch: locked });
      assertNothingLost(entry); // not even a guest that has seen nothing: such a disk answers nobody
      const guest = await guests.start({
        vm,
        name: view.name,
        epoch: locked,
        cpus: view.spec.cpus,
        memoryBytes: view.spec.memoryBytes,
        boot: view.spec.boot,
        disks: inOrder(view.spec, entry.disks),
        absentDisks: entry.disks.missing.map((one) => one.name),
        deadlineMs,
      });
      attach(entry, guest);
      // The lease may have moved, lapsed or gone while the process came up.
      const now = storage.leaseDeadline(vm);
      if (entry.isLost) throw new HoldfastError('lock-held', `VM ${view.name}: its lock was lost`);
      assertNothingLost(entry);
      if (!entry.life.become('running', `epoch ${locked}`)) {
        throw new HoldfastError(
          'guest-failed',
          `VM ${view.name}: its guest ended while it was started`,
        );
      }
      if (now === null) await pause(entry);
      else guest.extend(now);
      if (guest.state === 'paused') {
        // The deadline of its start passed before a later one could be set.
        entry.life.become('paused', 'its deadline passed');
        step(entry, 'resume', () => resume(entry));
      }
    } catch (error) {
      await undo(entry, locked).catch(() => {
        step(entry, 'end after a failed start', () => undo(entry, locked));
      });
      throw asHoldfastError(error, 'guest-failed');
    }
    probe.reached({ at: 'guest.started', vm, epoch: locked });
    attachLater(entry, entry.disks?.missing.map((one) => one.name) ?? []);
    emit('vm.started', `VM ${view.name} was started (epoch ${locked})`, entry);
    options.onPoweredOn(vm, locked);
    return locked;
  }

  function assertNothingLost({ name, hasLostWrites }: Entry): void {
    if (!hasLostWrites) return;
    const what = 'a disk of it lost acknowledged writes while it was started; start it again';
    throw new HoldfastError('guest-failed', `VM ${name}: ${what}`);
  }

  /** Throws where a disk that is no object can not be used on this host: another one may see it. */
  async function lookAtPaths({ name, spec }: VmView): Promise<void> {
    for (const disk of pathDisks(spec.disks)) {
      const problem = await guests.pathProblem(disk.path);
      if (problem === null) continue;
      throw new HoldfastError('path-unusable', unusableText(name, disk, options.self, problem));
    }
  }

  function newEntry(vm: VmId, name: string, epoch: Epoch, state: GuestState): Entry {
    const noted = () => changed(entry);
    const life = new LifeCycle(name, state, log, noted);
    const watch = watchGuest({
      ...{ clock, emit, changed: noted, timings: options.timings, vm: { vm, name } },
      isRunning: () => life.is('running'),
      activity: () => activity(entry),
    });
    const entry: Entry = {
      ...{ vm, name, epoch, life, ...watch },
      spec: null,
      guest: null,
      disks: null,
      opening: Promise.resolve(),
      reopening: false,
      notReopened: null,
      isLost: false,
      hasLostWrites: false,
      onExit: null,
      row: null,
      steps: Promise.resolve(),
    };
    return entry;
  }

  async function activity(entry: Entry): Promise<DiskActivity | null> {
    const { guest, disks, life } = entry;
    const known = spec(entry);
    if (guest === null || disks === null || known === null || !life.is('running')) return null;
    return activityOf(guest, disks, pathDisks(known.disks), guests);
  }

  /** As a crash, if it hangs still. */
  async function endHung(vm: VmId, epoch: Epoch): Promise<void> {
    const entry = entries.get(vm);
    const hangs = entry?.epoch === epoch && (await entry.hang.stillHangs());
    if (entry === undefined || !hangs || detached || !entry.life.is('running')) {
      throw new HoldfastError('conflict', `VM ${entry?.name ?? vm} does not hang here`);
    }
    probe.reached({ at: 'guest.hung', vm, epoch });
    entry.hang.stop();
    emit('vm.exited', `VM ${entry.name} is ended: its guest hangs`, entry);
    crashed(entry);
  }

  async function undo(entry: Entry, locked: Epoch | null): Promise<void> {
    await end(entry);
    if (locked !== null) {
      await storage.unlock(entry.vm, locked).catch((error: unknown) => {
        log.warn(`lock of ${entry.name} is given back later: ${asHoldfastError(error).message}`, {
          vm: entry.vm,
        });
      });
    }
    forget(entry);
  }

  /** The entry stands until lock and disks are dealt with, so that nothing starts in between. */
  function forget(entry: Entry): void {
    entry.heartbeat.end();
    entry.hang.stop(); // that it hung goes with it: it is the last that was seen of it
    if (entries.get(entry.vm) === entry) entries.delete(entry.vm);
    changed(entry);
  }

  async function end(entry: Entry): Promise<void> {
    await entry.guest?.kill();
    entry.guest = null;
    await closeDisks(entry);
  }

  async function closeDisks(entry: Entry): Promise<void> {
    await entry.opening.catch(() => undefined);
    const { disks } = entry;
    entry.disks = null;
    await disks?.close();
  }

  /**
   * Switched off: lock and protection end in one change; where that is impossible now, the store goes
   * on trying. A guest that has exited is released only afterwards: until then its guard tells a
   * restarted daemon how it ended, and the power-off is not forgotten.
   */
  async function endForGood(entry: Entry): Promise<void> {
    if (entry.guest?.state !== 'exited') await end(entry);
    else await closeDisks(entry);
    options.onPoweredOff(entry.vm, entry.epoch);
    try {
      await storage.unlock(entry.vm, entry.epoch, unprotected(entry) as unknown as JsonValue);
    } catch (error) {
      log.warn(`power-off of ${entry.name} is recorded later: ${asHoldfastError(error).message}`, {
        vm: entry.vm,
      });
    }
    await end(entry);
    forgetWhenRecorded(entry);
  }

  /**
   * As long as the record still says that the VM is to run here, this host reports it as `stopping`:
   * the master must not take it for a guest that was lost and start it again. A record that is not known here
   * yet may say so.
   */
  function forgetWhenRecorded(entry: Entry): void {
    const lock = storage.vm(entry.vm)?.lock;
    if (lock !== undefined && (lock.holder !== options.self || lock.epoch !== entry.epoch)) {
      forget(entry);
      return;
    }
    clock.after(options.timings.heartbeatIntervalMs, () => {
      if (!detached) forgetWhenRecorded(entry);
    });
  }

  /** Disks that a guest that was found does not have. */
  function lackedBy({ vm, guest }: Entry): string[] {
    const view = storage.vm(vm);
    const has = guest?.disks ?? null;
    if (view === null || has === null) return [...(view?.detached ?? [])];
    return view.spec.disks.map((disk) => disk.name).filter((name) => !has.includes(name));
  }

  function attachLater(
    entry: Entry,
    absent: readonly string[],
    doubtful: readonly string[] = [],
  ): void {
    const { vm, name, epoch, guest, disks } = entry;
    if (guest === null || disks === null) return;
    const isOver = () =>
      detached || entry.guest !== guest || entry.disks !== disks || entry.life.is('stopping');
    absentDisks.attachLater({ vm: { vm, name, epoch }, guest, disks, absent, doubtful, isOver });
  }

  async function openDisks(entry: Entry, guestRuns: boolean): Promise<OpenDisks> {
    return storage.openDisks(entry.vm, {
      epoch: entry.epoch,
      guestRuns,
      ...(guestRuns ? { without: lackedBy(entry) } : {}),
      onWritesLost: () => step(entry, 'end after a loss of writes', async () => writesLost(entry)),
    });
  }

  /** The guest believes in writes that are gone, so it must not go on. */
  function writesLost(entry: Entry): void {
    if (entry.life.is('starting')) {
      // Its process may be coming up: it is ended when it is there, and before the lock is given back.
      entry.hasLostWrites = true;
      return;
    }
    // A reset would be quicker, and would wait for the answers that the disk must not give any more.
    const lost = 'acknowledged writes that it had not flushed are lost';
    emit('vm.exited', `VM ${entry.name} is ended: ${lost}`, entry);
    crashed(entry);
  }

  function attach(entry: Entry, guest: Guest): void {
    entry.guest = guest;
    guest.handle((event) => onGuestEvent(entry, guest, event));
  }

  function onGuestEvent(entry: Entry, guest: Guest, event: GuestEvent): void {
    if (entry.guest !== guest || detached) return;
    switch (event.type) {
      case 'heartbeat':
        entry.heartbeat.beat();
        return;
      case 'paused':
        entry.life.become('paused', 'its deadline passed');
        emit('vm.paused', `The guard has paused VM ${entry.name}: its deadline passed`, entry);
        step(entry, 'resume', () => resume(entry));
        return;
      case 'reset':
        log.info(`guest of ${entry.name} was reset`, { vm: entry.vm });
        expectNothing(entry);
        return;
      case 'mute':
        emit('vm.silent', `What reports in the guest of VM ${entry.name} has ended`, entry);
        expectNothing(entry);
        return;
      case 'panicked':
        emit('vm.panicked', `The guest of VM ${entry.name} has panicked`, entry);
        crashed(entry);
        return;
      case 'ioError':
        emit(
          'vm.exited',
          `VM ${entry.name} stopped after an error of ${event.disk}: ${event.detail}`,
          entry,
        );
        crashed(entry);
        return;
      case 'exited':
        if (entry.onExit !== null) entry.onExit();
        else if (event.clean) switchedOff(entry, event.detail);
        else {
          emit('vm.exited', `The guest of VM ${entry.name} has ended: ${event.detail}`, entry);
          crashed(entry);
        }
    }
  }

  /** Until it is heard again its silence says nothing. */
  function expectNothing(entry: Entry): void {
    entry.heartbeat.reset();
    entry.hang.end();
    changed(entry);
  }

  /** HA will start it again, here or elsewhere: it is protected and does not run. Where its user wants it off, it is. */
  function crashed(entry: Entry): void {
    if (entry.life.is('stopping')) return entry.onExit?.();
    if (!entry.life.become('stopping', 'its guest is of no use any more')) return;
    step(entry, 'end after a crash', () => undo(entry, entry.epoch));
  }

  function switchedOff(entry: Entry, detail: string): void {
    if (entry.life.is('stopping') || !entry.life.become('stopping', detail)) return;
    step(entry, 'end after power-off', async () => {
      emit('vm.stopped', `VM ${entry.name} has switched itself off (${detail})`, entry);
      await endForGood(entry);
    });
  }

  function unprotected(entry: Entry): ProtectionState {
    const known = spec(entry);
    return {
      ...{ protected: false, name: entry.name, epoch: entry.epoch },
      ...{ memoryBytes: known?.memoryBytes ?? 0, cpus: known?.cpus ?? 1 },
      ...rulesOf(known ?? { priority: 'medium' }),
    };
  }

  async function stopVm(vm: VmId, { force }: { readonly force: boolean }): Promise<void> {
    const entry = entries.get(vm);
    if (entry === undefined) throw new HoldfastError('not-running', `VM ${vm} does not run here`);
    if (entry.life.is('starting', 'stopping')) {
      throw new HoldfastError('conflict', `VM ${entry.name} is ${entry.life.state}`);
    }
    // A paused guest can not switch itself off.
    const atOnce = force || entry.life.is('paused') || entry.disks === null;
    entry.life.become('stopping', 'its user wants it off');
    if (!atOnce) await powerDown(entry);
    const finish = async () => {
      if (entry.guest?.state !== 'exited') await end(entry);
      emit('vm.stopped', `VM ${entry.name} was switched off`, entry);
      await endForGood(entry);
    };
    await finish().catch((error: unknown) => {
      step(entry, 'end after power-off', finish);
      throw error;
    });
  }

  /** Resolves when the guest is gone, or the grace time is over. */
  function powerDown(entry: Entry): Promise<void> {
    const guest = entry.guest;
    if (guest === null) return Promise.resolve();
    return new Promise((resolve) => {
      const grace = clock.after(options.timings.powerOffGraceMs, () => {
        log.warn(`${entry.name} did not switch itself off in time: it is ended`, { vm: entry.vm });
        resolve();
      });
      entry.onExit = () => {
        grace.cancel();
        resolve();
      };
      guest.powerDown().catch((error: unknown) => {
        log.warn(`${entry.name} can not be asked to switch itself off: ${String(error)}`);
        grace.cancel();
        resolve();
      });
    });
  }

  async function pause(entry: Entry): Promise<void> {
    if (entry.guest === null || storage.leaseDeadline(entry.vm) !== null) return;
    await entry.guest.pause();
    const problem = entry.notReopened;
    const why = problem === null ? 'its lease lapsed' : `its disks are not open (${problem})`;
    if (entry.life.is('running') && entry.life.become('paused', why)) {
      emit('vm.paused', `VM ${entry.name} is paused: ${why}`, entry);
    }
    // A guest that stands still can not switch itself off: whoever waits for that need not.
    if (entry.life.is('stopping')) entry.onExit?.();
    // The lease may have come back before the guest stood still.
    step(entry, 'resume', () => resume(entry));
  }

  async function resume(entry: Entry): Promise<void> {
    const deadlineMs = storage.leaseDeadline(entry.vm);
    if (deadlineMs === null || entry.guest === null || entry.disks === null) return;
    if (entry.guest.state !== 'paused') return;
    await entry.guest.resume(deadlineMs);
    entry.heartbeat.resumed();
    if (entry.life.is('paused') && entry.life.become('running', 'its lease is valid again')) {
      emit('vm.resumed', `VM ${entry.name} goes on: its lease is valid again`, entry);
    }
  }

  function isEnding(entry: Entry): boolean {
    return detached || entry.life.is('stopping');
  }

  /** The guest may be ended meanwhile: its lock is not given back before they are closed, and they are not kept. */
  async function openAgain(entry: Entry): Promise<void> {
    const disks = await openDisks(entry, true);
    if (isEnding(entry)) await disks.close();
    else entry.disks = disks;
  }

  /** After a restart of the daemon: the lease is valid, so the disks can be served again. */
  async function reopen(entry: Entry): Promise<void> {
    if (isEnding(entry) || entry.disks !== null || entry.guest === null) return;
    try {
      entry.opening = openAgain(entry);
      await entry.opening;
    } catch (error) {
      if (isEnding(entry)) return;
      if (isError(error, 'fenced')) {
        await lost(entry);
        return;
      }
      const { message } = asHoldfastError(error);
      // It is tried each second: told once.
      if (entry.notReopened !== message) {
        entry.notReopened = message;
        log.warn(`disks of ${entry.name} are not open yet: ${message}`, { vm: entry.vm });
      }
      // Not before the next start, and nobody knows when that succeeds: another host may be able to use them.
      if (!storage.hasStore()) storage.withhold(entry.vm);
      clock.after(options.timings.resyncRetryMs, () => step(entry, 'reopen', () => reopen(entry)));
      return;
    }
    if (isEnding(entry)) return;
    entry.notReopened = null;
    entry.reopening = false;
    const absent = lackedBy(entry);
    const optional = objectDisks(storage.vm(entry.vm)?.spec.disks ?? []).filter(
      (disk) => disk.required === false,
    );
    const doubtful = optional.map((disk) => disk.name).filter((name) => !absent.includes(name));
    attachLater(entry, absent, doubtful);
    await resume(entry);
    changed(entry);
  }

  async function lost(entry: Entry): Promise<void> {
    entry.life.become('stopping', 'another host has its lock');
    emit('vm.lost', `VM ${entry.name} is ended here: another host has its lock`, entry);
    await end(entry);
    forget(entry);
  }

  storage.onLease({
    extended(vm, deadlineMs) {
      const entry = entries.get(vm);
      if (entry === undefined) return;
      entry.guest?.extend(deadlineMs);
      if (entry.reopening) {
        entry.reopening = false;
        step(entry, 'reopen', () => reopen(entry));
      }
    },
    lapsed(vm, stoodStill) {
      const entry = entries.get(vm);
      if (entry === undefined) return;
      // Not queued: standing still must not wait for anything else.
      const paused = pause(entry).then(() => {
        if (entry.guest?.state === 'paused') stoodStill();
        if (entry.life.is('paused') && spec(entry)?.isolationResponse === 'kill') {
          const why = 'its lease lapsed, and that is its isolation response';
          emit('vm.exited', `VM ${entry.name} is ended: ${why}`, entry);
          crashed(entry);
        }
      });
      paused.catch((error: unknown) => {
        log.error(`${entry.name} could not be paused; its guard will do it: ${String(error)}`, {
          vm,
        });
      });
    },
    regained(vm, deadlineMs) {
      const entry = entries.get(vm);
      if (entry === undefined) return;
      entry.guest?.extend(deadlineMs);
      step(entry, 'resume', () => resume(entry));
    },
    lost(vm) {
      const entry = entries.get(vm);
      if (entry === undefined) return;
      entry.isLost = true;
      if (!entry.life.is('starting')) step(entry, 'end', () => lost(entry));
    },
  });

  async function recover(): Promise<void> {
    for (const guest of await guests.recover()) {
      const state = guest.state === 'paused' ? 'paused' : 'running';
      const entry = newEntry(guest.vm, guest.name, guest.epoch, state);
      entries.set(guest.vm, entry);
      attach(entry, guest);
      // Also of one that has ended: until that is recorded its lock is not given back as any that is not used.
      storage.adopt(guest.vm, guest.epoch);
      if (guest.state === 'exited') {
        // How it ended is told by its event; what has to be written waits for the directory.
        continue;
      }
      entry.reopening = true;
      if (guest.wasHeard) entry.heartbeat.expect();
      log.info(`found the guest of ${guest.name} (${guest.state})`, {
        vm: guest.vm,
        epoch: guest.epoch,
      });
      options.onPoweredOn(guest.vm, guest.epoch);
    }
    tell();
  }

  return {
    start,
    endHung,
    stopVm,
    recover,
    isHere: (vm) => entries.has(vm),
    running() {
      if (list !== null) return list;
      const all = [...entries.values()];
      const rows = all.map(rowOf);
      if (all.every((entry) => entry.row !== null)) list = rows;
      return rows;
    },
    capacity: () => guests.capacity(),
    onChange: (listener) => void listeners.push(listener),
    async detach() {
      detached = true;
      for (const entry of entries.values()) entry.guest?.detach();
      const disks = [...entries.values()].flatMap((entry) => entry.disks ?? []);
      await Promise.allSettled(disks.map((one) => one.close()));
    },
  };
}

/** The disks that can be had, those of the store where they are served. */
function inOrder({ disks }: VmSpec, opened: OpenDisks): GuestDisk[] {
  return disks.flatMap((disk): readonly GuestDisk[] =>
    isPathDisk(disk) ? [disk] : opened.disks.filter(({ name }) => name === disk.name),
  );
}
