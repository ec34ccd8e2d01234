// All invariants of a run, watched from its beginning. Everything that the machines say comes in here
// and goes to the checkers that it concerns; what they find is kept with its time.
//
// The checkers know what the words of the system mean and nothing of how it works: they share types
// with it, and no protocol.

import type { ObjectId } from '../../model/ids.ts';
import type { ObjectRecord, Voting } from '../../model/record.ts';
import type { Point } from '../../ports/probe.ts';
import type { Stamp } from '../world/disk-truth.ts';
import type { VirtualGuest } from '../world/guest.ts';
import type { Machine } from '../world/machine.ts';
import type { Observer, World } from '../world/world.ts';
import { Copies } from './copies.ts';
import { Disks } from './disks.ts';
import { Guests } from './guests.ts';
import { Ledger } from './ledger.ts';
import { Protection } from './protection.ts';
import { Registers } from './registers.ts';
import { type InvariantName, invariantNames, type Violation } from './violation.ts';

export type { Violation };

import { Votes } from './votes.ts';

/** A run that breaks something breaks it again and again: only the first are kept. */
const keptViolations = 200;

export class Invariants implements Observer {
  readonly violations: Violation[] = [];
  /** Called at the very moment; a run may stop itself here. */
  onViolation: ((violation: Violation) => void) | null = null;
  readonly ledger = new Ledger();
  readonly #world: Pick<World, 'nowMs'>;
  readonly #counts = new Map<InvariantName, number>();
  readonly #registers: Registers;
  readonly #votes: Votes;
  readonly #guests: Guests;
  readonly #disks: Disks;
  readonly #protection: Protection;
  readonly #lastAcknowledgedMs = new Map<string, number>();

  constructor(world: Pick<World, 'nowMs' | 'machines' | 'observe'>) {
    this.#world = world;
    const report = (name: InvariantName, text: string) => this.#violated(name, text);
    const { ledger } = this;
    const machines = new Map(world.machines.map((machine) => [machine.name, machine]));
    const copies = new Copies((host, file) => machines.get(host)?.diskThatHad(file) ?? null);
    this.#registers = new Registers(report);
    this.#votes = new Votes(report);
    this.#guests = new Guests(ledger, report);
    this.#disks = new Disks(ledger, copies, (vm) => this.#guests.readEpoch(vm), report);
    this.#protection = new Protection(
      report,
      (vm) => ledger.namespace(vm),
      (vm, epoch) => this.#guests.aliveAt(vm, epoch),
    );
    world.observe(this);
  }

  results(): { readonly name: InvariantName; readonly violations: number }[] {
    return invariantNames.map((name) => ({ name, violations: this.#counts.get(name) ?? 0 }));
  }

  /** Of the whole history: that each acknowledged protection is in the newest record. */
  finish(): void {
    for (const record of this.ledger.namespaces()) this.#protection.committed(record, null);
  }

  /** When a write of the VM was acknowledged last; null: never. */
  lastAcknowledgedMs(name: string): number | null {
    return this.#lastAcknowledgedMs.get(name) ?? null;
  }

  doubtful(object: ObjectId): Voting | null {
    return this.ledger.doubtful(object);
  }

  // ---- what the world shows -----------------------------------------------------------------------

  reached({ name: host }: Machine, point: Point): void {
    switch (point.at) {
      case 'register.invoked':
        return this.#registers.invoked(host, point.object, point.call);
      case 'register.accepting':
        this.ledger.proposed(point.ballot, point.record);
        return this.#registers.accepting(host, point.object, point.record);
      case 'acceptor.accepted':
        return this.#votes.accepted(point.voter, point.object, point.ballot, point.record);
      case 'register.committed':
        this.#registers.committed(point.object, point.ballot, point.record);
        this.#votes.committed(point.object, point.ballot, point.record);
        return this.#committed(point.record, this.ledger.committed(point.ballot, point.record));
      case 'register.returned':
        this.#registers.returned(host, point);
        if (point.record?.kind === 'disk') this.#disks.returned(host, point.record);
        return;
      case 'disk.inSyncChanged':
        return this.#disks.inSyncChanged(host, point);
      case 'lock.taken':
        if (point.byHa) this.#protection.takenByHa(point.vm, point.epoch);
        return;
      case 'guest.hung':
        return this.#guests.takenForHung(point.vm, point.epoch);
      case 'protection.set':
        return this.#protection.set(point.vm, point.protected, point.epoch);
      default:
    }
  }

  guestChanged(machine: Machine, guest: VirtualGuest): void {
    this.#guests.changed(machine.name, guest);
  }

  misread(machine: Machine, guest: VirtualGuest, problem: string): void {
    const who = `${guest.name} on ${machine.name} (epoch ${guest.epoch})`;
    this.#violated('no-lost-write', `${who}: ${problem}`);
  }

  wrote(machine: Machine, file: string, offset: number, bytes: Uint8Array): void {
    this.#disks.wrote(machine.name, file, offset, bytes);
  }

  acknowledged(_machine: Machine, guest: VirtualGuest, stamp: Stamp, isDurable: boolean): void {
    this.#lastAcknowledgedMs.set(guest.name, this.#world.nowMs());
    if (!guest.hasOnPath(stamp.disk)) this.#disks.acknowledged(guest, stamp, isDurable);
  }

  staleWrite(path: string, problem: string): void {
    this.#violated('no-stale-write', `${path}: ${problem}`);
  }

  /** `before`: what the record replaces as the newest; undefined: it replaces nothing. */
  #committed(record: ObjectRecord, before: ObjectRecord | null | undefined): void {
    if (before === undefined) return;
    if (record.kind === 'namespace') {
      this.#guests.lockCommitted(record.vm, record.lock.epoch);
      this.#protection.committed(record, before?.kind === 'namespace' ? before : null);
    } else if (record.kind === 'disk') {
      this.#disks.committed(record);
    } else {
      if (before?.kind === 'namespace') this.#protection.removed(before.vm);
      if (before?.kind === 'disk') this.#disks.removed(before);
    }
  }

  #violated(invariant: InvariantName, text: string): void {
    this.#counts.set(invariant, (this.#counts.get(invariant) ?? 0) + 1);
    const violation = { atMs: this.#world.nowMs(), invariant, text };
    if (this.violations.length < keptViolations) this.violations.push(violation);
    this.onViolation?.(violation);
  }
}
