// What counts as committed is with a majority of the record's voters, durably, and no voter goes back
// behind what it has said. A voter is host, store and joining number: a host with another store is
// another voter, so what went with a replaced disk is a lost voter, and no lie.

import { type Ballot, compareBallots, formatBallot } from '../../model/ballot.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import {
  groupsOf,
  majority,
  type ObjectRecord,
  sameVoter,
  sameVoters,
  type Voter,
  type Voting,
  votersOf,
  votingOf,
} from '../../model/record.ts';
import type { Report } from './violation.ts';

interface Ballots {
  /** The highest ballot that each voter has said to have accepted, also those that have left: who stood still may
   * tell of what they have chosen. */
  readonly highest: Map<string, Ballot>;
  /** Who accepted what, in ballots above the newest that is committed. */
  readonly open: Map<
    string,
    { readonly ballot: Ballot; readonly revision: number; voters: string[] }
  >;
  newest: { readonly ballot: Ballot; readonly voting: Voting } | null;
  /** Hosts that have been voters. */
  readonly former: Set<HostId>;
}

export class Votes {
  readonly #report: Report;
  readonly #objects = new Map<ObjectId, Ballots>();

  constructor(report: Report) {
    this.#report = report;
  }

  accepted(voter: Voter, object: ObjectId, ballot: Ballot, record: ObjectRecord): void {
    const ballots = this.#ballots(object);
    const text = formatBallot(ballot);
    const { host } = voter;
    if (!votersOf(record).some((one) => sameVoter(one, voter))) {
      // One that leaves takes the record that it is no voter of any more.
      if (ballots.former.has(host)) return;
      this.#say(object, `${host} accepted ballot ${text} and is no voter of that record`);
      return;
    }
    const name = nameOf(voter);
    const before = ballots.highest.get(name) ?? null;
    if (compareBallots(ballot, before) < 0) {
      this.#say(object, `${host} accepted ballot ${text} after ${formatBallot(before)}`);
      return;
    }
    ballots.highest.set(name, ballot);
    if (compareBallots(ballot, ballots.newest?.ballot ?? null) <= 0) return;
    const open = ballots.open.get(text);
    if (open === undefined) {
      ballots.open.set(text, { ballot, revision: record.revision, voters: [name] });
      return;
    }
    if (open.revision !== record.revision) {
      const both = `${open.revision} and ${record.revision}`;
      this.#say(object, `ballot ${text} carries two records, of revisions ${both}`);
    }
    if (!open.voters.includes(name)) open.voters.push(name);
  }

  committed(object: ObjectId, ballot: Ballot, record: ObjectRecord): void {
    const ballots = this.#ballots(object);
    const { newest } = ballots;
    const isNewest = compareBallots(ballot, newest?.ballot ?? null) > 0;
    for (const group of groupsOf(record)) {
      this.#checkMajority(object, ballots, ballot, group, isNewest);
    }
    if (!isNewest) return;
    // In one jump from some voters to others nobody would notice what the first have committed.
    if (newest !== null && !isOneStep(newest.voting, record)) {
      this.#say(object, `ballot ${formatBallot(ballot)} changes the voters in one jump`);
    }
    ballots.newest = { ballot, voting: votingOf(record) };
    for (const voter of votersOf(record)) ballots.former.add(voter.host);
    for (const [text, open] of ballots.open) {
      if (compareBallots(open.ballot, ballot) <= 0) ballots.open.delete(text);
    }
  }

  #checkMajority(
    object: ObjectId,
    ballots: Ballots,
    ballot: Ballot,
    voters: readonly Voter[],
    isNewest: boolean,
  ): void {
    const names = voters.map(nameOf);
    // Of a ballot that is history by now only what its voters have accepted since is known.
    const took = isNewest
      ? (ballots.open.get(formatBallot(ballot))?.voters ?? [])
      : names.filter((name) => compareBallots(ballots.highest.get(name) ?? null, ballot) >= 0);
    const count = names.filter((name) => took.includes(name)).length;
    if (count >= majority(voters.length)) return;
    this.#say(
      object,
      `ballot ${formatBallot(ballot)} counts as committed with ${count} of ${voters.length} voters (${names.join(', ')})`,
    );
  }

  #ballots(object: ObjectId): Ballots {
    let ballots = this.#objects.get(object);
    if (ballots === undefined) {
      ballots = { highest: new Map(), open: new Map(), newest: null, former: new Set() };
      this.#objects.set(object, ballots);
    }
    return ballots;
  }

  #say(object: ObjectId, text: string): void {
    this.#report('commit-has-majority', `object ${object}: ${text}`);
  }
}

function nameOf(voter: Voter): string {
  return `${voter.host}/${voter.store}/${voter.joined}`;
}

/** The same group of voters is in both. */
function isOneStep(from: Voting, to: Voting): boolean {
  return groupsOf(from).some((a) => groupsOf(to).some((b) => sameVoters(a, b)));
}
