// Changing the record of an object that the directory knows: one call is one change of its register,
// or an error that says what to do. What is committed is in the directory before the call returns.

import { HoldfastError } from '../model/errors.ts';
import { type HostId, type ObjectId, revision, type VmId } from '../model/ids.ts';
import {
  type DiskRecord,
  type NamespaceRecord,
  type ObjectRecord,
  type Tombstone,
  type Voting,
  votingOf,
} from '../model/record.ts';
import type { Directory } from './directory/directory.ts';
import type { ChangeOptions, Decision, Target } from './register/outcome.ts';
import type { Registers } from './register/registers.ts';

export type Prefer = (record: ObjectRecord | null) => boolean;

export interface Records {
  /** How many times a register was read or changed so far. */
  begun(): number;
  /** Writes the first record of a new object. */
  create(record: ObjectRecord): Promise<void>;
  /** `decide` gives the new record, or the current one to keep it, or throws why not; it may be
   * called several times and must be pure. */
  changeNamespace(
    vm: VmId,
    decide: (current: NamespaceRecord) => NamespaceRecord,
    prefer?: Prefer,
  ): Promise<NamespaceRecord>;
  changeDisk(object: ObjectId, decide: (current: DiskRecord) => DiskRecord): Promise<DiskRecord>;
  /** Takes a step of a change of voters; `decide` throws why not, null: there is nothing to do. */
  changeVoting(object: ObjectId, decide: (current: ObjectRecord) => Voting | null): Promise<void>;
  /** Deletes an object, of which perhaps not even the first record was written. */
  bury(object: ObjectId, vm: VmId, voting: Voting): Promise<void>;
}

export function createRecords(options: {
  readonly registers: Registers;
  readonly directory: Directory;
  readonly self: HostId;
}): Records {
  const { registers, directory, self } = options;

  let begun = 0;

  function run(
    target: Target,
    decide: (current: ObjectRecord | null) => Decision,
    how: ChangeOptions = {},
  ): Promise<ObjectRecord> {
    begun += 1;
    return new Promise((resolve, reject) =>
      registers.change(target, decide, how, (outcome) => {
        if (outcome.status === 'committed') resolve(outcome.record);
        else reject(outcome.error);
      }),
    );
  }

  /** A change of an existing record of one kind; deciding by exception, as callers do. */
  function change<Kind extends ObjectRecord>(
    object: ObjectId,
    isKind: (record: ObjectRecord) => record is Kind,
    decide: (current: Kind) => Kind,
    prefer?: Prefer,
  ): Promise<Kind> {
    const known = directory.get(object)?.record;
    if (known === undefined) {
      const what = `Object ${object} is not known on ${self}`;
      return Promise.reject(new HoldfastError('unknown-vm', what));
    }
    begun += 1;
    return new Promise((resolve, reject) =>
      registers.change(
        { object, voting: votingOf(known) },
        (current) => {
          if (current === null || !isKind(current)) return { refuse: deleted(object) };
          return attempt(() => next(current, decide(current)));
        },
        prefer === undefined ? {} : { prefer },
        (outcome) => {
          if (outcome.status !== 'committed') reject(outcome.error);
          else if (isKind(outcome.record)) resolve(outcome.record);
          else reject(deleted(object));
        },
      ),
    );
  }

  return {
    begun: () => begun,
    async create(record) {
      await run({ object: record.id, voting: votingOf(record), create: true }, (current) =>
        current === null
          ? { write: record }
          : {
              refuse: new HoldfastError(
                'conflict',
                `Object ${record.id} was made or deleted meanwhile`,
              ),
            },
      );
    },
    changeNamespace(vm, decide, prefer) {
      const record = directory.namespace(vm);
      if (record === null) {
        return Promise.reject(new HoldfastError('unknown-vm', `VM ${vm} is not known on ${self}`));
      }
      return change(record.id, isNamespace, decide, prefer);
    },
    changeDisk: (object, decide) => change(object, isDisk, decide),
    async changeVoting(object, decide) {
      await change(object, isLive, (current) => {
        const wanted = decide(current);
        if (wanted === null) return current;
        const { nextVoters, ...voting } = wanted;
        const next = { ...current, ...voting };
        if (nextVoters !== undefined) return { ...next, nextVoters };
        delete next.nextVoters;
        return next;
      });
    },
    async bury(object, vm, voting) {
      await run({ object, voting, create: true }, (current) => {
        if (current?.kind === 'tombstone') return { write: current };
        const tombstone: Tombstone = {
          kind: 'tombstone',
          id: object,
          vm,
          revision: revision((current?.revision ?? 0) + 1),
          policy: current?.policy ?? { failuresToTolerate: 0, stripes: 1 },
          ...votingOf(current ?? voting),
        };
        return { write: tombstone };
      });
    },
  };
}

/** Keeps the very record where nothing changes, so that nothing is written for it. */
function next<Kind extends ObjectRecord>(current: Kind, wanted: Kind): Kind {
  return wanted === current ? current : { ...wanted, revision: revision(current.revision + 1) };
}

const deleted = (object: ObjectId) =>
  new HoldfastError('unknown-vm', `Object ${object} is deleted`);

function attempt(write: () => ObjectRecord): Decision {
  try {
    return { write: write() };
  } catch (error) {
    if (error instanceof HoldfastError) return { refuse: error };
    throw error;
  }
}

const isLive = (record: ObjectRecord): record is NamespaceRecord | DiskRecord =>
  record.kind !== 'tombstone';
const isNamespace = (record: ObjectRecord): record is NamespaceRecord =>
  record.kind === 'namespace';
const isDisk = (record: ObjectRecord): record is DiskRecord => record.kind === 'disk';
