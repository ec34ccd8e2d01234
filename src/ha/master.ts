// The master of a partition: it brings the monitor, the failover machine and the protector together
// and carries out what they ask for. It lives from one election to one abdication; what was under way
// is dropped with it, and answers that come later find it closed.

import { asHoldfastError, isError } from '../model/errors.ts';
import type { EventType } from '../model/events.ts';
import type { HostId, Term, VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import { noPayload } from '../peer/frame.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Random } from '../ports/random.ts';
import type { Storage } from '../storage/api.ts';
import { AgentsSight } from './agents-sight.ts';
import type { Waiting } from './api.ts';
import type { AttemptsToSave } from './attempts.ts';
import { Failover } from './failover.ts';
import type { Action, LockView, Note } from './failover-world.ts';
import { type EndHung, HungGuests } from './hung-guests.ts';
import { haLimits } from './limits.ts';
import type { Membership } from './membership.ts';
import type { EndOrder, ReachQuestion } from './messages.ts';
import { Monitor } from './monitor.ts';
import { proofOfDeath, type Sign } from './proof-of-death.ts';
import { Protector } from './protector.ts';
import type { Recoveries } from './recoveries.ts';
import type { Sight } from './sight.ts';
import type { Targets } from './targets.ts';

interface MasterOptions {
  readonly self: HostId;
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly probe: Probe;
  readonly storage: Storage;
  readonly membership: Membership;
  readonly targets: Targets;
  /** What this host sees by itself. */
  readonly own: Sight;
  readonly recoveries: Recoveries;
  readonly timings: Timings;
  /** For which it was elected. */
  readonly term: Term;
  readonly tell: (type: EventType, text: string, vm: { id: VmId; name: string }) => void;
  /** Something came in: `advance` is due soon. */
  readonly poke: () => void;
}

const eventOf: Partial<Record<Note['type'], EventType>> = {
  detected: 'failover.detected',
  waiting: 'failover.waiting',
  lockFree: 'failover.lockFree',
  accessible: 'failover.accessible',
  placed: 'failover.placed',
  started: 'failover.started',
  failed: 'failover.failed',
};

export class Master {
  readonly protector: Protector;
  readonly sight: AgentsSight;
  readonly #options: MasterOptions;
  readonly #electedAtMs: number;
  readonly #monitor: Monitor;
  readonly #failover: Failover;
  readonly #hung: HungGuests;
  /** The VMs whose protection state is to be read again; null: those of all. */
  #getDue: Set<VmId> | null = null;
  #isComparisonDue = true;
  #comparedVersion = -1;
  /** Not to be compared again before; and when it is to be, if that kept it from it. */
  #compareAtMs = 0;
  #compareDueMs = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(options: MasterOptions) {
    this.#options = options;
    const { self, storage, membership, targets, random, log, probe, clock } = options;
    this.#electedAtMs = clock.now();
    this.sight = new AgentsSight({
      ...{ self, own: options.own, storage, membership, clock, log },
      peer: options.peer,
      onNews: (vms) => this.#newsThroughAgents(vms),
    });
    const { sight } = this;
    this.#monitor = new Monitor({
      ...{ self, sight, membership },
      onAttempts: (vm, attempts) => this.#failover.attemptsRead(vm, attempts, clock.now()),
    });
    this.#failover = new Failover(
      {
        accessibility: (vms) => sight.accessibility(vms),
        lock: (vm) => this.#lock(vm),
        targets: () => targets.list(clock.now(), self),
        dataHosts: (vm) => sight.vm(vm)?.dataHosts ?? [],
        condition: (host) => this.#condition(host),
        unmet: (candidate) => this.#monitor.relations.unmet(candidate),
        crowd: ({ separate, vm }) => this.#monitor.relations.crowd(separate, vm),
      },
      options.timings.leaseDurationMs,
      random.stream('failover'),
      log,
      probe,
    );
    this.#hung = new HungGuests(
      {
        hung: () => membership.hung(),
        state: (vm) => this.#monitor.state(vm),
        isAccessible: (vm) => sight.accessibility([vm]).get(vm)?.accessible === true,
      },
      ({ vm, name }, text) => options.tell('vm.hung', text, { id: vm, name }),
    );
    this.protector = new Protector({
      sight,
      clock,
      random: random.stream('protector'),
      log,
      probe,
      onSettled: options.poke,
    });
  }

  accessibilityChanged(vms: readonly VmId[]): void {
    this.#getAgain(vms); // there may be VMs among them that this master has never heard of
    this.protector.storageChanged(vms);
    this.#failover.storageChanged(vms);
  }

  metadataChanged(vms: readonly VmId[]): void {
    this.#getAgain(vms);
    this.#failover.metadataChanged(vms);
  }

  #newsThroughAgents(vms: readonly VmId[]): void {
    this.accessibilityChanged(vms);
    this.#failover.metadataChanged(vms);
    this.#options.poke();
  }

  #getAgain(vms: readonly VmId[]): void {
    for (const vm of vms) this.#getDue?.add(vm);
  }

  runningChanged(): void {
    this.#isComparisonDue = true;
  }

  advance(nowMs: number): void {
    this.sight.advance(nowMs);
    this.protector.advance(nowMs);
    if (this.#isReady(nowMs)) {
      this.#compare(nowMs);
      for (const order of this.#hung.advance(nowMs)) this.#endHung(order);
    }
    for (const action of this.#failover.advance(nowMs)) this.#act(action);
  }

  nextWakeMs(): number {
    const gatheredAtMs = this.#gatheredAtMs();
    const isGathering = this.#options.clock.now() < gatheredAtMs;
    const gather = isGathering ? gatheredAtMs : Number.POSITIVE_INFINITY;
    const parts = [this.protector, this.sight, this.#failover, this.#hung];
    return Math.min(gather, this.#compareDueMs, ...parts.map((part) => part.nextWakeMs()));
  }

  waiting(): Waiting[] {
    return this.#failover.waiting();
  }

  ordered(): ReturnType<Failover['ordered']> {
    return this.#failover.ordered();
  }

  close(): void {
    this.#closed = true;
    this.#options.membership.forgetTouched();
    this.protector.close();
    this.sight.close();
    this.#options.recoveries.abandon();
  }

  /** Until when it waits for agents to say that they follow it. */
  #gatheredAtMs(): number {
    return this.#electedAtMs + this.#options.timings.suspectAfterMs;
  }

  /** Everybody told what runs or counts as failed, and the followers said that they follow. */
  #isReady(nowMs: number): boolean {
    const { membership, self } = this.#options;
    if (!membership.isComplete()) return false;
    if (nowMs >= this.#gatheredAtMs()) return true; // those that have not answered by then never will
    return membership.linked().every((member) => member.beat?.master === self);
  }

  #compare(nowMs: number): void {
    const { membership } = this.#options;
    const due = this.#getDue;
    const isUnchanged = due?.size === 0 && !this.#isComparisonDue;
    const isIdle = this.#failover.isIdle && !membership.hasPaused;
    const isRecent = nowMs - this.#compareAtMs < haLimits.slowLookMs;
    if (isUnchanged && isIdle && isRecent && this.#comparedVersion === membership.version) return;
    if (nowMs < this.#compareAtMs) {
      this.#compareDueMs = this.#compareAtMs;
      this.#isComparisonDue = true; // whatever becomes of what asked for it
      return;
    }
    this.#compareDueMs = Number.POSITIVE_INFINITY;
    this.#compareAtMs = nowMs + haLimits.comparePauseMs;
    if (due === null || due.size > 0) {
      const values = this.#monitor.get(due === null ? null : [...due]);
      this.#options.probe.reached({ at: 'ha.metadataGet', values });
    }
    this.#getDue = new Set();
    this.#isComparisonDue = false;
    this.#comparedVersion = membership.version;
    const { candidates } = this.#monitor.compare(nowMs);
    this.#failover.compare(candidates, (vm) => membership.runsOn(vm), nowMs);
  }

  #condition(host: HostId) {
    if (host === this.#options.self) return 'linked';
    return this.#options.membership.member(host)?.condition ?? 'failed';
  }

  #lock(vm: VmId): LockView | null {
    const lock = this.sight.vm(vm)?.lock;
    if (lock === undefined) return null;
    const { holder, epoch } = lock;
    if (holder === null) return { holder, epoch, holderIs: 'silent' };
    if (this.#condition(holder) !== 'failed') return { holder, epoch, holderIs: 'here' };
    return { holder, epoch, holderIs: this.sight.reaches(holder) ? 'elsewhere' : 'silent' };
  }

  #act(action: Action): void {
    switch (action.kind) {
      case 'askLock':
        return void this.#askLock(action.vm);
      case 'askReach':
        return this.#askReach(action.question, action.vms, action.hosts);
      case 'start':
        return this.#start(action);
      case 'save':
        return void this.#saveAttempts(action.save);
      case 'note':
        return this.#note(action.note);
    }
  }

  /** What comes back is for the machine, unless the master is gone by then. */
  #answered(give: (nowMs: number) => void): void {
    if (this.#closed) return;
    give(this.#options.clock.now());
    this.#options.poke();
  }

  async #askLock(vm: VmId): Promise<void> {
    try {
      const status = await this.sight.lockStatus(vm);
      this.#answered((nowMs) => this.#failover.lockAnswered(vm, { ok: true, status }, nowMs));
    } catch (thrown) {
      const { code, message } = asHoldfastError(thrown);
      const answer = { ok: false, code, text: message } as const;
      this.#answered((nowMs) => this.#failover.lockAnswered(vm, answer, nowMs));
    }
  }

  #askReach(question: number, vms: readonly VmId[], hosts: readonly HostId[]): void {
    const body: ReachQuestion = { vms };
    const answers = new Map<HostId, ReadonlySet<VmId>>();
    let open = hosts.length;
    for (const host of hosts) {
      const { peer } = this.#options;
      peer.request(
        host,
        'ha.canReach',
        { ...body },
        noPayload,
        haLimits.reachTimeoutMs,
        (error, answer) => {
          open -= 1;
          if (error === null) answers.set(host, new Set((answer as unknown as ReachQuestion).vms));
          if (open === 0)
            this.#answered((nowMs) => this.#failover.reachAnswered(question, answers, nowMs));
        },
      );
    }
  }

  async #saveAttempts(save: AttemptsToSave): Promise<void> {
    let isDone = true;
    try {
      await this.sight.saveAttempts(save.vm, save.attempts);
    } catch (error) {
      isDone = isError(error, 'unknown-vm');
      this.#options.log.debug(`attempts of ${save.vm} are recorded later: ${String(error)}`);
    }
    this.#answered((nowMs) => this.#failover.attemptsSaved(save, isDone, nowMs));
  }

  /** What there is of a host that a VM may have run on. */
  #sign(host: HostId): Sign {
    const { self, membership, clock } = this.#options;
    const member = membership.member(host);
    const heardAtMs = member?.heardAtMs ?? null;
    return {
      isHeard: this.#condition(host) !== 'failed',
      silentForMs: host === self ? 0 : heardAtMs === null ? null : clock.now() - heardAtMs,
      hasClosed: member?.hasClosed === true,
      isReached: this.sight.reaches(host),
    };
  }

  #start({ vm, host, candidate, lock }: Extract<Action, { kind: 'start' }>): void {
    const { peer, probe, self, term, clock } = this.#options;
    const sign = candidate.from === null ? null : this.#sign(candidate.from);
    const proof = proofOfDeath({ candidate, lock, sign, master: self, term, at: clock.wallTime() });
    probe.reached({ at: 'ha.restarting', vm, on: host });
    const order = { vm, proof: { ...proof } };
    peer.request(host, 'ha.start', order, noPayload, haLimits.startTimeoutMs, (error) => {
      if (error !== null) {
        probe.reached({ at: 'ha.restartFailed', vm, on: host, code: error.code });
      }
      const result =
        error === null
          ? ({ ok: true } as const)
          : { ok: false as const, code: error.code, text: error.message };
      this.#answered((nowMs) => this.#failover.startAnswered(vm, result, nowMs));
    });
  }

  #endHung({ vm, name, host, epoch }: EndHung): void {
    const { peer, log } = this.#options;
    log.info(`${name}: hangs on ${host}, which is told to end it`, { vm });
    const order: EndOrder = { vm, epoch };
    peer.request(host, 'ha.endHung', { ...order }, noPayload, haLimits.hungTimeoutMs, (error) => {
      if (error !== null) log.info(`${name}: is not ended: ${error.message}`, { vm });
      this.#answered((nowMs) => this.#hung.answered(vm, error === null, nowMs));
    });
  }

  #note(note: Note): void {
    this.#options.recoveries.note(note);
    const type = eventOf[note.type];
    if (type === undefined) return;
    this.#options.tell(type, note.text, { id: note.candidate.vm, name: note.candidate.name });
  }
}
