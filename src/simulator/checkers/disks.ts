// Writes and copies of disks: what may be written where, and what must be where when a guest is told
// that its write is done. Which copies count is taken from the newest committed record alone.

import type { ComponentId, Epoch, HostId, ObjectId, VmId } from '../../model/ids.ts';
import { type Component, compareFences, type DiskRecord } from '../../model/record.ts';
import type { Point } from '../../ports/probe.ts';
import { blockBytes, type Stamp } from '../world/disk-truth.ts';
import { Copies } from './copies.ts';
import type { Ledger } from './ledger.ts';
import type { Report } from './violation.ts';

type InSyncChanged = Extract<Point, { at: 'disk.inSyncChanged' }>;

interface Writer {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
}

export class Disks {
  readonly #ledger: Ledger;
  readonly #copies: Copies;
  readonly #readEpoch: (vm: VmId) => number;
  readonly #report: Report;
  /** Of VMs, as their guests' stamps have it. */
  readonly #numbers = new Map<VmId, number>();
  /** The last change of each disk that was answered, and to whom. */
  readonly #answered = new Map<ObjectId, { readonly host: HostId; readonly record: DiskRecord }>();

  /** `readEpoch`: the newest epoch of which a guest has read anything. */
  constructor(ledger: Ledger, copies: Copies, readEpoch: (vm: VmId) => number, report: Report) {
    this.#ledger = ledger;
    this.#copies = copies;
    this.#readEpoch = readEpoch;
    this.#report = report;
  }

