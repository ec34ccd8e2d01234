// Replacing voters of one object: the two steps of docs/protocols/register.md, "Changing the voters",
// under the rules that keep the lease of its VM's holder true. Each step is one change of the record;
// who is interrupted in between, or somebody else, goes on with what the record says.

import { HoldfastError } from '../../model/errors.ts';
import type { HostId } from '../../model/ids.ts';
import type { ObjectRecord, Voter } from '../../model/record.ts';
import { nextJoined, votingOf } from '../../model/record.ts';
import type { Probe } from '../../ports/probe.ts';
import type { LeaseHolder } from '../lease/holder.ts';
import type { Records } from '../records.ts';

export interface VoterChange {
  /** Puts `next` beside the voters of the record. Rejects with `conflict` if it is not as expected. */
  begin(record: ObjectRecord, next: readonly Voter[]): Promise<void>;
  /** Makes `nextVoters` the voters; false if the lease does not allow it yet. */
  end(record: ObjectRecord): Promise<boolean>;
}

export function createVoterChange(options: {
  readonly self: HostId;
  readonly records: Records;
  readonly holder: LeaseHolder;
  readonly probe: Probe;
}): VoterChange {
  const { self, records, holder, probe } = options;

  /** As long as a lock is held its holder alone changes the voters: it has to know them. */
  function assertMine(current: ObjectRecord): void {
    if (current.kind !== 'namespace') return;
    const { holder: other } = current.lock;
    if (other === null || other === self) return;
    throw new HoldfastError('lock-held', `${other} holds the lock of VM ${current.name}`);
  }

  return {
    async begin(record, next) {
      await records.changeVoting(record.id, (current) => {
        assertMine(current);
        if (current.nextVoters !== undefined || current.revision !== record.revision) {
          throw new HoldfastError('conflict', `${record.id} was changed meanwhile`);
        }
        return { voters: current.voters, nextVoters: next };
      });
      probe.reached({ at: 'voters.joint', object: record.id });
    },
    async end(record) {
      const isHeld = record.kind === 'namespace' && holder.isHeld(record.vm);
      // The new voters have to protect what the guest was promised before they decide alone.
      if (isHeld && !holder.isSettled(record.vm, votingOf(record))) return false;
      await records.changeVoting(record.id, (current) => {
        assertMine(current);
        const { nextVoters } = current;
        return nextVoters === undefined ? null : { voters: nextVoters };
      });
      probe.reached({ at: 'voters.changed', object: record.id });
      return true;
    },
  };
}

/** The voters of the record with `leaving` replaced by a new one. */
export function withReplaced(
  record: ObjectRecord,
  leaving: Voter,
  added: Pick<Voter, 'host' | 'store'>,
): Voter[] {
  const joined = nextJoined(record);
  return record.voters.map((voter) => (voter === leaving ? { ...added, joined } : voter));
}
