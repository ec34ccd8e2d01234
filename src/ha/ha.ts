// The HA module of one host: heartbeats to the others, the election, and the two things that it can
// be: an agent, always, and a master, while it is one. All that happens only marks what is due; the
// work is done in `turn`, one step after the other, with the time as its only other input.

import { HoldfastError } from '../model/errors.ts';
import type { ClusterEvent, EventType } from '../model/events.ts';
import type { Epoch, HostId, Term, VmId } from '../model/ids.ts';
import { type Timings, timingsProblem } from '../model/limits.ts';
import { haService } from '../model/protection.ts';
import { noPayload } from '../peer/frame.ts';
import type { Peer, Reply } from '../peer/peer.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Random } from '../ports/random.ts';
import type { Storage } from '../storage/api.ts';
import { answerMaster } from './agent.ts';
import type { Ha, HaHostView, HostState, VmRunner } from './api.ts';
import { HostStates } from './host-states.ts';
import { haLimits } from './limits.ts';
import { Master } from './master.ts';
import { type ConditionChange, Membership } from './membership.ts';
import type { Heartbeat, HostKind, ProtectReport, UnprotectReport, VmList } from './messages.ts';
import { describe, stateOf, viewOf } from './observer.ts';
import { Outlook } from './outlook.ts';
import { ProtectionAgent } from './protection-agent.ts';
import { ProtectionView } from './protection-view.ts';
import { Recoveries } from './recoveries.ts';
import { ownSight, type Sight } from './sight.ts';
import { Standing } from './standing.ts';
import { Targets } from './targets.ts';
import { Voice } from './voice.ts';

export interface HaOptions {
  readonly self: HostId;
  readonly kind: HostKind;
  /** All hosts known to the cluster, this one included or not. */
  readonly members: () => readonly HostId[];
  /** Of the HA network. */
  readonly peer: Peer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly probe: Probe;
  readonly timings: Timings;
  readonly storage: Storage;
  readonly runner: VmRunner;
  readonly emit: (event: ClusterEvent) => void;
}

export function createHa(options: HaOptions): Ha & { start(): void; stop(): void } {
  return new HaModule(options);
}

/** A turn that throws is a bug; it must not become a loop that takes the whole processor. */
const brokenTurnPauseMs = 100;

class HaModule implements Ha {
  readonly #options: HaOptions;
  readonly #self: HostId;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #timings: Timings;
  readonly #membership: Membership;
  readonly #states: HostStates;
  readonly #standing: Standing;
  readonly #targets: Targets;
  readonly #view: ProtectionView;
  readonly #own: Sight;
  readonly #outlook: Outlook;
  readonly #protection: ProtectionAgent;
  readonly #recoveries = new Recoveries();
  readonly #voice: Voice;

  #isRunning = false;
  #isTurnDue = false;
  #timer: Timer | null = null;
  #lastTurnMs = 0;
  /** Until when what is read may have been said long ago. */
  #deafUntilMs = Number.NEGATIVE_INFINITY;
  #nextBeatMs = 0;
  #isNews = false;

  #master: Master | null = null;
  #isProtectionDue = true;
  /** VMs that run here and whose records changed since the last review. */
  readonly #protectionNews = new Set<VmId>();
  #reviewedFor = '';

