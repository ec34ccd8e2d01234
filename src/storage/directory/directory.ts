// The directory: the newest committed record of every object that this host has seen, in memory. It
// may lag behind the registers, so it informs and never authorises. Two hosts whose digests are
// equal hold the same records. The objects are dealt into buckets with a digest each, so that two
// hosts find what differs without naming everything.

import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import type { ObjectId, VmId } from '../../model/ids.ts';
import type { DiskRecord, NamespaceRecord, ObjectRecord } from '../../model/record.ts';

export interface DirectoryEntry {
  readonly record: ObjectRecord;
  readonly ballot: Ballot;
}

export interface Directory {
  get(object: ObjectId): DirectoryEntry | null;
  entries(): Iterable<DirectoryEntry>;
  /** Takes a committed record if it is newer than the known one; true if so. */
  update(entry: DirectoryEntry): boolean;
  namespace(vm: VmId): NamespaceRecord | null;
  namespaces(): NamespaceRecord[];
  /** The VM of that name; the one first heard of where there should be several. */
  named(name: string): NamespaceRecord | null;
  disk(object: ObjectId): DiskRecord | null;
  isDeleted(object: ObjectId): boolean;
  digest(): string;
  /** Of each bucket; an object is in the same bucket on every host. */
  bucketDigests(): Uint32Array;
  bucket(index: number): DirectoryEntry[];
  onChange(listener: (record: ObjectRecord, previous: ObjectRecord | null) => void): void;
}

/** For 100,000 objects about a hundred in each, and the digests of all are 4 KiB. */
export const bucketCount = 1024;

export function createDirectory(): Directory {
  const entries = new Map<ObjectId, DirectoryEntry>();
  const namespaceOf = new Map<VmId, ObjectId>();
  /** By name, which a VM never changes. */
  const vmsNamed = new Map<string, Set<VmId>>();
  const listeners: ((record: ObjectRecord, previous: ObjectRecord | null) => void)[] = [];
  const digests = new Uint32Array(bucketCount);
  const buckets: ObjectId[][] = Array.from({ length: bucketCount }, () => []);
  let digest = 0;

  const bucketOf = (object: ObjectId) => (mix(object) >>> 0) % bucketCount;

  function fold({ record, ballot }: DirectoryEntry, bucket: number): void {
    const value = mix(`${record.id} ${formatBallot(ballot)}`);
    digest ^= value;
    digests[bucket] = (digests[bucket] as number) ^ value;
  }

  function namespace(vm: VmId): NamespaceRecord | null {
    const object = namespaceOf.get(vm);
    const record = object === undefined ? undefined : entries.get(object)?.record;
    return record?.kind === 'namespace' ? record : null;
  }

  function index(record: ObjectRecord, previous: ObjectRecord | null): void {
    if (record.kind === 'namespace') {
      if (previous?.kind === 'namespace') return;
      namespaceOf.set(record.vm, record.id);
      const vms = vmsNamed.get(record.name) ?? new Set();
      vmsNamed.set(record.name, vms.add(record.vm));
    } else if (previous?.kind === 'namespace') {
      if (namespaceOf.get(previous.vm) === record.id) namespaceOf.delete(previous.vm);
      const vms = vmsNamed.get(previous.name);
      vms?.delete(previous.vm);
      if (vms?.size === 0) vmsNamed.delete(previous.name);
    }
  }

  return {
    get: (object) => entries.get(object) ?? null,
    entries: () => entries.values(),
    update(entry) {
      const { record } = entry;
      const known = entries.get(record.id);
      if (known !== undefined && compareBallots(entry.ballot, known.ballot) <= 0) return false;
      const bucket = bucketOf(record.id);
      if (known === undefined) buckets[bucket]?.push(record.id);
      else fold(known, bucket);
      fold(entry, bucket);
      entries.set(record.id, entry);
      index(record, known?.record ?? null);
      for (const listener of listeners) listener(record, known?.record ?? null);
      return true;
    },
    namespace,
    namespaces: () => [...namespaceOf.keys()].flatMap((vm) => namespace(vm) ?? []),
    named(name) {
      for (const vm of vmsNamed.get(name) ?? []) {
        const record = namespace(vm);
        if (record !== null) return record;
      }
      return null;
    },
    disk(object) {
      const record = entries.get(object)?.record;
      return record?.kind === 'disk' ? record : null;
    },
    isDeleted: (object) => entries.get(object)?.record.kind === 'tombstone',
    digest: () => `${entries.size}.${digest >>> 0}`,
    bucketDigests: () => digests.slice(),
    bucket: (index) => (buckets[index] ?? []).flatMap((object) => entries.get(object) ?? []),
    onChange: (listener) => void listeners.push(listener),
  };
}

/** FNV-1a with murmur3's finish. It must not be linear, as CRC is: two objects whose ballots moved by
 * the same amount in opposite directions would leave the sum of their checksums as it was. */
function mix(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
}
