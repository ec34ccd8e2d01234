import { describe, expect, it } from 'vitest';
import {
  ballot,
  h1,
  h2,
  h3,
  namespace,
  namespaceId as object,
  voter,
  voters,
} from '../../../test/support/records.ts';
import type { Ballot } from '../../model/ballot.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import { type ObjectRecord, votersOf } from '../../model/record.ts';
import { Votes } from './votes.ts';

function votes() {
  const said: string[] = [];
  const seen = new Votes((_, text) => said.push(text));
  return {
    said,
    votes: {
      /** As the voter that the record names on this host. */
      accepted(host: HostId, ...[of, at, record]: [ObjectId, Ballot, ObjectRecord]) {
        const named = votersOf(record).find((one) => one.host === host) ?? voter(host);
        seen.accepted(named, of, at, record);
      },
      committed: seen.committed.bind(seen),
    },
  };
}

describe('commit-has-majority', () => {
  const first = namespace(1);
  const second = namespace(2);

  it('is content with a majority, in the same ballot, before the commit', () => {
    const { said, votes: seen } = votes();
    seen.accepted(h1, object, ballot(1), first);
    seen.accepted(h3, object, ballot(1), first);
    seen.committed(object, ballot(1), first);
    seen.accepted(h2, object, ballot(2), second);
    seen.accepted(h2, object, ballot(2), second); // asked once more
    seen.accepted(h3, object, ballot(2), second);
    seen.committed(object, ballot(2), second);
    expect(said).toEqual([]);
  });

  it('is content with a proposer that hears late of its own success', () => {
    const { said, votes: seen } = votes();
    for (const host of [h1, h2]) seen.accepted(host, object, ballot(1), first);
    for (const host of [h2, h1]) seen.accepted(host, object, ballot(4, 'h3'), second);
    seen.committed(object, ballot(4, 'h3'), second);
    seen.committed(object, ballot(1), first);
    expect(said).toEqual([]);
  });

  it('is content with one that hears of it when those who took it have left', () => {
    const { said, votes: seen } = votes();
    const after = [voter('h3'), voter('h4'), voter('h5')];
    const { host: h4 } = voter('h4');
    for (const host of [h1, h2]) seen.accepted(host, object, ballot(1), first);
    const joint = namespace(2, { nextVoters: after });
    for (const host of [h1, h2, h3, h4]) seen.accepted(host, object, ballot(2), joint);
    seen.committed(object, ballot(2), joint);
    const last = namespace(3, { voters: after });
    for (const host of [h3, h4]) seen.accepted(host, object, ballot(3), last);
    seen.committed(object, ballot(3), last);
    seen.committed(object, ballot(1), first);
    expect(said).toEqual([]);
  });

  it('tells of a commit without a majority, and of votes for another ballot', () => {
    const { said, votes: seen } = votes();
    seen.accepted(h1, object, ballot(1), first);
    seen.accepted(h2, object, ballot(2), second);
    seen.committed(object, ballot(1), first);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain('1 of 3 voters');
  });

  it('tells of a voter that goes back behind what it said', () => {
    const { said, votes: seen } = votes();
    seen.accepted(h1, object, ballot(3), first);
    seen.accepted(h1, object, ballot(2), second);
    expect(said[0]).toContain('after 3.h1.1');
  });

  it('takes a host with another store for another voter', () => {
    const { said, votes: seen } = votes();
    seen.accepted(h1, object, ballot(3), first);
    const others = [voter('h1', 'new', 2), ...voters.slice(1)];
    seen.accepted(h1, object, ballot(2), namespace(2, { voters: others }));
    expect(said).toEqual([]);
    seen.accepted(h1, object, ballot(5), namespace(2, { voters: voters.slice(1) }));
    expect(said[0]).toContain('no voter');
  });

  it('wants voters to change by way of a record that has both groups', () => {
    const { said, votes: seen } = votes();
    const after = [voter('h3'), voter('h4'), voter('h5')];
    for (const host of [h1, h2]) seen.accepted(host, object, ballot(1), first);
    seen.committed(object, ballot(1), first);
    const joint = namespace(2, { nextVoters: after });
    for (const host of [h1, h2]) seen.accepted(host, object, ballot(2), joint);
    seen.committed(object, ballot(2), joint);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain('0 of 3 voters (h3');
    const last = namespace(3, { voters: after });
    for (const { host } of after) seen.accepted(host, object, ballot(3), last);
    // It leaves, and takes what it is no voter of any more.
    seen.accepted(h1, object, ballot(3), last);
    seen.committed(object, ballot(3), last);
    expect(said).toHaveLength(1);
    const jump = namespace(4, { voters: first.voters });
    for (const host of [h1, h2]) seen.accepted(host, object, ballot(4), jump);
    seen.committed(object, ballot(4), jump);
    expect(said[1]).toContain('in one jump');
  });

  it('tells of two records in one ballot', () => {
    const { said, votes: seen } = votes();
    seen.accepted(h1, object, ballot(1), first);
    seen.accepted(h2, object, ballot(1), second);
    expect(said[0]).toContain('two records');
  });
});
