// What the master does about VMs that should run and do not: the source's flow charts as a machine.
// Events and the time go in, actions come out; what it looks at (accessibility, the directory's locks,
// room on the targets) it reads from `World` at that moment. Only `advance` hands out work, VM by VM
// in order of priority, so one VM's trouble never stands in another's way.
//
// It is level-triggered: `compare` is told the whole truth again and again, and a lost notice only
// costs time, because each waiting VM has a moment at which it is looked at anyway.

import type { HostId, VmId } from '../model/ids.ts';
import type { WaitReason } from '../model/recovery.ts';
import type { Attempts } from '../model/restart.ts';
import type { Log } from '../ports/log.ts';
import type { Probe } from '../ports/probe.ts';
import type { Random } from '../ports/random.ts';
import type { Accessibility, LockStatus } from '../storage/api.ts';
import type { Waiting } from './api.ts';
import { AttemptLog, type AttemptsToSave } from './attempts.ts';
import { type Candidate, compareEntries, Entry, failureText } from './failover-entry.ts';
import type { Action, LockAnswer, NoteType, StartResult, World } from './failover-world.ts';
import { haLimits } from './limits.ts';
import { unknownOutcomes } from './messages.ts';
import { Pace } from './pace.ts';
import { isBusy, isWorthTrying, type Room, roomsOf, take } from './rooms.ts';
import { lockText, nextLookMs, reasonToLeave } from './wait-list.ts';

const switchedOff = 'it has been switched off meanwhile';

export class Failover {
  readonly #world: World;
  readonly #leaseDurationMs: number;
  readonly #random: Random;
  readonly #log: Log;
  readonly #probe: Probe;
  readonly #entries = new Map<VmId, Entry>();
  /** VMs that a start found unprotected, and until when they are left alone. */
  readonly #dismissed = new Map<VmId, number>();
  readonly #attempts = new AttemptLog();
  readonly #pace = new Pace();
  #actions: Action[] = [];
  #order: Entry[] | null = null;
  #storageNotice = false;
  #nextQuestion = 1;

  constructor(world: World, leaseDurationMs: number, random: Random, log: Log, probe: Probe) {
    this.#world = world;
    this.#leaseDurationMs = leaseDurationMs;
    this.#random = random;
    this.#log = log;
    this.#probe = probe;
  }

  // ---- what the machine is told ---------------------------------------------------------------

