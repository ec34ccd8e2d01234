// The locks of VMs: who may run one. Taking and releasing is a compare-and-swap of the namespace
// record, with a new epoch at each take; holding is a lease. A record that names this host holder of
// a VM that it does not run (after a boot, a failed start, an unknown outcome) is put right here.

import { asHoldfastError, HoldfastError, isError } from '../model/errors.ts';
import { epoch as asEpoch, type Epoch, type ObjectId, type VmId } from '../model/ids.ts';
import type { JsonValue } from '../model/json.ts';
import type { Timings } from '../model/limits.ts';
import { haService, protectionKey, readProtection } from '../model/protection.ts';
import {
  groupsOf,
  isQuorum,
  majority,
  type NamespaceRecord,
  type ObjectRecord,
  sameVoter,
  type Voter,
  type Voting,
  votersOf,
  votingOf,
} from '../model/record.ts';
import { noPayload } from '../peer/frame.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { LockOptions, LockStatus } from './api.ts';
import type { Directory } from './directory/directory.ts';
import { type LeaseHolder, votingKey } from './lease/holder.ts';
import type { StatusAnswer } from './lease/messages.ts';
import type { LeaseVoter } from './lease/voter.ts';
import type { Records } from './records.ts';

const statusTimeoutMs = 1000;
const reconcileIntervalMs = 1000;
/** Between two looks whether a lock that was asked for is given up. */
const yieldPauseMs = 100;

export interface Locks {
  status(vm: VmId): Promise<LockStatus>;
  /** `change` is made to the record in the same step, after the lock is in it; without one the VM must
   * be `ready`. */
  lock(
    vm: VmId,
    options?: LockOptions,
    change?: (record: NamespaceRecord) => NamespaceRecord,
  ): Promise<Epoch>;
  /** Begins to hold the lock that the first record of a new VM has given this host. */
  holdNew(record: NamespaceRecord): Promise<void>;
  adopt(vm: VmId, epoch: Epoch): void;
  unlock(vm: VmId, epoch: Epoch, protection?: JsonValue): Promise<void>;
  /** A voter does not carry our lock: write the record again, or learn that the lock is lost. */
  repair(vm: VmId, epoch: Epoch): void;
  /** How this host gives up a lock that it holds for repair: resolves when it is free. */
  onYield(yielded: (vm: VmId) => Promise<void>): void;
  /** Locks that are being used by this host without a guest: not to be released as forgotten. */
  busy(vm: VmId, isBusy: boolean): void;
  start(): void;
  stop(): void;
}

