// The newest committed record of every object, as the proposers said at the very moment at which a
// majority had accepted it. A proposer may say so late (it stood still meanwhile): the ballot decides.

import { type Ballot, compareBallots } from '../../model/ballot.ts';
import type { ComponentId, ObjectId, VmId } from '../../model/ids.ts';
import {
  allComponents,
  type DiskRecord,
  type NamespaceRecord,
  type ObjectRecord,
} from '../../model/record.ts';

interface Newest {
  readonly ballot: Ballot;
  readonly record: ObjectRecord;
}

export class Ledger {
  readonly #newest = new Map<ObjectId, Newest>();
  /** Records that would have other voters beside the present ones, whether they were committed or not. */
  readonly #joint = new Map<ObjectId, Newest>();
  readonly #namespaces = new Map<VmId, ObjectId>();
  readonly #components = new Map<ComponentId, ObjectId>();

  /** What the record replaces as the newest, or `null` where it is the first; undefined: it is not the
   * newest, or was so already. */
  committed(ballot: Ballot, record: ObjectRecord): ObjectRecord | null | undefined {
    const { id } = record;
    const before = this.#newest.get(id);
    if (before !== undefined && compareBallots(ballot, before.ballot) <= 0) return undefined;
    this.#newest.set(id, { ballot, record });
    if (record.kind === 'namespace') this.#namespaces.set(record.vm, id);
    if (record.kind === 'disk') {
      for (const one of allComponents(record)) this.#components.set(one.id, id);
    }
    const old = before?.record ?? null;
    if (record.kind === 'tombstone' && old !== null) this.#bury(old);
    return old;
  }

  /** A voter may have accepted it. */
  proposed(ballot: Ballot, record: ObjectRecord): void {
    if (record.nextVoters === undefined) return;
    const before = this.#joint.get(record.id);
    if (before !== undefined && compareBallots(ballot, before.ballot) <= 0) return;
    this.#joint.set(record.id, { ballot, record });
  }

  /** A joint record that is newer than what is committed. Where a voter has accepted it nobody can tell that it
   * never was, without a majority of the voters that it would add. */
  doubtful(object: ObjectId): ObjectRecord | null {
    const joint = this.#joint.get(object);
    const committed = this.#newest.get(object)?.ballot ?? null;
    return joint !== undefined && compareBallots(joint.ballot, committed) > 0 ? joint.record : null;
  }

  record(object: ObjectId): ObjectRecord | null {
    return this.#newest.get(object)?.record ?? null;
  }

  disk(object: ObjectId): DiskRecord | null {
    const record = this.record(object);
    return record?.kind === 'disk' ? record : null;
  }

  namespace(vm: VmId): NamespaceRecord | null {
    const object = this.#namespaces.get(vm);
    const record = object === undefined ? null : this.record(object);
    return record?.kind === 'namespace' ? record : null;
  }

  namespaces(): NamespaceRecord[] {
    return [...this.#namespaces.keys()].flatMap((vm) => this.namespace(vm) ?? []);
  }

  /** The disk that the component is a piece of; null while no committed record names it. */
  diskOf(component: ComponentId): DiskRecord | null {
    const object = this.#components.get(component);
    return object === undefined ? null : this.disk(object);
  }

  #bury(old: ObjectRecord): void {
    if (old.kind === 'namespace' && this.#namespaces.get(old.vm) === old.id) {
      this.#namespaces.delete(old.vm);
    }
    if (old.kind !== 'disk') return;
    for (const one of allComponents(old)) this.#components.delete(one.id);
  }
}