  constructor(options: HaOptions) {
    const { self, kind, clock, timings, storage, runner, random } = options;
    this.#options = options;
    this.#self = self;
    this.#clock = clock;
    this.#timings = timings;
    this.#log = options.log;
    this.#membership = new Membership(self, timings);
    const instance = random.stream('ha').id();
    this.#voice = new Voice({ peer: options.peer, membership: this.#membership, runner, instance });
    this.#states = new HostStates(self, this.#log);
    this.#standing = new Standing({
      self,
      kind,
      membership: this.#membership,
      states: this.#states,
      log: this.#log,
      reachable: () => storage.reachableHosts().length,
      onElected: (why) => this.#elected(why),
      onAbdicated: (why) => this.#abdicated(why),
      onChange: () => {
        this.#isNews = true;
        this.#poke(); // all others may have been waiting for this one
      },
    });
    this.#targets = new Targets({ self, kind, membership: this.#membership, runner, storage });
    this.#view = new ProtectionView(storage, clock);
    this.#own = ownSight(storage, this.#view);
    this.#outlook = new Outlook({
      ...{ storage, view: this.#view, clock, instance },
      tellNews: (master) => options.peer.send(master, 'ha.news', null),
    });
    this.#protection = new ProtectionAgent(
      {
        running: () => runner.running(),
        vm: (vm) => storage.vm(vm),
        master: () => this.#masterToReportTo(),
        report: (master, report) => this.#reportProtect(master, report),
        forget: (master, report) => options.peer.send(master, 'ha.unprotect', { ...report }),
        onProtected: (id, name) =>
          this.#tell('vm.protected', `${name} is protected.`, { id, name }),
      },
      this.#view,
    );
    this.#listen();
  }

  // ---- the API ------------------------------------------------------------------------------------

  get state(): HostState {
    return this.#states.get(this.#self);
  }

  master(): HostId | null {
    return this.#standing.master();
  }

  term(): Term {
    return this.#standing.term;
  }

  hosts(): HaHostView[] {
    const { runner } = this.#options;
    const { cpus, memoryBytes } = runner.capacity();
    const running = runner.running();
    const own = { host: this.#self, state: this.state, silentForMs: 0, running, cpus, memoryBytes };
    const nowMs = this.#clock.now();
    const others = [...this.#membership.members()].map((member) =>
      viewOf(member, this.#states.get(member.host), nowMs),
    );
    return [own, ...others].sort((a, b) => (a.host < b.host ? -1 : 1));
  }

  protectionStatus(vm: VmId) {
    return this.#view.status(vm, this.#protection.stateOf(vm));
  }

  poweredOn(vm: VmId, epoch: Epoch): void {
    this.#protection.poweredOn(vm, epoch);
    this.#isProtectionDue = true;
    this.#poke();
  }

  poweredOff(vm: VmId, epoch: Epoch): void {
    this.#protection.poweredOff(vm, epoch);
  }

  place(vm: VmId): HostId | null {
    return this.#targets.place(vm, this.#master?.ordered() ?? [], this.#clock.now());
  }

  waiting() {
    return this.#master?.waiting() ?? [];
  }

  recoveries() {
    return this.#recoveries.list();
  }

  start(): void {
    const problem = timingsProblem(this.#timings);
    if (problem !== null) {
      this.#states.set(this.#self, 'initializationError', problem);
      return;
    }
    const nowMs = this.#clock.now();
    this.#isRunning = true;
    this.#lastTurnMs = nowMs;
    this.#standing.start(nowMs, this.#timings.failAfterMs); // there may be a master: listen first
    this.#runningChanged();
    this.#turnSafely();
  }

  stop(): void {
    this.#isRunning = false;
    this.#timer?.cancel();
    this.#master?.close();
    this.#master = null;
    this.#standing.stop();
  }

  // ---- what comes in ------------------------------------------------------------------------------

  #listen(): void {
    const { peer, storage, runner, self, kind } = this.#options;
    peer.on('ha.heartbeat', (from, body) => this.#heard(from, body as unknown as Heartbeat));
    peer.on('ha.vms', (from, body) => this.#listed(from, body as unknown as VmList));
    peer.on('ha.wantVms', (from) => {
      if (this.#isRunning) this.#voice.sendList([from]);
    });
    peer.on('ha.protect', (from, body, _payload, reply) => {
      this.#askedToProtect(from, body as unknown as ProtectReport, reply);
    });
    peer.on('ha.unprotect', (_from, body) => {
      this.#master?.protector.forget(body as unknown as UnprotectReport);
    });
    peer.on('ha.news', (from) => {
      this.#master?.sight.hasNews(from);
      this.#poke();
    });
    answerMaster({
      self,
      kind,
      peer,
      storage,
      own: this.#own,
      outlook: this.#outlook,
      runner,
      log: this.#log,
      master: () => (this.#isRunning && !this.#isDeaf(this.#clock.now()) ? this.master() : null),
      onStarted: (vm, epoch) => this.poweredOn(vm, epoch),
    });
    peer.onSession((host, isUp, end) => {
      if (end === 'closed') this.#membership.closed(host);
      if (!isUp || !this.#isRunning) return;
      this.#voice.sendList([host]);
      this.#beat([host], this.#clock.now());
    });
    runner.onChange(() => {
      if (this.#isRunning) this.#runningChanged();
    });
    storage.watchAccessibility((vms) => {
      this.#master?.accessibilityChanged(vms);
      this.#protectionChanged(vms);
      this.#outlook.changed(vms);
    });
    storage.watchMetadata(haService, (vms) => {
      this.#master?.metadataChanged(vms);
      this.#protectionChanged(vms);
      this.#outlook.changed(vms);
    });
  }

  /** Most of it is news of VMs of other hosts, and of no interest but to the master. */
  #protectionChanged(vms: readonly VmId[]): void {
    this.#view.changed();
    const concerned = vms.filter((vm) => this.#protection.isConcerned(vm));
    for (const vm of concerned) this.#protectionNews.add(vm);
    if (concerned.length > 0) this.#isProtectionDue = true;
    if (concerned.length > 0 || this.#master !== null) this.#poke();
  }

  /** It stood still just now: what waited in its sockets meanwhile is old, and says nothing of the others. */
  #isDeaf(nowMs: number): boolean {
    return nowMs < this.#deafUntilMs || nowMs - this.#lastTurnMs > this.#timings.suspectAfterMs;
  }

  #heard(from: HostId, beat: Heartbeat): void {
    const nowMs = this.#clock.now();
    if (!this.#isRunning || this.#isDeaf(nowMs)) return;
    const member = this.#membership.member(from);
    const before = { condition: member?.condition, instance: member?.linkedInstance ?? null };
    const heard = this.#membership.heard(from, beat, nowMs);
    if (heard.answer) this.#beat([from], nowMs);
    if (heard.wantsList) this.#options.peer.send(from, 'ha.wantVms', null);
    if (before.condition !== 'linked' && member?.condition === 'linked') {
      this.#tell(
        'host.up',
        `${from} is heard on the HA network${comeback(before.instance, beat)}.`,
      );
    }
    if (heard.changed) this.#poke();
  }

  #listed(from: HostId, list: VmList): void {
    const nowMs = this.#clock.now();
    if (!this.#isRunning || this.#isDeaf(nowMs)) return;
    if (!this.#membership.listed(from, list, nowMs)) return;
    // Others only remember it: with 64 hosts that are all starting VMs, lists come all the time.
    if (this.#master !== null || this.#recoveries.awaited().size > 0) this.#poke();
  }

  #askedToProtect(from: HostId, report: ProtectReport, reply: Reply): void {
    if (this.#master === null) {
      reply.fail(new HoldfastError('no-master', `${this.#self} is not the master`));
      return;
    }
    this.#master.protector.report(from, report);
    this.#poke();
    reply.ok(null);
  }

  #reportProtect(master: HostId, report: ProtectReport): void {
    const timeoutMs = haLimits.protectTimeoutMs;
    this.#options.peer.request(
      master,
      'ha.protect',
      { ...report },
      noPayload,
      timeoutMs,
      (error) => {
        if (error !== null)
          this.#log.debug(`${report.name}: ${error.message}; it is reported again`);
      },
    );
  }

  #runningChanged(): void {
    this.#voice.listChanged();
    this.#isProtectionDue = true;
    this.#membership.sawList(this.#self, this.#options.runner.running(), this.#clock.now());
    this.#master?.runningChanged();
    this.#poke();
  }

  // ---- the turn -----------------------------------------------------------------------------------

  #poke(): void {
    if (this.#isTurnDue || !this.#isRunning) return;
    this.#isTurnDue = true;
    this.#clock.defer(() => this.#turnSafely());
  }

  #turnSafely(): void {
    if (!this.#isRunning) return;
    this.#isTurnDue = false;
    const nowMs = this.#clock.now();
    let pauseMs = 1;
    try {
      this.#turn(nowMs);
    } catch (error) {
      pauseMs = brokenTurnPauseMs;
      this.#log.error(`a turn broke off: ${String(error)}`);
    }
    this.#timer?.cancel();
    const dueMs = Math.min(
      this.#nextBeatMs,
      this.#membership.nextExpiryMs(),
      this.#standing.nextWakeMs(nowMs),
      this.#voice.nextListMs(),
      this.#protection.nextWakeMs(),
      this.#master?.nextWakeMs() ?? Number.POSITIVE_INFINITY,
    );
    this.#timer = this.#clock.after(Math.max(pauseMs, dueMs - nowMs), () => this.#turnSafely());
  }

  #turn(nowMs: number): void {
    if (nowMs - this.#lastTurnMs > this.#timings.suspectAfterMs) this.#stoodStill(nowMs);
    this.#lastTurnMs = nowMs;
    for (const host of this.#membership.setMembers(this.#options.members(), nowMs)) {
      this.#states.forget(host);
    }
    for (const change of this.#membership.expire(nowMs)) this.#tellCondition(change);
    this.#standing.elect(nowMs);
    this.#setStates();
    this.#voice.tellList(nowMs);
    if (this.#isNews || nowMs >= this.#nextBeatMs) {
      this.#isNews = false;
      this.#nextBeatMs = nowMs + this.#timings.heartbeatIntervalMs;
      this.#voice.reaches(this.#options.storage.reachableHosts());
      this.#beat(this.#membership.hosts(), nowMs);
    }
    this.#reviewProtection(nowMs);
    this.#master?.advance(nowMs);
    this.#lookForReady(nowMs);
  }

  /** The process was frozen or starved: the silence that it sees is its own. */
  #stoodStill(nowMs: number): void {
    this.#deafUntilMs = nowMs + this.#timings.heartbeatIntervalMs / 2;
    const seconds = ((nowMs - this.#lastTurnMs) / 1000).toFixed(1);
    this.#log.warn(`stood still for ${seconds} s; listening again before anything else`);
    this.#membership.forgive(nowMs);
    this.#standing.restart(nowMs, `it stood still for ${seconds} s`);
  }

  #reviewProtection(nowMs: number): void {
    const master = this.#masterToReportTo()?.name ?? '';
    const isDue = this.#isProtectionDue || master !== this.#reviewedFor;
    if (!isDue && nowMs < this.#protection.nextWakeMs()) return;
    this.#isProtectionDue = false;
    this.#reviewedFor = master;
    this.#protection.review(nowMs, this.#protectionNews);
    this.#protectionNews.clear();
  }

  /** Guests that were started by this master and are heard now. */
  #lookForReady(nowMs: number): void {
    const awaited = this.#recoveries.awaited();
    for (const host of new Set(awaited.values())) {
      const running =
        host === this.#self
          ? this.#options.runner.running()
          : (this.#membership.member(host)?.list?.vms ?? []);
      for (const { vm, ready } of running) {
        if (!ready || awaited.get(vm) !== host) continue;
        const name = this.#recoveries.ready(vm, host, nowMs);
        if (name === null) continue;
        const text = `The guest of ${name} is heard on ${host}.`;
        this.#tell('failover.guestReady', text, { id: vm, name });
      }
    }
  }

  // ---- master and agent ---------------------------------------------------------------------------

  #elected(why: string): void {
    this.#master = this.#createMaster();
    this.#options.probe.reached({ at: 'ha.elected', term: this.term() });
    this.#tell('master.elected', `${this.#self} is master of term ${this.term()}: ${why}.`);
  }

  #abdicated(why: string): void {
    this.#master?.close();
    this.#master = null;
    this.#options.probe.reached({ at: 'ha.abdicated' });
    this.#tell('master.abdicated', `${this.#self} is master no longer: ${why}.`);
  }

  #createMaster(): Master {
    const { self, peer, clock, random, probe, storage } = this.#options;
    return new Master({
      self,
      peer,
      clock,
      random: random.stream('ha'),
      log: this.#log,
      probe,
      storage,
      membership: this.#membership,
      targets: this.#targets,
      own: this.#own,
      recoveries: this.#recoveries,
      timings: this.#timings,
      term: this.term(),
      tell: (type, text, vm) => this.#tell(type, text, vm),
      poke: () => this.#poke(),
    });
  }

  #beat(to: Iterable<HostId>, nowMs: number): void {
    this.#voice.beat(to, this.#standing.claim(), this.master(), nowMs);
  }

  #masterToReportTo(): { host: HostId; name: string } | null {
    const host = this.master();
    return host === null || !this.#isRunning ? null : { host, name: `${host}/${this.term()}` };
  }

  // ---- states and events --------------------------------------------------------------------------

  #setStates(): void {
    let isHeard = false;
    let isFailed = false;
    for (const { condition } of this.#membership.members()) {
      if (condition === 'failed') isFailed = true;
      else isHeard = true;
    }
    // Only of a host that is silent on this network is it asked whether the other one reaches it.
    const isAsked = isFailed || !isHeard;
    const reachable = new Set(isAsked ? this.#options.storage.reachableHosts() : []);
    for (const member of this.#membership.members()) {
      const before = this.#states.get(member.host);
      const state = stateOf(member, before, this.master(), reachable);
      if (state !== before) this.#states.set(member.host, state, describe(member));
    }
    if (this.#standing.role !== 'master') return;
    const isAlone = this.#membership.count > 0 && !isHeard && reachable.size <= 1;
    this.#states.set(
      this.#self,
      isAlone ? 'networkIsolated' : 'master',
      isAlone ? 'it hears nobody on either network' : 'it hears others',
    );
  }

  #tellCondition({ member, before }: ConditionChange): void {
    const { host, condition, heardAtMs } = member;
    if (heardAtMs === null) return; // never heard: there is nothing to report
    const silence = `${((this.#clock.now() - heardAtMs) / 1000).toFixed(1)} s`;
    // Agents leave it to their master, unless it is the master that is silent.
    const isNews = this.#master !== null || member.beat?.role === 'master';
    const level = isNews ? 'info' : 'debug';
    this.#log[level](`${host}: ${before} -> ${condition}, silent for ${silence}`);
    if (condition === 'suspected') {
      this.#tell('host.suspected', `${host} has been silent on the HA network for ${silence}.`);
    } else if (condition === 'failed') {
      this.#tell(
        'host.failed',
        `${host} counts as failed: silent on the HA network for ${silence}.`,
      );
    }
  }

  #tell(type: EventType, text: string, vm?: { readonly id: VmId; readonly name: string }): void {
    const base = { at: this.#clock.wallTime(), host: this.#self, type, text };
    this.#options.emit(vm === undefined ? base : { ...base, vm: vm.id, vmName: vm.name });
  }
}

/** What its return says of its absence: it was not dead if the very same daemon speaks. `before`: the one that was
 * heard last over a link that worked both ways; a daemon is heard once before it hears that it is. */
function comeback(before: string | null, { instance }: Heartbeat): string {
  if (before === null) return '';
  return before === instance
    ? ' again; its daemon ran all the time: it was cut off, or it stood still'
    : ' again; its daemon was started anew';
}
