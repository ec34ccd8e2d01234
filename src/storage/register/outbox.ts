// What a proposer has to say to one voter in one turn goes in one message: changes of many records,
// answered together, and the news of what is chosen. A message more costs as much as several changes.

import { asHoldfastError, type HoldfastError } from '../../model/errors.ts';
import type { HostId, Incarnation, ObjectId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import { sameVoter, type Voter } from '../../model/record.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import {
  type Change,
  type ChangesAnswer,
  type ChangesHead,
  encodeChanges,
} from './change-batch.ts';
import type { AcceptorAnswer, ChosenNews } from './messages.ts';

/** A change under way; the same for all its voters. */
export interface Proposal {
  readonly change: Change;
  /** Its text, made once. */
  readonly text: string;
  /** Once for each voter, which is the same as the one given, if not that very object. */
  answered(voter: Voter, error: HoldfastError | null, answer: AcceptorAnswer | null): void;
}

/** Of one message: what it writes shares one entry of the voter's journal. */
const maxChanges = 256;
const maxCharacters = 256 * 1024;

interface Lane {
  readonly voter: Voter;
  proposals: Proposal[];
  characters: number;
}

const accepted: AcceptorAnswer = { answer: 'accepted' };

export class Outbox {
  readonly #peer: Peer;
  readonly #clock: Clock;
  readonly #incarnation: Incarnation;
  readonly #timeoutMs: number;
  readonly #lanes: Lane[] = [];
  readonly #news = new Map<HostId, (ObjectId | number)[]>();
  #isScheduled = false;

  constructor(peer: Peer, clock: Clock, incarnation: Incarnation, timeoutMs: number) {
    this.#peer = peer;
    this.#clock = clock;
    this.#incarnation = incarnation;
    this.#timeoutMs = timeoutMs;
  }

  /** Sends the change to the voter soon, and passes its answer on. */
  propose(voter: Voter, proposal: Proposal): void {
    const lane = this.#laneOf(voter);
    lane.proposals.push(proposal);
    lane.characters += proposal.text.length;
    this.#schedule();
  }

  /** Tells the host soon that what was accepted in this ballot is chosen. */
  tell(host: HostId, object: ObjectId, counter: number): void {
    const news = this.#news.get(host);
    if (news === undefined) this.#news.set(host, [object, counter]);
    else news.push(object, counter);
    this.#schedule();
  }

  /** Sends all that there is, now. */
  flush(): void {
    for (const [host, chosen] of this.#news) {
      const news: ChosenNews = { incarnation: this.#incarnation, chosen };
      this.#peer.send(host, 'register.chosen', news as unknown as JsonValue);
    }
    this.#news.clear();
    const lanes = this.#lanes.splice(0);
    let last: { readonly proposals: readonly Proposal[]; readonly bytes: Uint8Array } | null = null;
    for (const { voter, proposals } of lanes) {
      // Objects of the same voters are the rule, so what one of them is sent is what all are.
      const isSame: boolean = last !== null && sameItems(last.proposals, proposals);
      const bytes: Uint8Array =
        last !== null && isSame ? last.bytes : encodeChanges(proposals.map(({ text }) => text));
      last = { proposals, bytes };
      this.#send(voter, proposals, bytes);
    }
  }

  #send(voter: Voter, proposals: readonly Proposal[], bytes: Uint8Array): void {
    const own = voter.host === this.#peer.self;
    const head: ChangesHead = own
      ? { voter, incarnation: this.#incarnation, changes: proposals.map(({ change }) => change) }
      : { voter, incarnation: this.#incarnation };
    this.#peer.request(
      voter.host,
      'register.changes',
      head as unknown as JsonValue,
      bytes,
      this.#timeoutMs,
      (error, body) => {
        const others = (body as ChangesAnswer) ?? [];
        let next = 0;
        let failure: HoldfastError | null = null;
        for (let place = 0; place < proposals.length; place += 1) {
          const other = others[next];
          const isOther = other !== undefined && other[0] === place;
          if (isOther) next += 1;
          const answer = isOther ? other[1] : accepted;
          try {
            proposals[place]?.answered(voter, error, error === null ? answer : null);
          } catch (thrown) {
            // What one of them breaks must not keep the others from their answers.
            failure ??= asHoldfastError(thrown, 'internal');
          }
        }
        if (failure !== null) throw failure;
      },
    );
  }

  #laneOf(voter: Voter): Lane {
    for (const lane of this.#lanes) {
      const hasRoom = lane.proposals.length < maxChanges && lane.characters < maxCharacters;
      if (hasRoom && sameVoter(lane.voter, voter)) return lane;
    }
    const lane = { voter, proposals: [], characters: 0 };
    this.#lanes.push(lane);
    return lane;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#clock.defer(() => {
      this.#isScheduled = false;
      this.flush();
    });
  }
}

function sameItems<Item>(a: readonly Item[], b: readonly Item[]): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index += 1) if (a[index] !== b[index]) return false;
  return true;
}
