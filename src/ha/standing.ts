// What this host is in the election at the moment, and whom it follows: carries out what `decide`
// decides, and tells its owner when it becomes or ceases to be master.

import { type HostId, type Term, term } from '../model/ids.ts';
import type { Log } from '../ports/log.ts';
import { type Claim, decide } from './election.ts';
import type { HostStates } from './host-states.ts';
import { haLimits } from './limits.ts';
import type { Membership } from './membership.ts';
import type { HostKind, Role } from './messages.ts';
import { claimOf } from './observer.ts';

interface StandingOptions {
  readonly self: HostId;
  readonly kind: HostKind;
  readonly membership: Membership;
  readonly states: HostStates;
  readonly log: Log;
  /** Storage hosts that this one reaches, itself included. */
  readonly reachable: () => number;
  readonly onElected: (why: string) => void;
  readonly onAbdicated: (why: string) => void;
  /** The others should hear of it soon. */
  readonly onChange: () => void;
}

export class Standing {
  readonly #options: StandingOptions;
  #role: Role = 'election';
  #following: HostId | null = null;
  #term: Term = term(0);
  #electionSinceMs = 0;
  #electionWaitMs = 0;

  constructor(options: StandingOptions) {
    this.#options = options;
  }

  get role(): Role {
    return this.#role;
  }

  get term(): Term {
    return this.#term;
  }

  master(): HostId | null {
    return this.#role === 'master' ? this.#options.self : this.#following;
  }

  claim(): Claim {
    const { self, kind, reachable } = this.#options;
    return { host: self, kind, role: this.#role, term: this.#term, reachable: reachable() };
  }

  start(nowMs: number, waitMs: number): void {
    this.#electionSinceMs = nowMs;
    this.#electionWaitMs = waitMs;
    this.#options.states.set(this.#options.self, 'election', 'started');
  }

  stop(): void {
    this.#role = 'election';
    this.#following = null;
  }

  /** Whatever it was, it listens again. */
  restart(nowMs: number, why: string): void {
    if (this.#role === 'master') this.#options.onAbdicated(why);
    this.#enterElection(nowMs, why);
  }

  elect(nowMs: number): void {
    const { self, membership, states } = this.#options;
    if (this.#isSettled()) return this.#stay();
    const decision = decide({
      self: this.claim(),
      following: this.#following,
      inElectionMs: nowMs - this.#electionSinceMs + 0.01, // rounding of times
      waitMs: this.#electionWaitMs,
      linked: membership.linked().flatMap((member) => claimOf(member)),
      others: membership.count,
    });
    switch (decision.kind) {
      case 'stay':
        return this.#stay();
      case 'elect':
        return this.#enterElection(nowMs, decision.why);
      case 'follow':
        if (this.#role === 'master') this.#options.onAbdicated(decision.why);
        this.#become('agent', decision.master, decision.why);
        this.#adoptTerm(decision.master);
        states.set(self, 'connectedToMaster', `${decision.master}: ${decision.why}`);
        return;
      case 'stand':
        this.#term = decision.term;
        this.#become('master', null, decision.why);
        states.set(self, 'master', `term ${decision.term}: ${decision.why}`);
        this.#options.onElected(decision.why);
    }
  }

  /** Whether `decide` can only say `stay`: it follows a master that is heard, or is master and hears no
   * other. That is nearly always so, and told without putting the view of all hosts together. */
  #isSettled(): boolean {
    const { membership } = this.#options;
    if (this.#role === 'election') return false;
    if (this.#role === 'agent') {
      const master = this.#following === null ? undefined : membership.member(this.#following);
      return master?.condition === 'linked' && master.beat?.role === 'master';
    }
    for (const { condition, beat } of membership.members()) {
      if (condition === 'linked' && beat?.role === 'master') return false;
    }
    return true;
  }

  #stay(): void {
    if (this.#following !== null) this.#adoptTerm(this.#following);
  }

  /** When it may stand; never by time alone once that is over. */
  nextWakeMs(nowMs: number): number {
    const standsAtMs = this.#electionSinceMs + this.#electionWaitMs;
    return this.#role === 'election' && standsAtMs > nowMs ? standsAtMs : Number.POSITIVE_INFINITY;
  }

  #enterElection(nowMs: number, why: string): void {
    this.#electionSinceMs = nowMs;
    this.#electionWaitMs = haLimits.electionWaitMs;
    this.#become('election', null, why);
    this.#options.states.set(this.#options.self, 'election', why);
  }

  #become(role: Role, following: HostId | null, why: string): void {
    const { self, log, onChange } = this.#options;
    this.#role = role;
    this.#following = following;
    log.debug(`${role} of ${following ?? self}: ${why}`, { term: this.#term });
    onChange();
  }

  #adoptTerm(master: HostId): void {
    this.#term = this.#options.membership.member(master)?.beat?.term ?? this.#term;
  }
}
