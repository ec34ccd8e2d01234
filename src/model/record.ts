// The record of an object: everything that must be agreed on about it, kept in one register on the
// object's own voters. Whoever can reach a majority of these voters can read and change it; nothing
// about the object is decided anywhere else.

import type { ComponentId, Epoch, HostId, ObjectId, Revision, StoreId, VmId } from './ids.ts';
import type { JsonValue } from './json.ts';
import type { StoragePolicy } from './policy.ts';

/** An acceptor of the object's register. Its state belongs to this triple: a host that comes back
 * with another store is another voter, and says so. */
export interface Voter {
  readonly host: HostId;
  readonly store: StoreId;
  /** Which joining of this host to this object it is; grows when a host leaves and joins again. */
  readonly joined: number;
}

/** Of the voters with which an object is made; whoever joins later has a greater number. */
export const joinedAtCreation = 1;

/** Of all that join with a record made from this one. It grows with the revision: by the numbers of the voters alone,
 * one that comes back would get a lower one than it had where others have left meanwhile. */
export function nextJoined(record: Voting & { readonly revision: Revision }): number {
  return 1 + Math.max(record.revision, ...votersOf(record).map(({ joined }) => joined));
}

/** A piece of a disk object's data on one host. */
export interface Component {
  readonly id: ComponentId;
  readonly host: HostId;
  readonly store: StoreId;
  readonly sizeBytes: number;
}

/** mirror -> stripe -> component. */
export interface Blueprint {
  readonly stripeBytes: number;
  /** Its components were made with all of their space, and none has been given back. */
  readonly thick?: true;
  readonly mirrors: readonly { readonly stripes: readonly Component[] }[];
}

export interface Lock {
  readonly holder: HostId | null;
  /** Epoch of the present or, where there is no holder, of the last one. */
  readonly epoch: Epoch;
  /** Held to bring its disks up to date, with no guest: given up as soon as anybody else wants it. */
  readonly use?: 'repair';
}

/** Names one opening of a disk by one holder; orders writers. */
export interface Fence {
  readonly epoch: Epoch;
  readonly open: number;
}

export function compareFences(a: Fence, b: Fence): number {
  return a.epoch - b.epoch || a.open - b.open;
}

interface RecordBase {
  readonly id: ObjectId;
  readonly vm: VmId;
  readonly revision: Revision;
  readonly policy: StoragePolicy;
  readonly voters: readonly Voter[];
  /** Only while the voters are being changed: those that come after `voters`. Until then a decision
   * needs a majority of both (docs/protocols/register.md, "Changing the voters"). */
  readonly nextVoters?: readonly Voter[];
}

/**
 * `creating` and `removing` are steps done under the VM's lock: where the lock is free again the
 * step was broken off, and whoever notices takes the lock and removes what is there.
 */
export type Lifecycle = 'creating' | 'ready' | 'removing';

export type Metadata = Readonly<Record<string, Readonly<Record<string, JsonValue>>>>;

export interface NamespaceRecord extends RecordBase {
  readonly kind: 'namespace';
  readonly name: string;
  readonly lifecycle: Lifecycle;
  readonly lock: Lock;
  /** service -> key -> value. */
  readonly metadata: Metadata;
  /** Small files: `vm.json` and one descriptor `<disk>.json` per disk. */
  readonly files: Readonly<Record<string, string>>;
  readonly disks: readonly ObjectId[];
  /** Those of the disks that the VM can do without; `vm.json` says the same. */
  readonly optional?: readonly ObjectId[];
}

export interface DiskRecord extends RecordBase {
  readonly kind: 'disk';
  /** `disk0`, `disk1`, ... */
  readonly name: string;
  readonly sizeBytes: number;
  readonly blueprint: Blueprint;
  /** The tree that is to take the place of `blueprint`: it is being filled by the opening that `fence` names,
   * and is void with the next one. Nobody reads it (docs/protocols/policy.md). */
  readonly next?: Blueprint;
  readonly inSync: readonly ComponentId[];
  readonly fence: Fence;
}

/** What stays of a deleted object until all its hosts know. */
export interface Tombstone extends RecordBase {
  readonly kind: 'tombstone';
}

export type ObjectRecord = NamespaceRecord | DiskRecord | Tombstone;

export function components(blueprint: Blueprint): Component[] {
  return blueprint.mirrors.flatMap((mirror) => mirror.stripes);
}

/** All that takes space, with those of the tree that is being filled. */
export function allComponents({ blueprint, next }: DiskRecord): Component[] {
  return next === undefined
    ? components(blueprint)
    : [...components(blueprint), ...components(next)];
}

/** Who decides about a record: a majority of each group. */
export type Voting = Pick<RecordBase, 'voters' | 'nextVoters'>;

export function votingOf({ voters, nextVoters }: Voting): Voting {
  return nextVoters === undefined ? { voters } : { voters, nextVoters };
}

/** One group, or two while the voters are being changed. */
export function groupsOf({ voters, nextVoters }: Voting): readonly (readonly Voter[])[] {
  return nextVoters === undefined ? [voters] : [voters, nextVoters];
}

/** Each voter once. */
export function votersOf({ voters, nextVoters }: Voting): readonly Voter[] {
  if (nextVoters === undefined) return voters;
  const added = nextVoters.filter((voter) => !voters.some((other) => sameVoter(voter, other)));
  return [...voters, ...added];
}

/** Whether those that `has` is true of can decide. */
export function isQuorum(voting: Voting, has: (voter: Voter) => boolean): boolean {
  return groupsOf(voting).every((group) => countOf(group, has) >= majority(group.length));
}

function countOf(group: readonly Voter[], has: (voter: Voter) => boolean): number {
  let count = 0;
  for (const voter of group) if (has(voter)) count += 1;
  return count;
}

export function sameVoter(a: Voter, b: Voter): boolean {
  return a === b || (a.host === b.host && a.store === b.store && a.joined === b.joined);
}

export function sameVoters(a: readonly Voter[], b: readonly Voter[]): boolean {
  // Records of one object mostly share them.
  if (a === b) return true;
  return a.length === b.length && a.every((voter) => b.some((other) => sameVoter(voter, other)));
}

export function sameVoting(a: Voting, b: Voting): boolean {
  if (!sameVoters(a.voters, b.voters)) return false;
  if (a.nextVoters === undefined || b.nextVoters === undefined)
    return a.nextVoters === b.nextVoters;
  return sameVoters(a.nextVoters, b.nextVoters);
}

/** One step of the voters: none, towards others, or to the others for good. */
export function isVotingStep(from: Voting, to: Voting): boolean {
  if (sameVoting(from, to)) return true;
  if (from.nextVoters !== undefined) {
    return to.nextVoters === undefined && sameVoters(from.nextVoters, to.voters);
  }
  return to.nextVoters !== undefined && sameVoters(from.voters, to.voters);
}

export function majority(voters: number): number {
  return Math.floor(voters / 2) + 1;
}