export function createLocks(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly log: Log;
  readonly probe: Probe;
  readonly timings: Timings;
  readonly directory: Directory;
  readonly records: Records;
  readonly holder: LeaseHolder;
  readonly voter: LeaseVoter;
  /** This host's own accepted record of an object, as a voter. */
  readonly accepted: (object: NamespaceRecord['id']) => ObjectRecord | null;
}): Locks {
  const { peer, clock, log, probe, directory, records, holder, voter } = options;
  const self = peer.self;
  const busy = new Set<VmId>();
  const repairing = new Set<VmId>();
  /** Releases that are under way: whoever wants the lock here has it after them. */
  const releasing = new Map<VmId, Promise<void>>();
  /** What still has to be written when a lock is released late. */
  const releases = new Map<VmId, { epoch: Epoch; protection: JsonValue | undefined }>();
  /** Locks to be adopted as soon as the directory knows the VM. */
  const adoptions = new Map<VmId, Epoch>();
  /** VMs whose record in the directory names this host their holder. */
  const ours = new Set<VmId>();
  let timer: Timer | null = null;
  let yieldHere: (vm: VmId) => Promise<void> = async () => {};

  function noticeHolder(record: ObjectRecord, previous: ObjectRecord | null): void {
    if (record.kind === 'namespace' && record.lock.holder === self) ours.add(record.vm);
    // Disks, and what is left of them, say nothing about the lock.
    else if (record.kind === 'namespace' || previous?.kind === 'namespace') ours.delete(record.vm);
  }

  for (const record of directory.namespaces()) noticeHolder(record, null);
  directory.onChange((record, previous) => {
    noticeHolder(record, previous);
    noticeEnd(record, previous);
    if (record.kind === 'namespace' && holder.heldEpoch(record.vm) === record.lock.epoch) {
      holder.reseat(record.vm, votingOf(record));
    }
    const epoch = adoptions.get(record.vm);
    if (epoch !== undefined) adopt(record.vm, epoch);
  });

  /** What is committed says that a lock is over: no voter needs to be asked, which a host without a store could not. */
  function noticeEnd(record: ObjectRecord, previous: ObjectRecord | null): void {
    const epoch = holder.heldEpoch(record.vm);
    if (epoch === null) return;
    const isOver =
      record.kind === 'namespace' ? record.lock.epoch > epoch : previous?.kind === 'namespace';
    if (isOver) holder.lost(record.vm, epoch);
  }

  function adopt(vm: VmId, epoch: Epoch): void {
    const record = directory.namespace(vm);
    if (record === null) {
      adoptions.set(vm, epoch);
      return;
    }
    adoptions.delete(vm);
    hold(record, epoch);
    noticeEnd(record, null);
  }

  function hold(record: NamespaceRecord, epoch: Epoch): void {
    // The release of an earlier lock may still be due: it is void now, and must not end this one.
    releases.delete(record.vm);
    holder.hold(record.vm, record.id, epoch, votingOf(record));
  }

  peer.on('lease.status', (_from, body, _payload, reply) => {
    const { object } = body as { object: NamespaceRecord['id'] };
    const record = options.accepted(object);
    if (record?.kind !== 'namespace') {
      reply.fail(new HoldfastError('not-a-voter', `${self} has no record of object ${object}`));
      return;
    }
    const answer: StatusAnswer = {
      holder: record.lock.holder,
      epoch: record.lock.epoch,
      ...(record.lock.use === undefined ? {} : { use: record.lock.use }),
      remainingMs: Math.ceil(voter.remainingMs(record)),
      revision: record.revision,
      voting: votingOf(record),
      isProtected: isProtected(record),
    };
    reply.ok(answer as unknown as JsonValue);
  });

  function known(vm: VmId): NamespaceRecord {
    const record = directory.namespace(vm);
    if (record === null) throw new HoldfastError('unknown-vm', `VM ${vm} is not known on ${self}`);
    return record;
  }

  /** What those that answer have accepted. */
  function statusAnswers(
    object: ObjectId,
    voters: readonly Voter[],
  ): Promise<Map<Voter, StatusAnswer>> {
    return new Promise((resolve) => {
      const found = new Map<Voter, StatusAnswer>();
      let missing = voters.length;
      for (const one of voters) {
        const { host } = one;
        peer.request(
          host,
          'lease.status',
          { object },
          noPayload,
          statusTimeoutMs,
          (error, body) => {
            missing -= 1;
            if (error === null) found.set(one, body as unknown as StatusAnswer);
            if (missing === 0) resolve(found);
          },
        );
      }
    });
  }

  function status(vm: VmId): Promise<LockStatus> {
    const record = known(vm);
    return statusOf(record, votingOf(record), record.revision);
  }

  /** The answers of those that decided on the record with the revision. A newer one may have been chosen, and then
   * others decide: without them nobody takes the lock, whatever these here say. */
  async function statusOf(
    record: NamespaceRecord,
    voting: Voting,
    revision: number,
  ): Promise<LockStatus> {
    const voters = votersOf(voting);
    const answers = await statusAnswers(record.id, voters);
    const answerOf = (voter: Voter) =>
      [...answers].find(([other]) => sameVoter(other, voter))?.[1] ?? null;
    if (!isQuorum(voting, (voter) => answerOf(voter) !== null)) {
      throw new HoldfastError(
        'inaccessible',
        `VM ${record.name}: ${answers.size} of its ${voters.length} voters answer about its lock, and that is no majority`,
      );
    }
    const newest = [...answers.values()].reduce((a, b) => (b.revision > a.revision ? b : a));
    if (newest.revision > revision && votingKey(newest.voting) !== votingKey(voting)) {
      return statusOf(record, newest.voting, newest.revision);
    }
    // A majority has to agree to a take-over; the last of the quickest majority decides when.
    const remaining = groupsOf(voting).map((group) => {
      const ofGroup = group.flatMap((voter) => answerOf(voter)?.remainingMs ?? []);
      return ofGroup.sort((a, b) => a - b)[majority(group.length) - 1] ?? 0;
    });
    return {
      holder: newest.holder,
      epoch: newest.epoch,
      isProtected: newest.isProtected,
      ...(newest.use === undefined ? {} : { use: newest.use }),
      remainingMs: Math.max(...remaining),
    };
  }

  peer.on('lock.yield', (_from, body, _payload, reply) => {
    const { vm } = body as { vm: VmId };
    const failed = (error: unknown) => reply.fail(asHoldfastError(error));
    yieldHere(vm).then(() => reply.ok(null), failed);
  });

  /** The status once who holds the lock for repair has given it up, or the lease of it is over. */
  async function statusToTake(vm: VmId): Promise<LockStatus> {
    const latestMs = clock.now() + 2 * options.timings.leaseDurationMs;
    for (;;) {
      const now = await status(vm);
      const { holder: other, use, remainingMs } = now;
      if (use !== 'repair' || other === null || other === self || remainingMs === 0) return now;
      if (clock.now() > latestMs) return now;
      // Where it does not answer its lease ends by itself.
      await peer.ask(other, 'lock.yield', { vm }, statusTimeoutMs).catch(() => undefined);
      await new Promise<void>((resolve) => clock.after(yieldPauseMs, resolve));
    }
  }

  async function lock(
    vm: VmId,
    wanted: LockOptions = {},
    change: (record: NamespaceRecord) => NamespaceRecord = assertReady,
  ): Promise<Epoch> {
    if (wanted.use !== 'repair') await yieldHere(vm);
    await releasing.get(vm);
    if (holder.isHeld(vm)) {
      throw new HoldfastError(
        'already-running',
        `${self} holds the lock of VM ${known(vm).name} already`,
      );
    }
    if (busy.has(vm)) {
      throw new HoldfastError(
        'conflict',
        `${self} is changing the lock of VM ${known(vm).name} just now`,
      );
    }
    busy.add(vm);
    let asked = false;
    try {
      // Asking first keeps a vain attempt from disturbing the register of a VM that runs.
      const before = await (wanted.use === 'repair' ? status(vm) : statusToTake(vm));
      if (before.remainingMs > 0 && before.holder !== self) throw held(known(vm), before);
      asked = true;
      const use = wanted.use === undefined ? {} : { use: wanted.use };
      const record = await records.changeNamespace(vm, (current) => {
        if (wanted.onlyIfProtected) assertProtected(current);
        const taken: NamespaceRecord = {
          ...current,
          lock: { holder: self, epoch: asEpoch(current.lock.epoch + 1), ...use },
        };
        const { set } = wanted;
        return change(
          set === undefined ? taken : withMetadata(taken, set.service, set.key, set.value),
        );
      });
      const { epoch } = record.lock;
      probe.reached({ at: 'lock.taken', vm, epoch, byHa: wanted.onlyIfProtected === true });
      await leased(record, epoch);
      log.info(`took the lock of ${record.name}`, { vm, epoch });
      return epoch;
    } catch (error) {
      // Whether or not the record names this host now, nothing of it runs here.
      if (asked) holder.drop(vm);
      throw error;
    } finally {
      busy.delete(vm);
    }
  }

  /** Resolves when the lease of a lock just taken is valid. */
  function leased(record: NamespaceRecord, epoch: Epoch): Promise<void> {
    hold(record, epoch);
    const until = clock.now() + options.timings.changeTimeoutMs;
    return new Promise((resolve, reject) => {
      const look = () => {
        if (holder.deadline(record.vm) !== null) resolve();
        else if (!holder.isHeld(record.vm)) reject(held(record, null));
        else if (clock.now() > until) {
          reject(
            new HoldfastError(
              'inaccessible',
              `VM ${record.name}: no majority of its voters confirms the lease`,
            ),
          );
        } else clock.after(10, look);
      };
      look();
    });
  }

  async function release(vm: VmId, epoch: Epoch, protection: JsonValue | undefined): Promise<void> {
    const mine = (record: ObjectRecord | null) =>
      record?.kind === 'namespace' && record.lock.holder === self && record.lock.epoch === epoch;
    await records.changeNamespace(
      vm,
      (current) => {
        if (!mine(current))
          throw new HoldfastError('fenced', `the lock of ${current.name} is not ours`);
        const free: NamespaceRecord = { ...current, lock: { holder: null, epoch } };
        return protection === undefined ? free : withProtection(free, protection);
      },
      mine,
    );
  }

  async function unlock(vm: VmId, epoch: Epoch, protection?: JsonValue): Promise<void> {
    const heldEpoch = holder.heldEpoch(vm);
    if (heldEpoch !== null && heldEpoch !== epoch) {
      // The lock has been taken again by this host meanwhile: the older one is over by that.
      releases.delete(vm);
      return;
    }
    holder.drop(vm);
    adoptions.delete(vm);
    releases.set(vm, { epoch, protection });
    if (directory.namespace(vm) === null) {
      throw new HoldfastError('inaccessible', `VM ${vm} is not known on ${self} at present`);
    }
    busy.add(vm);
    const ending = release(vm, epoch, protection);
    releasing.set(
      vm,
      ending.catch(() => undefined),
    );
    try {
      await ending;
      probe.reached({ at: 'lock.released', vm, epoch });
      const state = readProtection(protection);
      if (state !== null) {
        probe.reached({ at: 'protection.set', vm, protected: state.protected, epoch: state.epoch });
      }
      log.info(`released the lock of ${known(vm).name}`, { vm, epoch });
      settled(vm);
    } catch (error) {
      // `fenced` is our own word in a release: a register may say `conflict` for being too slow.
      if (isError(error, 'fenced') || isError(error, 'unknown-vm')) settled(vm);
      else throw error;
    } finally {
      busy.delete(vm);
      releasing.delete(vm);
    }
  }

  function settled(vm: VmId): void {
    releases.delete(vm);
    if (!holder.isHeld(vm)) holder.forget(vm);
  }

  /** Releases what names this host and is not run by it. */
  function reconcile(): void {
    timer = clock.after(reconcileIntervalMs, reconcile);
    // Of all others there is nothing to say: with 10,000 VMs they are not even looked at. Nor is what is
    // held and shall be: 156 records of each of 64 hosts, which nobody else looks at.
    const due = new Set<VmId>();
    for (const vm of ours) if (!holder.isHeld(vm) || releases.has(vm)) due.add(vm);
    for (const vm of releases.keys()) due.add(vm);
    for (const vm of holder.disowned()) due.add(vm);
    for (const vm of due) {
      const record = directory.namespace(vm);
      if (record === null) continue;
      const { lock: current } = record;
      const ours = current.holder === self && !holder.isHeld(vm) && !busy.has(vm);
      const pending = releases.get(vm);
      if (!ours && pending === undefined) {
        if (!holder.isHeld(vm) && !busy.has(vm) && current.holder !== self) holder.forget(vm);
        continue;
      }
      if (busy.has(vm)) continue;
      holder.disown(vm);
      const epoch = pending?.epoch ?? current.epoch;
      unlock(vm, epoch, pending?.protection).catch((error: unknown) => {
        log.debug(`lock of ${record.name} is not released yet: ${String(error)}`);
      });
    }
  }

  async function repairNow(vm: VmId, epoch: Epoch): Promise<void> {
    const mine = (record: ObjectRecord | null) =>
      record?.kind === 'namespace' && record.lock.holder === self && record.lock.epoch === epoch;
    let now: ObjectRecord;
    try {
      now = await records.changeNamespace(
        vm,
        (current) => {
          if (!mine(current))
            throw new HoldfastError('fenced', 'the lock has gone to somebody else');
          return current;
        },
        mine,
      );
    } catch (error) {
      if (isError(error, 'fenced') || isError(error, 'unknown-vm')) holder.lost(vm, epoch);
      else log.debug(`lock of ${vm} could not be looked at: ${String(error)}`);
      return;
    }
    if (!mine(now)) holder.lost(vm, epoch);
  }

  return {
    status,
    lock,
    unlock,
    holdNew: (record) => leased(record, record.lock.epoch),
    adopt,
    onYield(yielded) {
      yieldHere = yielded;
    },
    repair(vm, epoch) {
      if (repairing.has(vm)) return;
      repairing.add(vm);
      void repairNow(vm, epoch).finally(() => repairing.delete(vm));
    },
    busy(vm, isBusy) {
      if (isBusy) busy.add(vm);
      else busy.delete(vm);
    },
    start: reconcile,
    stop: () => timer?.cancel(),
  };
}

