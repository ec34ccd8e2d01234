// Which voters an object should have: 2f+1 on distinct hosts, all that hold its data among them. Those that
// it has stay as far as they can, because a voter that stays needs to learn nothing.

import type { HostId } from '../../model/ids.ts';
import { hostsNeeded, type StoragePolicy } from '../../model/policy.ts';
import type { Voter } from '../../model/record.ts';
import { type PlacementHost, placeAnother } from '../placement/placement.ts';

interface Wanted {
  readonly policy: StoragePolicy;
  readonly voters: readonly Voter[];
  /** Of those that join. */
  readonly joined: number;
  /** Where the data is. */
  readonly data: readonly Pick<Voter, 'host' | 'store'>[];
  /** Hosts of the VM's other objects: their failures are the VM's anyway. */
  readonly preferred: ReadonlySet<HostId>;
  readonly isReachable: (host: HostId) => boolean;
  readonly hosts: readonly PlacementHost[];
}

/** The voters are as many as the policy asks for, and each host with data is one. */
export function isVotedFor({ policy, voters, data }: Pick<Wanted, 'policy' | 'voters' | 'data'>) {
  return (
    voters.length === hostsNeeded(policy) &&
    data.every(({ host }) => voters.some((voter) => voter.host === host))
  );
}

/** Throws `no-capacity` where there are not enough hosts. */
export function wantedVoters(wanted: Wanted): Voter[] {
  const { policy, voters, joined, data, preferred, isReachable, hosts } = wanted;
  const count = hostsNeeded(policy);
  const isData = (host: HostId) => data.some((one) => one.host === host);
  const worth = ({ host }: Voter) =>
    4 * Number(isData(host)) + 2 * Number(isReachable(host)) + Number(preferred.has(host));
  const join = ({ host, store }: Pick<Voter, 'host' | 'store'>): Voter => {
    // As a voter it is named by its main device, whichever its data is on.
    const main = hosts.find((one) => one.host === host);
    return { host, store: main?.store ?? store, joined };
  };
  const isVoter = (host: HostId) => voters.some((voter) => voter.host === host);
  const dataHosts = data.filter(
    ({ host }, index) => data.findIndex((one) => one.host === host) === index,
  );
  const added = dataHosts.filter(({ host }) => !isVoter(host)).map(join);
  const kept = [...voters]
    .sort((a, b) => worth(b) - worth(a))
    .slice(0, Math.max(0, count - added.length));
  const chosen = [...voters.filter((voter) => kept.includes(voter)), ...added];
  while (chosen.length < count) {
    const taken = new Set(chosen.map(({ host }) => host));
    const near = hosts.filter(({ host }) => preferred.has(host) && !taken.has(host));
    chosen.push(
      join(
        near.length > 0 ? placeAnother(near, new Set(), null) : placeAnother(hosts, taken, null),
      ),
    );
  }
  return chosen;
}
