// What a master sees of VMs: with its own directory where its own host reaches them, and through its agents
// where only they do (docs/protocols/ha.md, "VMs that the master's host can not reach"). Of the agents it asks
// those that together reach all that any of them reaches and it does not: its lookouts.

import type { HostId, VmId } from '../model/ids.ts';
import type { ProtectionState } from '../model/protection.ts';
import type { Attempts } from '../model/restart.ts';
import { noPayload } from '../peer/frame.ts';
import type { Peer } from '../peer/peer.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Accessibility, LockStatus, Storage } from '../storage/api.ts';
import { haLimits } from './limits.ts';
import type { Member, Membership } from './membership.ts';
import type { OutlookAnswer, OutlookQuestion, ToldVm } from './messages.ts';
import type { HaState } from './protection-view.ts';
import type { SeenVm, Sight } from './sight.ts';

const timeoutMs = haLimits.inPlaceTimeoutMs;

interface Lookout {
  readonly host: HostId;
  /** Of its last answer. */
  instance: string | null;
  since: number;
  readonly vms: Map<VmId, ToldVm>;
  isAsked: boolean;
  askedAtMs: number;
  askAtMs: number;
}

export class AgentsSight implements Sight {
  readonly #self: HostId;
  readonly #own: Sight;
  readonly #storage: Storage;
  readonly #membership: Membership;
  readonly #peer: Peer;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Some of these VMs are seen otherwise than before. */
  readonly #onNews: (vms: readonly VmId[]) => void;
  readonly #lookouts = new Map<HostId, Lookout>();
  /** What was told of VMs that the own directory may not know; null: they are removed. */
  readonly #remembered = new Map<VmId, ToldVm | null>();
  #lastBest: ReadonlySet<HostId> = new Set();
  #choseAtMs = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(options: {
    readonly self: HostId;
    readonly own: Sight;
    readonly storage: Storage;
    readonly membership: Membership;
    readonly peer: Peer;
    readonly clock: Clock;
    readonly log: Log;
    readonly onNews: (vms: readonly VmId[]) => void;
  }) {
    this.#self = options.self;
    this.#own = options.own;
    this.#storage = options.storage;
    this.#membership = options.membership;
    this.#peer = options.peer;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#onNews = options.onNews;
  }

  // ---- what is seen -------------------------------------------------------------------------------

  states(vms: readonly VmId[] | null): ReadonlyMap<VmId, HaState> {
    const own = this.#own.states(vms);
    if (this.#lookouts.size === 0) return own;
    const states = new Map(own);
    for (const vm of vms ?? this.#told()) {
      const state = states.has(vm) ? null : this.#through(vm)?.told.state;
      if (state != null) states.set(vm, state);
    }
    return states;
  }

  vm(vm: VmId): SeenVm | null {
    const through = this.#through(vm);
    if (through !== null) return through.told;
    const remembered = this.#remembered.get(vm);
    return remembered === null ? null : (this.#own.vm(vm) ?? remembered ?? null);
  }

  accessibility(vms: readonly VmId[]): ReadonlyMap<VmId, Accessibility> {
    const own = this.#own.accessibility(vms);
    if (this.#lookouts.size === 0) return own;
    const all = new Map(own);
    for (const vm of vms) {
      const isOwn = own.get(vm)?.accessible === true;
      if (!isOwn && this.#best(vm) !== null) all.set(vm, { accessible: true });
    }
    return all;
  }

  reaches(host: HostId): boolean {
    if (this.#own.reaches(host)) return true;
    return [...this.#lookouts.keys()].some(
      (lookout) => this.#membership.member(lookout)?.list?.reaches.includes(host) === true,
    );
  }

  async lockStatus(vm: VmId): Promise<LockStatus> {
    const through = this.#through(vm);
    if (through === null) return this.#own.lockStatus(vm);
    return (await this.#peer.ask(
      through.host,
      'ha.lockStatus',
      { vm },
      timeoutMs,
    )) as unknown as LockStatus;
  }

  async protect(vm: VmId, state: ProtectionState): Promise<void> {
    const through = this.#through(vm);
    if (through === null) return this.#own.protect(vm, state);
    await this.#peer.ask(through.host, 'ha.setProtection', { vm, state: { ...state } }, timeoutMs);
  }

  async saveAttempts(vm: VmId, attempts: Attempts | null): Promise<void> {
    const through = this.#through(vm);
    if (through === null) return this.#own.saveAttempts(vm, attempts);
    const order = { vm, attempts: attempts === null ? null : { ...attempts } };
    await this.#peer.ask(through.host, 'ha.saveAttempts', order, timeoutMs);
  }

  /** Null: the own host reaches it, or no lookout does. */
  #through(vm: VmId): { readonly host: HostId; readonly told: ToldVm } | null {
    if (this.#lookouts.size === 0) return null;
    return this.#own.accessibility([vm]).get(vm)?.accessible === true ? null : this.#best(vm);
  }

  /** The lookout with the newest word of the VM. */
  #best(vm: VmId): { readonly host: HostId; readonly told: ToldVm } | null {
    let best: { host: HostId; told: ToldVm } | null = null;
    for (const { host, vms } of this.#lookouts.values()) {
      const told = vms.get(vm);
      if (told !== undefined && told.revision > (best?.told.revision ?? -1)) best = { host, told };
    }
    return best;
  }

  #told(): Set<VmId> {
    return new Set([...this.#lookouts.values()].flatMap(({ vms }) => [...vms.keys()]));
  }

  // ---- the lookouts -------------------------------------------------------------------------------

  advance(nowMs: number): void {
    if (nowMs - this.#choseAtMs >= haLimits.outlookMs) {
      this.#choseAtMs = nowMs;
      this.#choose(nowMs);
    }
    for (const lookout of this.#lookouts.values()) {
      if (!lookout.isAsked && nowMs >= lookout.askAtMs) this.#look(lookout);
    }
  }

  nextWakeMs(): number {
    const idle = [...this.#lookouts.values()].filter(({ isAsked }) => !isAsked);
    return Math.min(Number.POSITIVE_INFINITY, ...idle.map(({ askAtMs }) => askAtMs));
  }

  /** The host says that there is something new. */
  hasNews(host: HostId): void {
    const lookout = this.#lookouts.get(host);
    if (lookout === undefined) return;
    const earliestMs = lookout.askedAtMs + haLimits.outlookPauseMs;
    lookout.askAtMs = Math.min(lookout.askAtMs, Math.max(earliestMs, this.#clock.now()));
  }

  close(): void {
    this.#isClosed = true;
    this.#lookouts.clear();
  }

  /** Lists of a moment at which hosts come or go do not fit each other: who is best twice running is chosen. */
  #choose(nowMs: number): void {
    const best = this.#bestLookouts();
    const chosen = new Set([...best].filter((host) => this.#lastBest.has(host)));
    this.#lastBest = best;
    for (const [host, { vms }] of this.#lookouts) {
      if (chosen.has(host)) continue;
      this.#lookouts.delete(host);
      this.#log.info(`${host} is no lookout any more`);
      this.#onNews([...vms.keys()]);
    }
    for (const host of chosen) {
      if (this.#lookouts.has(host)) continue;
      const never = {
        instance: null,
        since: 0,
        isAsked: false,
        askedAtMs: Number.NEGATIVE_INFINITY,
      };
      this.#lookouts.set(host, { host, ...never, askAtMs: nowMs, vms: new Map() });
      this.#log.info(`${host} is lookout for VMs that ${this.#self} does not reach`);
    }
    if (chosen.size === 0) this.#remembered.clear();
  }

  /** Those that reach most first, and of equals one that is lookout already. */
  #bestLookouts(): ReadonlySet<HostId> {
    const seen = [new Set(this.#storage.reachableHosts())];
    const able = this.#membership.linked().filter(({ beat }) => beat?.master === this.#self);
    const reached = ({ list }: Member) => list?.reaches ?? [];
    const better = (a: Member, b: Member) =>
      reached(b).length - reached(a).length ||
      Number(this.#lookouts.has(b.host)) - Number(this.#lookouts.has(a.host)) ||
      (a.host < b.host ? -1 : 1);
    const chosen = new Set<HostId>();
    for (const member of able.sort(better)) {
      const reaches = reached(member);
      if (seen.some((others) => reaches.every((host) => others.has(host)))) continue;
      seen.push(new Set(reaches));
      chosen.add(member.host);
    }
    return chosen;
  }

  #look(lookout: Lookout): void {
    lookout.isAsked = true;
    lookout.askedAtMs = this.#clock.now();
    lookout.askAtMs = lookout.askedAtMs + haLimits.outlookMs;
    const question: OutlookQuestion = { instance: lookout.instance, since: lookout.since };
    this.#peer.request(
      lookout.host,
      'ha.outlook',
      { ...question },
      noPayload,
      haLimits.outlookTimeoutMs,
      (error, answer) => {
        lookout.isAsked = false;
        if (this.#isClosed || this.#lookouts.get(lookout.host) !== lookout) return;
        if (error !== null) this.#log.debug(`${lookout.host} as lookout: ${error.message}`);
        else this.#heard(lookout, answer as unknown as OutlookAnswer);
      },
    );
  }

  #heard(lookout: Lookout, answer: OutlookAnswer): void {
    const before = lookout.instance === answer.instance ? [] : [...lookout.vms.keys()];
    for (const vm of before) lookout.vms.delete(vm); // it tells all, from the beginning
    lookout.instance = answer.instance;
    lookout.since = answer.version;
    if (answer.isMore) lookout.askAtMs = this.#clock.now();
    for (const told of answer.vms) {
      lookout.vms.set(told.vm, told);
      this.#remembered.set(told.vm, told);
    }
    for (const vm of [...answer.gone, ...answer.removed]) lookout.vms.delete(vm);
    for (const vm of answer.removed) this.#remembered.set(vm, null);
    const news = [...before, ...answer.vms.map(({ vm }) => vm), ...answer.gone, ...answer.removed];
    if (news.length > 0) this.#onNews(news);
  }
}
