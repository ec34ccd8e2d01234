// The registers of one host: its acceptor, its proposer and its finisher behind one face, joined to
// the other hosts by the messages `register.*`. What the protocol is, and why it is safe, stands in
// docs/protocols/register.md.

import { type Ballot, compareBallots } from '../../model/ballot.ts';
import { HoldfastError } from '../../model/errors.ts';
import type { HostId, ObjectId, StoreId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Timings } from '../../model/limits.ts';
import { type ObjectRecord, votersOf } from '../../model/record.ts';
import type { Peer, Reply } from '../../peer/peer.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Random } from '../../ports/random.ts';
import type { Journal } from '../journal/journal.ts';
import { type AcceptedState, type Answer, createAcceptor } from './acceptor.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Admission } from './admission.ts';
import { type ChangesHead, decodeChanges } from './change-batch.ts';
import { createFinisher, type Finisher } from './finisher.ts';
import type { AcceptRequest, ChosenNews, LearnRequest, PrepareRequest } from './messages.ts';
import type { ChangeOptions, Decide, Outcome, Target } from './outcome.ts';
import { createProposer } from './proposer.ts';

export interface Registers {
  /** Identity of this host's store; null where it is damaged. */
  readonly store: StoreId | null;
  /** Why this host votes on nothing, or null. */
  readonly failure: HoldfastError | null;
  /** Registers with a state here, and those of them that are not known to be committed. */
  readonly count: number;
  readonly openCount: number;
  /** See `Proposer.change`. */
  change(
    target: Target,
    decide: Decide,
    options: ChangeOptions,
    done: (outcome: Outcome) => void,
  ): void;
  /** `change` for code that awaits. */
  changed(target: Target, decide: Decide, options?: ChangeOptions): Promise<Outcome>;
  /** A linearizable read: the record as it was at some time during the call; null where nothing was
   * ever committed. */
  read(
    target: Target,
    done: (error: HoldfastError | null, record: ObjectRecord | null, ballot: Ballot | null) => void,
  ): void;
  /** What this voter itself has accepted. */
  accepted(object: ObjectId): AcceptedState | null;
  all(): IterableIterator<[ObjectId, AcceptorState]>;
  /** The accepted records that this voter knows to be committed: they seed the directory at start. */
  committed(): AcceptedState[];
  /** Gives this host's own voter, if it is one, a record that is known to be committed: the directory
   * has it. */
  learn(record: ObjectRecord, ballot: Ballot): void;
  /** Drops the register of a tombstone that all hosts have seen. */
  forget(object: ObjectId, done: (error: HoldfastError | null) => void): void;
  /** Begins to finish what others left half-way; answers and changes need no start. */
  start(): void;
  stop(): void;
}

/**
 * `journal` is the opened store or the reason why it could not be opened: then this host votes on
 * nothing (`notVoter`) and, as it has no durable incarnation to make ballots of, proposes nothing.
 */
