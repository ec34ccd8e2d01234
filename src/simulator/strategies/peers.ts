// `coordination: peers`: HA without a master. Every host hears the others as in the product, reads
// the protection states itself, and restarts what nobody runs on itself, when its turn comes. The
// protection of a VM is SET by the host that powered it on. Nothing is asked of other hosts: what two
// of them begin at once, the VM's lock decides.
//
// `master()` is this host itself as soon as it has heard of all members or counts them as failed: it
// does for itself what a master does, and whoever waits until a cluster is led can go on. So as many
// hosts call themselves master as are up; a check that wants one master per partition has no meaning.

import type { Ha, HaHostView, HostState } from '../../ha/api.ts';
import { HostStates } from '../../ha/host-states.ts';
import { Membership } from '../../ha/membership.ts';
import type { Heartbeat, VmList } from '../../ha/messages.ts';
import { Monitor } from '../../ha/monitor.ts';
import { describe, stateOf, viewOf } from '../../ha/observer.ts';
import { ProtectionAgent } from '../../ha/protection-agent.ts';
import { ProtectionView } from '../../ha/protection-view.ts';
import { Protector } from '../../ha/protector.ts';
import { Recoveries } from '../../ha/recoveries.ts';
import { ownSight } from '../../ha/sight.ts';
import { Targets } from '../../ha/targets.ts';
import { Voice } from '../../ha/voice.ts';
import type { EventType } from '../../model/events.ts';
import { type Epoch, type HostId, term, type VmId } from '../../model/ids.ts';
import { haService } from '../../model/protection.ts';
import type { Timer } from '../../ports/clock.ts';
import { PeerFailover } from './peer-failover.ts';
import type { HaOptions, RunningHa } from './shared.ts';

export function createPeersHa(options: HaOptions): RunningHa {
  return new PeersHa(options);
}

const noTerm = term(0);

class PeersHa implements Ha {
  readonly #options: HaOptions;
  readonly #membership: Membership;
  readonly #states: HostStates;
  readonly #targets: Targets;
  readonly #view: ProtectionView;
  readonly #monitor: Monitor;
  readonly #protection: ProtectionAgent;
  readonly #protector: Protector;
  readonly #recoveries = new Recoveries();
  readonly #voice: Voice;
  readonly #failover: PeerFailover;

  #isRunning = false;
  #isTurnDue = false;
  #isGetDue = true;
  #timer: Timer | null = null;
  #nextBeatMs = 0;
  #lastTurnMs = 0;