function withProtection(record: NamespaceRecord, protection: JsonValue): NamespaceRecord {
  return withMetadata(record, haService, protectionKey, protection);
}

function withMetadata(
  record: NamespaceRecord,
  service: string,
  key: string,
  value: JsonValue,
): NamespaceRecord {
  const entries = { ...record.metadata[service], [key]: value };
  return { ...record, metadata: { ...record.metadata, [service]: entries } };
}

/** The register decides, not the directory: that may not know yet that the VM is complete. */
function assertReady(record: NamespaceRecord): NamespaceRecord {
  if (record.lifecycle === 'ready') return record;
  throw new HoldfastError('conflict', `VM ${record.name} is ${record.lifecycle}`);
}

function assertProtected(record: NamespaceRecord): void {
  if (!isProtected(record)) {
    throw new HoldfastError('not-protected', `VM ${record.name} is not protected any more`);
  }
}

function isProtected(record: NamespaceRecord): boolean {
  return readProtection(record.metadata[haService]?.[protectionKey])?.protected === true;
}

function held(record: NamespaceRecord, status: LockStatus | null): HoldfastError {
  const who = status?.holder ?? 'another host';
  const time = status === null ? '' : `, for another ${Math.ceil(status.remainingMs)} ms at least`;
  return new HoldfastError('lock-held', `VM ${record.name}: its lock is held by ${who}${time}`);
}