export function createRegisters(options: {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly probe: Probe;
  readonly journal: Journal | HoldfastError;
  readonly admission: Admission;
  readonly timings: Timings;
  /** A record is committed; it may be told more than once, and not in order: the higher ballot wins.
   * `told`: hosts whose voters have it, and hear the same. */
  readonly onCommitted: (record: ObjectRecord, ballot: Ballot, told: readonly HostId[]) => void;
  /** This voter was told that a record is committed; others are told in the same way. */
  readonly onLearned: (record: ObjectRecord, ballot: Ballot) => void;
  /** The host says that something newer of these objects is committed than this voter has. */
  readonly onMissed: (host: HostId, objects: readonly ObjectId[]) => void;
}): Registers {
  const { peer, clock, random, probe, journal, admission, timings, onCommitted, onLearned } =
    options;
  const log = options.log.child('register');
  const incarnation =
    journal instanceof HoldfastError ? journal : journal.superblock.state.incarnation;
  const proposer = createProposer({
    peer,
    clock,
    random,
    probe,
    timings,
    incarnation,
    onCommitted,
  });

  // What the journal replays is open from the start, before there is a finisher to be told.
  const early: ObjectId[] = [];
  let finisher: Finisher | null = null;
  const acceptor = createAcceptor({
    self: peer.self,
    journal,
    admission,
    log,
    probe,
    onOpen(object, open) {
      if (finisher !== null) finisher.noticed(object, open);
      else if (open) early.push(object);
    },
  });
  finisher = createFinisher({
    clock,
    random,
    log,
    timings,
    proposer,
    state: (object) => acceptor.state(object),
  });
  for (const object of early) finisher.noticed(object, true);
  for (const [, { promised, accepted }] of acceptor.all()) {
    proposer.saw(promised);
    proposer.saw(accepted?.ballot ?? null);
  }

  const answerTo =
    (reply: Reply): Answer =>
    (error, answer) => {
      if (error !== null) reply.fail(error);
      else reply.ok(answer as unknown as JsonValue);
    };
  peer.on('register.prepare', (from, body, _payload, reply) =>
    acceptor.prepare(from, body as unknown as PrepareRequest, answerTo(reply)),
  );
  peer.on('register.accept', (from, body, _payload, reply) =>
    acceptor.accept(from, body as unknown as AcceptRequest, answerTo(reply)),
  );
  peer.on('register.changes', (from, body, payload, reply) => {
    const head = body as unknown as ChangesHead;
    const changes = head.changes ?? decodeChanges(payload, from, head.incarnation);
    try {
      acceptor.acceptChanges(from, head, changes, payload, (error, answer) => {
        if (error !== null) reply.fail(error);
        else reply.ok(answer as unknown as JsonValue);
      });
    } catch (error) {
      // Some of them may have been accepted: no refusal, after which none would be.
      log.error(`changes from ${from} failed: ${String(error)}`);
      reply.fail(new HoldfastError('internal', `changes failed on ${peer.self}: ${String(error)}`));
    }
  });
  peer.on('register.learn', (_from, body, _payload, reply) =>
    acceptor.learn(body as unknown as LearnRequest, answerTo(reply)),
  );
  peer.on('register.chosen', (from, body) => {
    const { incarnation: of, chosen } = body as unknown as ChosenNews;
    const missed: ObjectId[] = [];
    for (let at = 0; at < chosen.length; at += 2) {
      const object = chosen[at] as ObjectId;
      const ballot = { counter: chosen[at + 1] as number, host: from, incarnation: of };
      const record = acceptor.chosen(object, ballot);
      if (record === null) missed.push(object);
      else if (record !== 'newer') onLearned(record, ballot);
    }
    if (missed.length > 0) options.onMissed(from, missed);
  });
  peer.onSession((host: HostId, up: boolean) => {
    if (!up) finisher.lost(host);
  });

  const registers: Registers = {
    get store() {
      return acceptor.store;
    },
    get failure() {
      return acceptor.failure;
    },
    get count() {
      return acceptor.count;
    },
    get openCount() {
      return finisher.openCount;
    },
    change: (target, decide, how, done) => proposer.change(target, decide, how, done),
    changed: (target, decide, how = {}) =>
      new Promise((resolve) => proposer.change(target, decide, how, resolve)),
    read(target, done) {
      const keep = new HoldfastError('conflict', 'only reading');
      proposer.change(
        target,
        () => ({ refuse: keep }),
        {},
        (outcome) => {
          if (outcome.status === 'failed') done(outcome.error, null, null);
          else done(null, outcome.record, outcome.ballot);
        },
      );
    },
    accepted: (object) => acceptor.accepted(object),
    all: () => acceptor.all(),
    committed: () =>
      [...acceptor.all()].flatMap(([object, { committed }]) => {
        const accepted = committed ? acceptor.accepted(object) : null;
        return accepted === null ? [] : [accepted];
      }),
    learn(record, ballot) {
      // Most that is heard of is what this voter has said itself.
      const known = acceptor.state(record.id);
      if (known?.committed && compareBallots(ballot, known.accepted?.ballot ?? null) === 0) return;
      // Also one that has left: it is to send on who still asks it.
      const own = votersOf(record).find(({ host }) => host === peer.self);
      const voter = own ?? known?.voter;
      if (voter === undefined) return;
      acceptor.learn({ object: record.id, voter, ballot, record, history: [] }, (error) => {
        if (error !== null) log.debug(`${record.id} was learned and not saved: ${error.message}`);
      });
    },
    forget: (object, done) => acceptor.forget(object, done),
    start: () => finisher.start(),
    stop() {
      finisher.stop();
      proposer.stop();
    },
  };
  return registers;
}