  constructor(options: HaOptions) {
    const { self, kind, clock, timings, storage, runner, peer, probe } = options;
    const random = options.random.stream('ha');
    const log = options.log;
    this.#options = options;
    this.#membership = new Membership(self, timings);
    const membership = this.#membership;
    this.#states = new HostStates(self, log);
    this.#voice = new Voice({ peer, membership, runner, instance: random.id() });
    this.#targets = new Targets({ self, kind, membership, runner, storage });
    this.#view = new ProtectionView(storage, clock);
    const running = () => runner.running();
    const sight = ownSight(storage, this.#view);
    // Each peer counts for itself.
    const onAttempts = () => {};
    this.#monitor = new Monitor({ self, sight, membership, onAttempts });
    const onSettled = () => this.#poke();
    this.#protector = new Protector({ sight, clock, random, log, probe, onSettled });
    this.#protection = new ProtectionAgent(
      {
        running,
        vm: (vm) => storage.vm(vm),
        master: () => ({ host: self, name: self }),
        report: (_self, report) => this.#protector.report(self, report),
        forget: (_self, report) => this.#protector.forget(report),
        onProtected: (id, name) => this.#tell('vm.protected', `${name} is protected.`, id, name),
      },
      this.#view,
    );
    this.#failover = new PeerFailover({
      self,
      storage,
      runner,
      clock,
      random,
      probe,
      targets: () => this.#targets.list(clock.now()),
      isSilent: (host) => host !== self && membership.member(host)?.condition === 'failed',
      onStarted: (vm, epoch) => this.poweredOn(vm, epoch),
      onNote: (note) => this.#recoveries.note(note),
      tell: (type, text, vm, name) => this.#tell(type, text, vm, name),
      poke: () => this.#poke(),
    });
    this.#listen();
  }

  get state(): HostState {
    return this.#states.get(this.#options.self);
  }

  master(): HostId | null {
    return this.#isRunning && this.state === 'master' ? this.#options.self : null;
  }

  /** There are no elections. */
  term() {
    return noTerm;
  }

  hosts(): HaHostView[] {
    const { self, runner, clock } = this.#options;
    const running = runner.running();
    const own = { host: self, state: this.state, silentForMs: 0, running, ...runner.capacity() };
    const others = [...this.#membership.members()].map((member) =>
      viewOf(member, this.#states.get(member.host), clock.now()),
    );
    return [own, ...others].sort((a, b) => (a.host < b.host ? -1 : 1));
  }

  protectionStatus(vm: VmId) {
    return this.#view.status(vm, this.#protection.stateOf(vm));
  }

  poweredOn(vm: VmId, epoch: Epoch): void {
    this.#protection.poweredOn(vm, epoch);
    this.#poke();
  }

  poweredOff(vm: VmId, epoch: Epoch): void {
    this.#protection.poweredOff(vm, epoch);
  }

  place(vm: VmId): HostId | null {
    return this.#targets.place(vm, [], this.#options.clock.now());
  }

  waiting() {
    return this.#failover.waiting();
  }

  recoveries() {
    return this.#recoveries.list();
  }

  start(): void {
    this.#isRunning = true;
    this.#lastTurnMs = this.#options.clock.now();
    this.#states.set(this.#options.self, 'election', 'started: it listens first');
    this.#runningChanged();
    this.#turn();
  }

  stop(): void {
    this.#isRunning = false;
    this.#timer?.cancel();
    this.#protector.close();
    this.#failover.close();
  }

  #listen(): void {
    const { peer, storage, runner } = this.#options;
    peer.on('ha.heartbeat', (from, body) => this.#heard(from, body as unknown as Heartbeat));
    peer.on('ha.vms', (from, body) => {
      const list = body as unknown as VmList;
      if (this.#isRunning && this.#membership.listed(from, list, this.#now())) this.#poke();
    });
    peer.on('ha.wantVms', (from) => {
      if (this.#isRunning) this.#voice.sendList([from]);
    });
    peer.onSession((host, isUp) => {
      if (!isUp || !this.#isRunning) return;
      this.#voice.sendList([host]);
      this.#beat(host);
    });
    runner.onChange(() => {
      if (this.#isRunning) this.#runningChanged();
    });
    storage.watchAccessibility((vms) => {
      this.#protector.storageChanged(vms);
      this.#failover.storageChanged();
      this.#protectionChanged();
    });
    storage.watchMetadata(haService, (vms) => {
      this.#failover.metadataChanged(vms);
      this.#protectionChanged();
    });
  }

  #heard(from: HostId, beat: Heartbeat): void {
    if (!this.#isRunning) return;
    const before = this.#membership.member(from)?.condition;
    const heard = this.#membership.heard(from, beat, this.#now());
    if (heard.answer) this.#beat(from);
    if (heard.wantsList) this.#options.peer.send(from, 'ha.wantVms', null);
    if (before !== 'linked' && this.#membership.member(from)?.condition === 'linked') {
      this.#tell('host.up', `${from} is heard on the HA network.`);
    }
    if (heard.changed) this.#poke();
  }

  #protectionChanged(): void {
    this.#view.changed();
    this.#isGetDue = true;
    this.#poke();
  }

  #runningChanged(): void {
    const { self, runner } = this.#options;
    this.#voice.listChanged();
    this.#membership.sawList(self, runner.running(), this.#now());
    this.#failover.roomChanged();
    this.#poke();
  }

  #poke(): void {
    if (this.#isTurnDue || !this.#isRunning) return;
    this.#isTurnDue = true;
    this.#options.clock.defer(() => this.#turn());
  }

  #turn(): void {
    this.#isTurnDue = false;
    if (!this.#isRunning) return;
    const nowMs = this.#now();
    const { timings, clock } = this.#options;
    if (nowMs - this.#lastTurnMs > timings.suspectAfterMs) this.#membership.forgive(nowMs);
    this.#lastTurnMs = nowMs;
    this.#look(nowMs);
    this.#voice.tellList(nowMs);
    if (nowMs >= this.#nextBeatMs) {
      this.#nextBeatMs = nowMs + timings.heartbeatIntervalMs;
      for (const member of this.#membership.members()) this.#beat(member.host);
    }
    this.#protection.review(nowMs);
    this.#protector.advance(nowMs);
    if (this.master() !== null) this.#compare(nowMs);
    this.#lookForReady(nowMs);
    this.#timer?.cancel();
    const dueMs = Math.min(
      this.#nextBeatMs,
      this.#membership.nextExpiryMs(),
      this.#voice.nextListMs(),
      this.#protection.nextWakeMs(),
      this.#protector.nextWakeMs(),
      this.#failover.nextWakeMs(),
    );
    this.#timer = clock.after(Math.max(1, dueMs - nowMs), () => this.#turn());
  }

  /** Who belongs to the cluster, who is silent, and what that makes of each of them. */
  #look(nowMs: number): void {
    const { self, members, storage } = this.#options;
    for (const host of this.#membership.setMembers(members(), nowMs)) this.#states.forget(host);
    for (const { member } of this.#membership.expire(nowMs)) {
      if (member.heardAtMs === null || member.condition === 'linked') continue;
      const type = member.condition === 'failed' ? 'host.failed' : 'host.suspected';
      this.#tell(type, `${member.host} is silent on the HA network: it is ${member.condition}.`);
    }
    const reachable = new Set(storage.reachableHosts());
    for (const member of this.#membership.members()) {
      const before = this.#states.get(member.host);
      this.#states.set(member.host, stateOf(member, before, null, reachable), describe(member));
    }
    if (this.state === 'election' && this.#membership.isComplete()) {
      this.#states.set(self, 'master', 'it has heard of all members; it is its own master');
    }
  }

  #compare(nowMs: number): void {
    if (this.#options.kind === 'witness') return; // it runs nothing
    if (this.#isGetDue) {
      const values = this.#monitor.get();
      this.#options.probe.reached({ at: 'ha.metadataGet', values });
    }
    this.#isGetDue = false;
    const { candidates } = this.#monitor.compare(nowMs);
    this.#failover.advance(candidates, nowMs);
  }

  #lookForReady(nowMs: number): void {
    const { self, runner } = this.#options;
    const ready = new Set(runner.running().flatMap((one) => (one.ready ? [one.vm] : [])));
    for (const vm of this.#recoveries.awaited().keys()) {
      const name = ready.has(vm) ? this.#recoveries.ready(vm, self, nowMs) : null;
      if (name === null) continue;
      this.#tell('failover.guestReady', `The guest of ${name} is heard on ${self}.`, vm, name);
    }
  }

  #beat(to: HostId): void {
    const { self, kind, storage } = this.#options;
    const reachable = storage.reachableHosts().length;
    const role = this.state === 'master' ? 'master' : 'election';
    const claim = { host: self, kind, role, term: noTerm, reachable } as const;
    this.#voice.beat([to], claim, this.master(), this.#now());
  }

  #now(): number {
    return this.#options.clock.now();
  }

  #tell(type: EventType, text: string, vm?: VmId, name?: string): void {
    const { clock, self, emit } = this.#options;
    const base = { at: clock.wallTime(), host: self, type, text };
    emit(vm === undefined || name === undefined ? base : { ...base, vm, vmName: name });
  }
}