  /** All protected VMs that nobody reports as running; `runsOn` says who reports the others. */
  compare(
    candidates: readonly Candidate[],
    runsOn: (vm: VmId) => HostId | null,
    nowMs: number,
  ): void {
    const wanted = new Set<VmId>();
    for (const candidate of candidates) {
      wanted.add(candidate.vm);
      const entry = this.#entries.get(candidate.vm);
      if (entry !== undefined) entry.wanted = true;
      else if (!this.#isDismissed(candidate.vm, nowMs)) this.#add(candidate, nowMs);
    }
    for (const entry of [...this.#entries.values()]) {
      if (wanted.has(entry.vm)) continue;
      const host = runsOn(entry.vm);
      if (host !== null && host === entry.echo?.host && nowMs < entry.echo.untilMs) continue;
      entry.wanted = false;
      entry.listedBy = host;
      if (entry.stage === 'starting') continue; // its answer is on the way
      if (host !== null && host === entry.target && entry.stage === 'unsettled')
        this.#started(entry, nowMs);
      this.#remove(entry, nowMs, host === null ? 'it needs no protection' : `${host} runs it`);
    }
  }

  /** Some of these VMs, or of all, may have become accessible. */
  storageChanged(vms: readonly VmId[] | null): void {
    this.#storageNotice = true;
    for (const vm of vms ?? this.#entries.keys()) this.#entries.get(vm)?.tried.clear();
  }

  /** The protection state of these VMs changed. */
  metadataChanged(vms: readonly VmId[]): void {
    for (const vm of vms) this.#dismissed.delete(vm);
  }

  /** What was counted before this master, as the VM's record has it. */
  attemptsRead(vm: VmId, attempts: Attempts, nowMs: number): void {
    this.#attempts.know(vm, attempts, nowMs);
  }

  lockAnswered(vm: VmId, answer: LockAnswer, nowMs: number): void {
    const entry = this.#entries.get(vm);
    if (entry?.stage !== 'asking') return; // not needed any more
    if (answer.ok) {
      if (!answer.status.isProtected) this.#dismiss(entry, nowMs, switchedOff);
      else if (answer.status.remainingMs > 0) this.#waitForLock(entry, answer.status, nowMs);
      else this.#lockIsFree(entry, answer.status, nowMs);
      return;
    }
    if (answer.code === 'unknown-vm') {
      this.#dismiss(entry, nowMs, 'its namespace object is gone');
      return;
    }
    this.#announce(entry, nowMs);
    const access = this.#access(vm);
    const text = access.accessible ? answer.text : access.text;
    if (answer.code === 'inaccessible') {
      const notBeforeMs = access.accessible ? nowMs + this.#backOff(1) : nowMs;
      this.#wait(entry, 'storage', text, notBeforeMs, nowMs);
    } else this.#tryLater(entry, `its lock could not be asked for: ${text}`, nowMs);
  }

  reachAnswered(
    question: number,
    answers: ReadonlyMap<HostId, ReadonlySet<VmId>>,
    nowMs: number,
  ): void {
    for (const entry of this.#entries.values()) {
      if (entry.stage !== 'reaching' || entry.question !== question) continue;
      const hosts = [...answers].filter(([, vms]) => vms.has(entry.vm)).map(([host]) => host);
      entry.reach = { atMs: nowMs, hosts: new Set(hosts) };
      entry.enter('restart', nowMs, this.#log, `${hosts.join(', ') || 'nobody'} can reach it`);
    }
  }

  startAnswered(vm: VmId, result: StartResult, nowMs: number): void {
    const entry = this.#entries.get(vm);
    if (entry?.stage !== 'starting') return;
    const host = entry.target ?? 'its host';
    if (entry.target !== null)
      this.#pace.answered(entry.target, entry.sinceMs, nowMs, result.ok ? null : result.code);
    if (result.ok) this.#started(entry, nowMs);
    if (!entry.wanted && !result.ok && entry.listedBy === entry.target && entry.target !== null) {
      // Its target listed it because it was starting it: that is over, and no sign that it runs.
      entry.wanted = true;
      entry.echo = { host: entry.target, untilMs: nowMs + haLimits.settleMs };
    }
    if (!entry.wanted) {
      const why = result.ok ? 'it runs' : `${host} could not start it: ${result.text}`;
      return this.#remove(entry, nowMs, why);
    }
    if (result.ok || result.code === 'already-running') {
      return entry.enter('unsettled', nowMs, this.#log, `${host} runs it`);
    }
    const { code, text } = result;
    if (unknownOutcomes.includes(code)) {
      return entry.enter(
        'unsettled',
        nowMs,
        this.#log,
        `nobody knows whether ${host} started it: ${text}`,
      );
    }
    if (code === 'not-protected') {
      return this.#dismiss(entry, nowMs, switchedOff);
    }
    this.#note(entry, 'failed', nowMs, `${entry.name} could not be started on ${host}: ${text}.`);
    const access = this.#access(vm);
    if (code === 'no-capacity') this.#refused(entry, text, nowMs);
    else if (code === 'path-unusable') this.#unseen(entry, text, nowMs);
    else if (code === 'lock-held') {
      entry.freeLock = null;
      entry.askAtMs = nowMs + haLimits.retryMinMs;
      this.#wait(entry, 'lock', text, entry.askAtMs, nowMs);
    } else if (!access.accessible) this.#wait(entry, 'storage', access.text, nowMs, nowMs);
    else {
      entry.avoid = entry.target;
      this.#startFailed(entry, text, nowMs);
    }
  }

  attemptsSaved(save: AttemptsToSave, isDone: boolean, nowMs: number): void {
    this.#attempts.saved(save, isDone, nowMs);
  }

  // ---- what it wants ------------------------------------------------------------------------------

  /** Does what is due now and returns everything to be done since the last call. */
  advance(nowMs: number): Action[] {
    for (const [vm, untilMs] of this.#dismissed) if (untilMs <= nowMs) this.#dismissed.delete(vm);
    const notice = this.#storageNotice;
    this.#storageNotice = false;
    if (this.#entries.size === 0) return this.#takeActions(nowMs); // as almost always
    this.#leaveWaits(notice, nowMs);
    let questions = 0;
    for (const entry of this.#entries.values()) if (entry.stage === 'asking') questions += 1;
    this.#each((entry) => {
      if (entry.stage === 'unsettled') this.#settle(entry, nowMs);
      if (entry.stage !== 'candidate' || questions >= haLimits.lockQuestionsInFlight) return;
      questions += 1;
      entry.lockAsks += 1;
      entry.lockSeen = lockText(this.#world.lock(entry.vm));
      entry.enter('asking', nowMs, this.#log, 'nobody reports it');
      this.#actions.push({ kind: 'askLock', vm: entry.vm });
    });
    this.#placeAll(nowMs);
    return this.#takeActions(nowMs);
  }

  #takeActions(nowMs: number): Action[] {
    const saves = this.#attempts.toSave(nowMs).map((save) => ({ kind: 'save', save }) as const);
    const actions = [...this.#actions, ...saves];
    this.#actions = [];
    return actions;
  }

  /** When `advance` is due though nothing happens. */
  nextWakeMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries.values()) {
      if (entry.wait !== null) next = Math.min(next, entry.wait.lookAtMs);
      if (entry.stage === 'unsettled') next = Math.min(next, entry.sinceMs + haLimits.settleMs);
    }
    for (const untilMs of this.#dismissed.values()) next = Math.min(next, untilMs);
    return next;
  }

  /** The wait list, in order of priority. */
  waiting(): Waiting[] {
    return this.#inOrder().flatMap((entry) =>
      entry.wait === null
        ? []
        : [{ vm: entry.vm, name: entry.name, reason: entry.wait.reason, text: entry.wait.text }],
    );
  }

  /** Where a VM stands; null if it is none of the machine's business. */
  stageOf(vm: VmId): Entry['stage'] | 'dismissed' | null {
    return this.#entries.get(vm)?.stage ?? (this.#dismissed.has(vm) ? 'dismissed' : null);
  }

  /** VMs that were ordered to start on a host and that it may not have reported. */
  ordered(): { readonly host: HostId; readonly memoryBytes: number; readonly vm: VmId }[] {
    return [...this.#entries.values()].flatMap((entry) =>
      (entry.stage === 'starting' || entry.stage === 'unsettled') &&
      entry.target !== null &&
      entry.wanted
        ? [{ host: entry.target, memoryBytes: entry.candidate.memoryBytes, vm: entry.vm }]
        : [],
    );
  }

  get isIdle(): boolean {
    return this.#entries.size === 0 && this.#dismissed.size === 0;
  }

  // ---- candidates and locks -----------------------------------------------------------------------

  #add(candidate: Candidate, nowMs: number): void {
    const entry = new Entry(candidate, nowMs);
    const { vm, name, from, isCutOff, prefer } = candidate;
    this.#entries.set(vm, entry);
    this.#order = null;
    const loss = prefer !== null ? 'guest' : from === null ? 'unknown' : 'host';
    // That a guest hangs is found out late: what counts is the last sign of it.
    const atMs = loss === 'guest' ? candidate.failedAtMs : nowMs;
    const pauseMs = this.#attempts.missing(vm, loss, atMs);
    entry.attempts = this.#attempts.failed(vm);
    if (this.#attempts.hasEndedSoon(vm)) entry.avoid = prefer;
    const where = from === null ? '' : `; it was on ${from}`;
    const why = isCutOff
      ? `it stands on ${from}, which can not use its objects`
      : `nobody reports it${where}`;
    this.#log.info(`${name}: missing (protected, and ${why})`, { vm });
    if (pauseMs === 0) return;
    const text = `its guest keeps ending soon after its start; the next attempt is in ${pauseMs / 1000} s`;
    this.#wait(entry, 'retry', text, nowMs + pauseMs, nowMs);
  }

  #waitForLock(entry: Entry, status: LockStatus, nowMs: number): void {
    const lock = this.#world.lock(entry.vm);
    const holder = status.holder ?? 'its last holder';
    const isElsewhere = lock?.holderIs === 'elsewhere' && lock.holder === status.holder;
    const isHeld = isElsewhere && entry.lockAsks > 1; // it was renewed since it was first asked for
    entry.renewedAtMs = nowMs + status.remainingMs - this.#leaseDurationMs;
    if (lock?.holderIs === 'silent') this.#announce(entry, nowMs);
    const text = isHeld
      ? `held by ${holder} in another partition, which runs it`
      : lock?.holderIs === 'here'
        ? `${holder} still holds its lock`
        : `the lease of ${holder} has not ended yet`;
    const waitMs = isHeld ? haLimits.slowLookMs : Math.max(status.remainingMs, 20);
    entry.held = isHeld;
    entry.askAtMs = nowMs + waitMs;
    this.#wait(entry, 'lock', text, nowMs, nowMs, !isElsewhere || isHeld);
  }

  #lockIsFree(entry: Entry, status: LockStatus, nowMs: number): void {
    entry.freeLock = status;
    this.#announce(entry, nowMs);
    this.#note(entry, 'lockFree', nowMs, `The lock of ${entry.name} is free.`);
    const access = this.#access(entry.vm);
    if (!access.accessible) return this.#wait(entry, 'storage', access.text, nowMs, nowMs);
    this.#toRestartList(entry, nowMs);
  }

  #toRestartList(entry: Entry, nowMs: number): void {
    const unmet = this.#world.unmet(entry.candidate);
    entry.heldBackAtMs ??= nowMs;
    if (unmet !== null && nowMs - entry.heldBackAtMs < haLimits.dependencyMs) {
      return this.#wait(entry, 'dependency', unmet, nowMs, nowMs);
    }
    this.#note(entry, 'accessible', nowMs, `All objects of ${entry.name} are accessible.`);
    entry.enter('restart', nowMs, this.#log, 'storage accessible');
  }

  /** Says that the VM failed; not before there is a sign that it does not just run elsewhere. */
  #announce(entry: Entry, nowMs: number): void {
    if (entry.announced) return;
    entry.announced = true;
    let detectedAtMs = entry.createdMs;
    if (entry.renewedAtMs > entry.createdMs) {
      // It was held by another partition, and failed only then.
      entry.candidate = { ...entry.candidate, failedAtMs: entry.renewedAtMs };
      detectedAtMs = nowMs;
    }
    this.#note(entry, 'detected', detectedAtMs, failureText(entry.candidate));
  }

  // ---- the wait list ------------------------------------------------------------------------------

  #wait(
    entry: Entry,
    reason: WaitReason,
    text: string,
    notBeforeMs: number,
    nowMs: number,
    tell = true,
  ): void {
    const wait = { reason, text, notBeforeMs, lookAtMs: 0 };
    wait.lookAtMs = nextLookMs(entry, wait, nowMs);
    entry.enter('waiting', nowMs, this.#log, text, wait);
    this.#probe.reached({ at: 'ha.waiting', vm: entry.vm, reason });
    if (!tell || entry.toldText === text) return;
    entry.toldText = text;
    this.#note(entry, 'waiting', nowMs, `${entry.name} waits for ${reason}: ${text}.`);
  }

  #startFailed(entry: Entry, text: string, nowMs: number): void {
    this.#attempts.startFailed(entry.vm, nowMs);
    this.#tryLater(entry, text, nowMs);
  }

  #tryLater(entry: Entry, text: string, nowMs: number): void {
    entry.attempts += 1;
    this.#wait(entry, 'retry', text, nowMs + this.#backOff(entry.attempts), nowMs);
  }

  #leaveWaits(notice: boolean, nowMs: number): void {
    const rooms = this.#rooms();
    this.#each((entry) => {
      const why = reasonToLeave(entry, this.#world, rooms, notice, nowMs);
      if (why === null) return;
      if (entry.freeLock === null) entry.enter('candidate', nowMs, this.#log, why);
      else if (entry.wait?.reason === 'storage' || entry.wait?.reason === 'dependency')
        this.#toRestartList(entry, nowMs);
      else entry.enter('restart', nowMs, this.#log, why);
    });
  }

  // ---- the restart list ---------------------------------------------------------------------------

  #placeAll(nowMs: number): void {
    const rooms = this.#rooms();
    const toAsk: Entry[] = [];
    this.#each((entry) => {
      if (entry.stage !== 'restart') return;
      const worthTrying = rooms.filter((room) => isWorthTrying(entry, room));
      const isFresh = entry.reach !== null && nowMs - entry.reach.atMs <= haLimits.reachFreshMs;
      if (worthTrying.length === 0) this.#noRoom(entry, rooms, nowMs);
      else if (worthTrying.every(isBusy)) return;
      else if (entry.reach === null || !isFresh) toAsk.push(entry);
      else this.#place(entry, entry.reach.hosts, worthTrying, rooms, nowMs);
    });
    if (toAsk.length === 0) return;
    const question = this.#nextQuestion++;
    for (const entry of toAsk) {
      entry.question = question;
      entry.enter('reaching', nowMs, this.#log, 'who can reach it?');
    }
    const vms = toAsk.map((entry) => entry.vm);
    this.#actions.push({ kind: 'askReach', question, vms, hosts: rooms.map((room) => room.host) });
  }

  #place(
    entry: Entry,
    reach: ReadonlySet<HostId>,
    worthTrying: readonly Room[],
    rooms: readonly Room[],
    nowMs: number,
  ): void {
    entry.reach = null; // an answer serves one placement
    const able = worthTrying.filter((room) => reach.has(room.host));
    if (reach.size === 0) {
      const text = `none of ${rooms.map((room) => room.host).join(', ')} can reach all its objects`;
      return this.#wait(entry, 'storage', text, nowMs + haLimits.retryMinMs, nowMs);
    }
    if (able.length === 0) return this.#noRoom(entry, rooms, nowMs);
    const dataHosts = this.#world.dataHosts(entry.vm);
    const room = take(entry, able, { dataHosts, crowd: this.#crowd(entry) });
    if (room === null) return; // they are busy; it keeps its turn
    entry.enter('starting', nowMs, this.#log, `${room.host} is told to start it`);
    this.#note(entry, 'placed', nowMs, `${entry.name} is placed on ${room.host}.`);
    const { vm, candidate, freeLock: lock } = entry;
    if (lock === null) throw new Error(`${entry.name} is placed before its lock is free`);
    this.#actions.push({ kind: 'start', vm, host: room.host, candidate, lock });
  }

  /** Those included that were told to start and are not reported yet. */
  #crowd({ vm, candidate }: Entry): ReadonlyMap<HostId, number> {
    if (candidate.separate === undefined) return new Map();
    const crowd = new Map(this.#world.crowd(candidate));
    for (const { host, vm: other } of this.ordered()) {
      const isApart = this.#entries.get(other)?.candidate.separate === candidate.separate;
      if (other !== vm && isApart) crowd.set(host, (crowd.get(host) ?? 0) + 1);
    }
    return crowd;
  }

  #noRoom(entry: Entry, rooms: readonly Room[], nowMs: number): void {
    const { unseen } = entry;
    if (unseen !== null) {
      entry.unseen = null;
      entry.tried.clear();
      return this.#startFailed(entry, unseen, nowMs);
    }
    for (const room of rooms) entry.tried.set(room.host, room.freeMemoryBytes);
    const { memoryBytes, cpus, affinity } = entry.candidate;
    const processors = cpus === 1 ? '1 processor' : `${cpus} processors`;
    const need = `${Math.ceil(memoryBytes / 2 ** 20)} MiB of memory and ${processors}`;
    const where = affinity?.required === true ? `none of ${affinity.hosts.join(', ')}` : 'no host';
    const text = `${where} that can reach it has ${need} for it`;
    this.#wait(entry, 'capacity', text, nowMs, nowMs);
  }

  /** The target had no room after all: it is of no use until it has more than now. */
  #refused(entry: Entry, text: string, nowMs: number): void {
    this.#wait(entry, 'capacity', text, nowMs, nowMs);
    const room = this.#rooms().find((it) => it.host === entry.target);
    if (room !== undefined) entry.tried.set(room.host, room.freeMemoryBytes);
    entry.target = null;
  }

  /** Its disk lies on storage that the target does not see: the others are tried before the target is again. */
  #unseen(entry: Entry, text: string, nowMs: number): void {
    entry.unseen = text;
    if (entry.target !== null) entry.tried.set(entry.target, Number.POSITIVE_INFINITY); // no room helps
    entry.target = null;
    this.#wait(entry, 'retry', text, nowMs, nowMs);
  }

  #rooms(): Room[] {
    return roomsOf(this.#world.targets(), this.#entries.values(), this.#pace);
  }

  // ---- the end ------------------------------------------------------------------------------------

  #started(entry: Entry, nowMs: number): void {
    if (entry.started) return;
    entry.started = true;
    this.#attempts.started(entry.vm, nowMs);
    this.#note(entry, 'started', nowMs, `${entry.name} has been started on ${entry.target}.`);
  }

  /** Whether a VM that was or may have been started shows; else its lock is asked for again. */
  #settle(entry: Entry, nowMs: number): void {
    const condition = entry.target === null ? 'failed' : this.#world.condition(entry.target);
    const isOver = nowMs - entry.sinceMs >= haLimits.settleMs && condition === 'linked';
    if (condition !== 'failed' && !isOver) {
      if (nowMs - entry.sinceMs >= haLimits.settleMs) entry.sinceMs = nowMs; // suspected: wait on
      return;
    }
    const why = `${entry.target} ${condition === 'failed' ? 'failed' : 'does not report it'}`;
    entry.freeLock = null;
    entry.started = false;
    entry.target = null;
    this.#attempts.missing(entry.vm, 'host', nowMs);
    entry.enter('candidate', nowMs, this.#log, why);
  }

  #remove(entry: Entry, nowMs: number, why: string): void {
    entry.leave(this.#log, why);
    this.#attempts.over(entry.vm, nowMs);
    this.#entries.delete(entry.vm);
    this.#order = null;
    this.#note(entry, 'over', nowMs, why);
  }

  #dismiss(entry: Entry, nowMs: number, why: string): void {
    this.#dismissed.set(entry.vm, nowMs + haLimits.dismissMs);
    this.#remove(entry, nowMs, why);
  }

  #isDismissed(vm: VmId, nowMs: number): boolean {
    return (this.#dismissed.get(vm) ?? 0) > nowMs;
  }

  // ---- small helpers ------------------------------------------------------------------------------

  /** In order of priority; what is wrong with one VM is logged and stops no other. */
  #each(work: (entry: Entry) => void): void {
    for (const entry of this.#inOrder()) {
      try {
        work(entry);
      } catch (error) {
        this.#log.error(`${entry.name}: ${String(error)}`, { vm: entry.vm });
      }
    }
  }

  #inOrder(): Entry[] {
    this.#order ??= [...this.#entries.values()].sort(compareEntries);
    return this.#order;
  }

  #access(vm: VmId): Accessibility {
    const none = {
      accessible: false,
      object: null,
      hosts: [],
      text: 'this host does not know it',
    } as const;
    return this.#world.accessibility([vm]).get(vm) ?? none;
  }

  /** Exponential, between half and the whole of it, so that many VMs do not come at once. */
  #backOff(attempt: number): number {
    const wholeMs = Math.min(haLimits.retryMaxMs, haLimits.retryMinMs * 2 ** (attempt - 1));
    return wholeMs * (0.5 + this.#random.next() / 2);
  }

  #note(entry: Entry, type: NoteType, atMs: number, text: string): void {
    const { candidate, target } = entry;
    this.#actions.push({ kind: 'note', note: { type, candidate, atMs, host: target, text } });
  }
}
