// Is every record's history that of one copy of it, changed and read by one host after the other?
//
// To search for an order of the operations (Wing and Gong) takes exponential time. This object gives
// its order away: every write adds 1 to the revision, and names the record that it was made from. So
// the history is linearizable if, and as far as contents are known only if,
// 1. each revision has one content, and the write of n+1 was made from the content of n: a chain;
//    Only one write is made from nothing, and it begins the chain, at 0 or 1;
// 2. each step of the chain was made by one call, which had proposed it before anybody saw it;
// 3. a call sees no revision older than what had been committed or answered when it was invoked.
// Proof: put the calls in the order of what they saw, the writer of a revision before its readers,
// readers as they were invoked. By 1 and 2 each finds what its answer says. Let `a` have returned
// before `b` was invoked; by 3 `b` read at least what `a` saw, and a writer has read less than it
// wrote: so `b` stands after `a`, and the order respects time. A call that failed stands nowhere, so
// no step may be its own; one that is unknown, or whose host died, stands at its step if it has one.
//
// Rule 3 takes the time of the commit where it is earlier than the answer. That is more than
// linearizability asks: it says that a committed record survives also if its writer dies.

import type { Ballot } from '../../model/ballot.ts';
import { compareBallots, formatBallot } from '../../model/ballot.ts';
import type { HostId, ObjectId } from '../../model/ids.ts';
import type { ObjectRecord } from '../../model/record.ts';
import type { Point } from '../../ports/probe.ts';
import { contentHash } from './content-hash.ts';
import type { Report } from './violation.ts';

/** Steps of a chain that are kept. A call that ends may look back further only if its host stood still
 * for longer than all these changes took; then only its time is checked. */
const keptSteps = 32;

/** What a call sees where nothing was ever written. */
const nothing = -1;

type Returned = Extract<Point, { at: 'register.returned' }>;

interface Call {
  readonly name: string;
  readonly number: number;
  /** The least revision that it may see. */
  readonly floor: number;
  readonly proposed: Set<Content>;
}

/** A record that somebody has proposed: one revision may have several until one of them is chosen. */
interface Content {
  readonly revision: number;
  readonly hash: number;
  /** Calls that may have written it: who proposed it and has not said yet that it was another's. */
  readonly candidates: Set<Call>;
  writer: Call | null;
}

interface Register {
  /** The newest revision that was committed or answered. */
  seen: number;
  /** The revision that was made from nothing; null while that is not known. */
  first: number | null;
  newest: { readonly ballot: Ballot; readonly revision: number } | null;
  /** The chain, as far as it is known. */
  readonly chain: Map<number, Content>;
  /** All that were proposed, by revision. */
  readonly contents: Map<number, Content[]>;
}

export class Registers {
  readonly #report: Report;
  readonly #registers = new Map<ObjectId, Register>();
  /** The call of each host and object that has begun and not ended; a host has one per object. */
  readonly #open = new Map<HostId, Map<ObjectId, Call>>();
  readonly #lastCalls = new Map<HostId, number>();

  constructor(report: Report) {
    this.#report = report;
  }

  invoked(host: HostId, object: ObjectId, number: number): void {
    // Numbers only grow within a run of a daemon. What its last run left open ends nowhere.
    if (number <= (this.#lastCalls.get(host) ?? 0)) this.#open.delete(host);
    this.#lastCalls.set(host, number);
    let calls = this.#open.get(host);
    if (calls === undefined) this.#open.set(host, (calls = new Map()));
    const floor = this.#register(object).seen;
    calls.set(object, { name: `call ${number} of ${host}`, number, floor, proposed: new Set() });
  }

  accepting(host: HostId, object: ObjectId, record: ObjectRecord): void {
    const register = this.#register(object);
    // What is there already, or comes too late ever to be.
    if (record.revision <= register.seen) return;
    const content = this.#content(register, record);
    const call = this.#open.get(host)?.get(object);
    if (call === undefined) {
      this.#say(object, `${host} proposed revision ${record.revision} outside of all calls`);
      return;
    }
    content.candidates.add(call);
    call.proposed.add(content);
  }

  committed(object: ObjectId, ballot: Ballot, record: ObjectRecord): void {
    const register = this.#register(object);
    const { revision } = record;
    const { newest } = register;
    this.#fix(object, register, record, `committed in ballot ${formatBallot(ballot)}`);
    const order = newest === null ? 1 : compareBallots(ballot, newest.ballot);
    if (newest !== null && (revision - newest.revision) * order < 0) {
      const later = order > 0 ? [revision, newest.revision] : [newest.revision, revision];
      this.#say(object, `revision ${later[0]} was committed in a later ballot than ${later[1]}`);
    }
    if (order > 0) register.newest = { ballot, revision };
    this.#saw(object, register, revision);
  }

  returned(host: HostId, { object, call: number, outcome, record, read }: Returned): void {
    const register = this.#register(object);
    const open = this.#open.get(host)?.get(object);
    const call = open?.number === number ? open : null;
    if (call === null) {
      this.#say(object, `call ${number} of ${host} ended without having begun`);
      return;
    }
    this.#open.get(host)?.delete(object);
    if (outcome === 'unknown') return;
    if (outcome === 'failed') return this.#wroteOnly(object, register, call, null);
    this.#checkRead(object, register, call, read);
    if (record === null || record.revision === read?.revision) {
      if (record !== null) this.#fix(object, register, record, `kept by ${call.name}`);
      return this.#wroteOnly(object, register, call, null);
    }
    const content = this.#fix(object, register, record, `written by ${call.name}`);
    this.#checkStep(object, register, record.revision, read, call);
    if (content !== null) this.#claim(object, content, call);
    this.#wroteOnly(object, register, call, content);
    this.#saw(object, register, record.revision);
  }

  #checkStep(
    object: ObjectId,
    register: Register,
    revision: number,
    read: ObjectRecord | null,
    call: Call,
  ): void {
    if (read !== null && revision === read.revision + 1) return;
    if (read === null && revision <= 1 && (register.first ?? revision) === revision) {
      register.first = revision;
      return;
    }
    const first = register.first === null ? '' : `, and so was ${register.first}`;
    const from = read === null ? `nothing${first}` : `revision ${read.revision}`;
    this.#say(object, `${call.name} made revision ${revision} from ${from}`);
  }

  #checkRead(object: ObjectId, register: Register, call: Call, read: ObjectRecord | null): void {
    const revision = read?.revision ?? nothing;
    if (revision < call.floor) {
      const what = read === null ? 'nothing' : `revision ${revision}`;
      this.#say(object, `${call.name} read ${what}; before it began there was ${call.floor}`);
    }
    if (read !== null) this.#fix(object, register, read, `read by ${call.name}`);
    this.#saw(object, register, revision);
  }