  wrote(host: HostId, file: string, offset: number, bytes: Uint8Array): void {
    const component = Copies.componentOf(file);
    if (component === null) return;
    this.#copies.wrote(
      component,
      offset,
      bytes,
      (stamp, at) => this.#isAtHome(component, stamp, at),
      (stamp, before) => this.#checkStale(host, component, stamp, before),
    );
  }

  /** A flipped bit makes a stamp of another place: what has rotted on all copies may be taken as it is after a crash
   * (docs/protocols/disk.md, "Checksums"), and is nobody's write. */
  #isAtHome(component: ComponentId, stamp: Stamp, offset: number): boolean {
    const record = this.#ledger.diskOf(component);
    if (record === null) return true;
    const number = this.#numbers.get(record.vm) ?? stamp.vm;
    if (number !== stamp.vm || record.name !== `disk${stamp.disk}`) return false;
    return record.blueprint.mirrors.every(({ stripes }) =>
      stripes.every(
        (one, stripe) => one.id !== component || offsetIn(record, stripe, stamp.block) === offset,
      ),
    );
  }

  /**
   * An older epoch's bytes may still come to a copy that counts: a reconciliation goes on, region by
   * region, after the guest has read others, and a copy may be given what it has. In either case
   * another copy of the stripe has these very bytes. From an older writer, nobody has them.
   */
  #checkStale(host: HostId, component: ComponentId, stamp: Stamp, before: Stamp | null): void {
    const record = this.#ledger.diskOf(component);
    if (record === null || stamp.epoch >= this.#readEpoch(record.vm)) return;
    if (before?.serial === stamp.serial || !record.inSync.includes(component)) return;
    const others = copiesOf(record, stripeOf(record, stamp.block)).filter(
      (one) => one.id !== component,
    );
    if (others.some((one) => this.#copies.holds(one, stamp))) return;
    this.#report(
      'no-stale-write',
      `${record.vm} ${record.name} block ${stamp.block}: write ${stamp.serial} of epoch ${stamp.epoch} came to the copy on ${host}, which counts, after a guest of epoch ${this.#readEpoch(record.vm)} had read`,
    );
  }

  /** A guest was told that its write is done. */
  acknowledged(guest: Writer, stamp: Stamp, isDurable: boolean): void {
    this.#numbers.set(guest.vm, stamp.vm);
    const namespace = this.#ledger.namespace(guest.vm);
    const records = namespace?.disks.flatMap((object) => this.#ledger.disk(object) ?? []) ?? [];
    const record = records.find(({ name }) => name === `disk${stamp.disk}`) ?? null;
    const what = () =>
      `${guest.name} disk${stamp.disk} block ${stamp.block}: write ${stamp.serial} (epoch ${guest.epoch}) was acknowledged`;
    if (record === null) {
      this.#report(
        'in-sync-before-acknowledge',
        `${what()}, and no record of the disk is committed`,
      );
      return;
    }
    for (const copy of copiesOf(record, stripeOf(record, stamp.block))) {
      if (!record.inSync.includes(copy.id)) continue;
      const given = this.#copies.given(copy.id, stamp.block);
      if (given === null || given.highestSerial < stamp.serial) {
        this.#report(
          'in-sync-before-acknowledge',
          `${what()}, and the copy on ${copy.host}, which counts, has not been given it`,
        );
      } else if (isDurable && !this.#copies.isDurable(copy, stamp)) {
        this.#report(
          'flushed-is-durable',
          `${what()} as durable, and the copy on ${copy.host}, which counts, may lose it`,
        );
      }
    }
  }

  /** A change of the disk's record was answered. */
  returned(host: HostId, record: DiskRecord): void {
    this.#answered.set(record.id, { host, record });
  }

  /** Another in-sync set is told: it must be what is committed, unless a later opening has gone on. */
  inSyncChanged(host: HostId, { object, inSync }: InSyncChanged): void {
    const newest = this.#ledger.disk(object);
    const answered = this.#answered.get(object);
    const told = answered?.host === host ? answered.record : newest;
    if (newest === null || told === null) {
      this.#sayInSync(object, `${host} goes by ${inSync.join(', ')}, and nothing is committed`);
      return;
    }
    const order = compareFences(told.fence, newest.fence);
    if (!isSame(inSync, told.inSync)) {
      this.#sayInSync(
        object,
        `${host} goes by ${inSync.join(', ')}; it wrote ${told.inSync.join(', ')}`,
      );
    } else if (order > 0 || (order === 0 && !isSame(inSync, newest.inSync))) {
      this.#sayInSync(
        object,
        `${host} goes by ${inSync.join(', ')}; committed is ${newest.inSync.join(', ')}`,
      );
    }
  }

  /** The record is the newest of its disk. */
  committed(record: DiskRecord): void {
    const stripes = record.blueprint.mirrors[0]?.stripes.length ?? 0;
    for (let stripe = 0; stripe < stripes; stripe += 1) {
      if (copiesOf(record, stripe).some((one) => record.inSync.includes(one.id))) continue;
      this.#sayInSync(record.id, `no copy of stripe ${stripe} counts any more`);
    }
  }

  removed(record: DiskRecord): void {
    this.#copies.forget(record);
    this.#answered.delete(record.id);
  }

  #sayInSync(object: ObjectId, text: string): void {
    this.#report('in-sync-before-acknowledge', `object ${object}: ${text}`);
  }
}

/** Chunks of a disk go to the stripes in turn. */
function stripeOf({ blueprint }: DiskRecord, block: number): number {
  const stripes = blueprint.mirrors[0]?.stripes.length ?? 1;
  return Math.floor((block * blockBytes) / blueprint.stripeBytes) % stripes;
}

/** Where a stripe's components have the block; null: another stripe has it. */
function offsetIn({ blueprint }: DiskRecord, stripe: number, block: number): number | null {
  const count = blueprint.mirrors[0]?.stripes.length ?? 1;
  const chunk = Math.floor((block * blockBytes) / blueprint.stripeBytes);
  if (chunk % count !== stripe) return null;
  return (
    Math.floor(chunk / count) * blueprint.stripeBytes +
    ((block * blockBytes) % blueprint.stripeBytes)
  );
}

function copiesOf({ blueprint }: DiskRecord, stripe: number): Component[] {
  return blueprint.mirrors.flatMap((mirror) => mirror.stripes[stripe] ?? []);
}

function isSame(a: readonly ComponentId[], b: readonly ComponentId[]): boolean {
  return a.length === b.length && a.every((one) => b.includes(one));
}