  /** Somebody saw this record as the register's content. */
  #fix(object: ObjectId, register: Register, record: ObjectRecord, how: string): Content | null {
    const { revision } = record;
    if (revision <= register.seen - keptSteps) return null;
    const known = register.chain.get(revision);
    const hash = contentHash(record);
    if (known !== undefined) {
      if (known.hash === hash) return known;
      this.#say(object, `revision ${revision} has two contents; the second was ${how}`);
      return null;
    }
    const content = register.contents.get(revision)?.find((one) => one.hash === hash);
    if (content === undefined) {
      this.#say(object, `revision ${revision}, ${how}, was proposed by nobody`);
      return null;
    }
    register.chain.set(revision, content);
    this.#checkWriters(object, content);
    return content;
  }

  #claim(object: ObjectId, content: Content, call: Call): void {
    const { writer, revision } = content;
    if (writer !== null) {
      this.#say(object, `revision ${revision} was written by ${writer.name} and by ${call.name}`);
    }
    content.writer = call;
  }

  /** The call has said that of all that it proposed only this, if anything, was its own. */
  #wroteOnly(object: ObjectId, register: Register, call: Call, own: Content | null): void {
    for (const content of call.proposed) {
      if (content === own) continue;
      content.candidates.delete(call);
      const { revision } = content;
      if (register.chain.get(revision) === content) this.#checkWriters(object, content);
      else if (revision < register.seen) this.#checkGap(object, register, revision);
    }
  }

  #checkWriters(object: ObjectId, content: Content): void {
    if (content.writer !== null || content.candidates.size > 0) return;
    this.#say(
      object,
      `revision ${content.revision} was written by nobody but calls that failed or wrote nothing`,
    );
  }

  /** A step whose content nobody has told: at least somebody may have made it. */
  #checkGap(object: ObjectId, register: Register, revision: number): void {
    if (register.chain.has(revision)) return;
    const contents = register.contents.get(revision) ?? [];
    if (contents.some((one) => one.writer !== null || one.candidates.size > 0)) return;
    this.#say(object, `revision ${revision} is passed, and nobody can have written it`);
  }

  #saw(object: ObjectId, register: Register, revision: number): void {
    if (revision <= register.seen) return;
    // A chain begins at 0 or 1.
    const next = Math.max(1, register.seen + 1);
    for (let gap = next; gap < revision; gap += 1) this.#checkGap(object, register, gap);
    const from = Math.max(0, register.seen - keptSteps);
    register.seen = revision;
    for (let old = from; old <= revision - keptSteps; old += 1) {
      register.chain.delete(old);
      register.contents.delete(old);
    }
  }

  #content(register: Register, record: ObjectRecord): Content {
    const { revision } = record;
    let contents = register.contents.get(revision);
    if (contents === undefined) register.contents.set(revision, (contents = []));
    const hash = contentHash(record);
    let content = contents.find((one) => one.hash === hash);
    if (content === undefined) {
      content = { revision, hash, candidates: new Set(), writer: null };
      contents.push(content);
    }
    return content;
  }

  #register(object: ObjectId): Register {
    let register = this.#registers.get(object);
    if (register === undefined) {
      register = {
        seen: nothing,
        first: null,
        newest: null,
        chain: new Map(),
        contents: new Map(),
      };
      this.#registers.set(object, register);
    }
    return register;
  }

  #say(object: ObjectId, text: string): void {
    this.#report('linearizable-registers', `object ${object}: ${text}`);
  }
}
