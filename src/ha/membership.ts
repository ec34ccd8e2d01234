// What was last heard from whom on the HA network. It turns heartbeats and silence into conditions of
// links, and keeps each host's list of VMs with the moment at which a VM was last seen. It draws no
// conclusions: whether a silent host is dead is for others, with more evidence, to say.
//
// A host counts as heard by heartbeats that say that it hears us too. Silence before this agent was
// started counts from its start, so that nobody fails who had no time to speak.

import type { HostId, VmId } from '../model/ids.ts';
import type { Timings } from '../model/limits.ts';
import type { RunningVm } from './api.ts';
import type { Heartbeat, VmList } from './messages.ts';

export type Condition = 'linked' | 'suspected' | 'failed';

export interface Member {
  readonly host: HostId;
  /** Any last heartbeat, and the last one of a link that works both ways. */
  heardAtMs: number | null;
  linkedAtMs: number | null;
  /** Which of its daemons that was; null: there was none. */
  linkedInstance: string | null;
  /** Its kernel has ended the session, and nothing has been heard since. */
  hasClosed: boolean;
  /** From when on silence counts where nothing was heard. */
  sinceMs: number;
  condition: Condition;
  beat: Heartbeat | null;
  list: VmList | null;
}

interface LastSeen {
  readonly host: HostId;
  /** When its host reported a list without it, or if it hung by then, the last sign of its guest; null while the
   * last list has it. */
  readonly goneAtMs: number | null;
  /** Its guest hung when it was gone. */
  readonly hasHung: boolean;
}

/** What a heartbeat asks of its receiver. */
export interface Heard {
  /** It says something new, or the link is new. */
  readonly changed: boolean;
  /** The host was silent before and may not know yet that it is heard. */
  readonly answer: boolean;
  /** Its list of VMs is not the one that we have. */
  readonly wantsList: boolean;
}

export interface ConditionChange {
  readonly member: Member;
  readonly before: Condition;
}

export class Membership {
  readonly #self: HostId;
  readonly #timings: Timings;
  readonly #members = new Map<HostId, Member>();
  readonly #lastSeen = new Map<VmId, LastSeen>();
  /** What each host, this one included, listed last. */
  readonly #listed = new Map<HostId, readonly RunningVm[]>();
  /** Hosts whose last list counts no more. */
  readonly #restarted = new Set<HostId>();
  /** VMs that several hosts have listed: whichever list comes next says where they were seen last. */
  readonly #disputed = new Set<VmId>();
  /** Who lists a VM in the list that counts now: one host, but for moments. */
  readonly #reporters = new Map<VmId, HostId[]>();
  /** VMs that stand for want of a lease, by the host that lists them, and since when. */
  readonly #paused = new Map<HostId, ReadonlyMap<VmId, number>>();
  /** VMs whose guests hang, by the host that lists them, and when there was the last sign of each. */
  readonly #hung = new Map<HostId, ReadonlyMap<VmId, number>>();
  /** VMs whose reporters, or these hosts' conditions, changed since somebody last asked for them; null
   * where nobody does. */
  #touched: Set<VmId> | null = null;
  /** What this host itself listed last. */
  #own: readonly RunningVm[] = [];
  /** Grows with every change of a list or of a condition. */
  version = 0;

  constructor(self: HostId, timings: Timings) {
    this.#self = self;
    this.#timings = timings;
  }

  /** All other members. */
  members(): Iterable<Member> {
    return this.#members.values();
  }

  hosts(): Iterable<HostId> {
    return this.#members.keys();
  }

  get count(): number {
    return this.#members.size;
  }

  member(host: HostId): Member | undefined {
    return this.#members.get(host);
  }

  linked(): Member[] {
    return [...this.#members.values()].filter((member) => member.condition === 'linked');
  }

  /** Takes over who belongs to the cluster; returns who does not any more. */
  setMembers(hosts: readonly HostId[], nowMs: number): HostId[] {
    for (const host of hosts) {
      if (host === this.#self || this.#members.has(host)) continue;
      this.#members.set(host, {
        host,
        heardAtMs: null,
        linkedAtMs: null,
        linkedInstance: null,
        hasClosed: false,
        sinceMs: nowMs,
        condition: 'suspected',
        beat: null,
        list: null,
      });
      this.version += 1;
    }
    const others = hosts.includes(this.#self) ? hosts.length - 1 : hosts.length;
    if (others === this.#members.size) return []; // each of them is here by now, so nobody else is
    const gone = [...this.#members.keys()].filter((host) => !hosts.includes(host));
    for (const host of gone) {
      this.#dropList(host);
      this.#members.delete(host);
      this.version += 1;
    }
    return gone;
  }

  /** Whether this host hears the other one; what its heartbeats tell that one. */
  hears(host: HostId, nowMs: number): boolean {
    const heardAtMs = this.#members.get(host)?.heardAtMs ?? null;
    return heardAtMs !== null && nowMs - heardAtMs < this.#timings.suspectAfterMs;
  }

  heard(from: HostId, beat: Heartbeat, nowMs: number): Heard {
    const member = this.#members.get(from);
    if (member === undefined) return { changed: false, answer: false, wantsList: false };
    const answer = !this.hears(from, nowMs);
    const before = member.beat;
    member.beat = beat;
    member.heardAtMs = nowMs;
    member.hasClosed = false;
    if (member.list !== null && member.list.instance !== beat.instance) {
      this.#dropList(from);
      member.list = null; // the daemon was restarted and has not said yet what it runs
      this.version += 1;
    }
    let changed = before === null || !saysTheSame(before, beat);
    if (beat.hearsYou) {
      member.linkedAtMs = nowMs;
      member.linkedInstance = beat.instance;
      if (member.condition !== 'linked') {
        member.condition = 'linked';
        this.#touch(member);
        this.version += 1;
        changed = true;
      }
    }
    return { changed, answer, wantsList: member.list?.version !== beat.listVersion };
  }

  /** Its kernel ended the session: the host lives, its daemon most likely does not. */
  closed(host: HostId): void {
    const member = this.#members.get(host);
    if (member !== undefined) member.hasClosed = true;
  }

  /** Takes a list over; false if it is an older one or of nobody we know. */
  listed(from: HostId, list: VmList, nowMs: number): boolean {
    const member = this.#members.get(from);
    if (member === undefined) return false;
    const before = member.list;
    if (before?.instance === list.instance && before.version >= list.version) return false;
    this.#report(from, list.vms, member.list?.vms ?? []);
    member.list = list;
    this.version += 1;
    this.sawList(from, list.vms, nowMs);
    return true;
  }

  /** Remembers who runs what; for this host's own list as well. */
  sawList(host: HostId, vms: readonly RunningVm[], nowMs: number): void {
    if (host === this.#self) {
      this.#report(host, vms, this.#own);
      this.#own = vms;
    }
    const { added, gone } = difference(this.#listed.get(host) ?? [], vms);
    this.#listed.set(host, vms);
    this.#notePaused(host, vms, nowMs);
    const hung = this.#hung.get(host);
    this.#noteHung(host, vms, nowMs);
    const here: LastSeen = { host, goneAtMs: null, hasHung: false };
    for (const vm of added) this.#lastSeen.set(vm, here);
    // After a restart of the host others may have run, unnoticed, what both its lists have.
    if (this.#restarted.delete(host)) for (const { vm } of vms) this.#lastSeen.set(vm, here);
    for (const vm of this.#disputed) {
      const hosts = this.#reporters.get(vm) ?? [];
      if (hosts.includes(host)) this.#lastSeen.set(vm, here);
      if (hosts.length <= 1 && (hosts[0] ?? host) === host) this.#disputed.delete(vm);
    }
    for (const vm of gone) {
      const seen = this.#lastSeen.get(vm);
      if (seen?.host === host && seen.goneAtMs === null) {
        const lastSignMs = hung?.get(vm);
        const hasHung = lastSignMs !== undefined;
        this.#lastSeen.set(vm, { host, goneAtMs: lastSignMs ?? nowMs, hasHung });
      }
    }
  }

  /** Who says that it runs the VM, of all hosts that are not known to have failed: one where it does not stand
   * before others, this host before others, and of those the one that was a member last. */
  runsOn(vm: VmId): HostId | null {
    const hosts = this.#reporters.get(vm);
    if (hosts === undefined) return null;
    const alive = hosts.filter(
      (host) => host === this.#self || this.#members.get(host)?.condition !== 'failed',
    );
    if (alive.length <= 1) return alive[0] ?? null;
    const moving = alive.filter((host) => this.#paused.get(host)?.has(vm) !== true);
    const able = moving.length > 0 ? moving : alive;
    if (able.includes(this.#self)) return this.#self;
    return [...this.#members.keys()].findLast((host) => able.includes(host)) ?? null;
  }

  /** Who says that it runs the VM, and what it says of it. */
  report(vm: VmId): { readonly host: HostId; readonly row: RunningVm } | null {
    const host = this.runsOn(vm);
    const rows = host === null ? [] : (this.#listed.get(host) ?? []);
    const row = rows.find((one) => one.vm === vm);
    return host === null || row === undefined ? null : { host, row };
  }

  /** Since when the VM stands on the host that lists it; null where it does not, or nobody does. */
  pausedSince(vm: VmId): number | null {
    const host = this.#paused.size === 0 ? null : this.runsOn(vm);
    return host === null ? null : (this.#paused.get(host)?.get(vm) ?? null);
  }

  get hasPaused(): boolean {
    return this.#paused.size > 0;
  }

  /** VMs that stand somewhere. */
  paused(): Set<VmId> {
    return new Set([...this.#paused.values()].flatMap((vms) => [...vms.keys()]));
  }

  /** Guests that hang, where they run. */
  hung(): { readonly host: HostId; readonly row: RunningVm }[] {
    if (this.#hung.size === 0) return []; // as almost always
    const vms = [...this.#hung.values()].flatMap((hung) => [...hung.keys()]);
    return [...new Set(vms)].flatMap((vm) => {
      const report = this.report(vm);
      return report?.row.hung === true ? [report] : [];
    });
  }

  #noteHung(host: HostId, vms: readonly RunningVm[], nowMs: number): void {
    const before = this.#hung.get(host);
    const hung = vms.filter((vm) => vm.hung);
    const { guestSilentAfterMs, guestHungAfterMs } = this.#timings;
    const lastSignMs = nowMs - guestSilentAfterMs - guestHungAfterMs;
    if (hung.length === 0) this.#hung.delete(host);
    else this.#hung.set(host, new Map(hung.map(({ vm }) => [vm, before?.get(vm) ?? lastSignMs])));
  }

  #notePaused(host: HostId, vms: readonly RunningVm[], nowMs: number): void {
    const before = this.#paused.get(host);
    const paused = vms.filter(({ state }) => state === 'paused');
    if (paused.length === 0) this.#paused.delete(host);
    else this.#paused.set(host, new Map(paused.map(({ vm }) => [vm, before?.get(vm) ?? nowMs])));
    for (const vm of before?.keys() ?? []) this.#touched?.add(vm);
  }

  /** VMs of which `runsOn` may answer otherwise than when this was last asked; null: any of them may. */
  takeTouched(): ReadonlySet<VmId> | null {
    const touched = this.#touched;
    this.#touched = new Set();
    return touched;
  }

  /** Nobody asks for them any more. */
  forgetTouched(): void {
    this.#touched = null;
  }

  #report(host: HostId, vms: readonly RunningVm[], before: readonly RunningVm[]): void {
    const { added, gone } = difference(before, vms);
    for (const vm of added) {
      const others = this.#reporters.get(vm);
      if (others !== undefined) this.#disputed.add(vm);
      this.#reporters.set(vm, others === undefined ? [host] : [...others, host]);
      this.#touched?.add(vm);
    }
    for (const vm of gone) {
      const others = (this.#reporters.get(vm) ?? []).filter((one) => one !== host);
      if (others.length === 0) this.#reporters.delete(vm);
      else this.#reporters.set(vm, others);
      this.#touched?.add(vm);
    }
  }

  #dropList(host: HostId): void {
    this.#restarted.add(host);
    this.#paused.delete(host);
    this.#hung.delete(host);
    this.#report(host, [], this.#members.get(host)?.list?.vms ?? []);
  }

  #touch(member: Member): void {
    for (const { vm } of member.list?.vms ?? []) this.#touched?.add(vm);
  }

  lastSeen(vm: VmId): LastSeen | null {
    return this.#lastSeen.get(vm) ?? null;
  }

  forgetVm(vm: VmId): void {
    this.#lastSeen.delete(vm);
  }

  /** Lets silence take effect; returns whose condition it changed. */
  expire(nowMs: number): ConditionChange[] {
    const changes: ConditionChange[] = [];
    for (const member of this.#members.values()) {
      const silentMs = nowMs - lastSign(member);
      const condition = this.#conditionAfter(silentMs, member.condition);
      if (condition === member.condition) continue;
      changes.push({ member, before: member.condition });
      member.condition = condition;
      this.#touch(member);
      this.version += 1;
    }
    return changes;
  }

  /** When silence next takes effect if nothing more is heard. */
  nextExpiryMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const member of this.#members.values()) {
      if (member.condition === 'failed') continue;
      const { suspectAfterMs, failAfterMs } = this.#timings;
      const after = member.condition === 'linked' ? suspectAfterMs : failAfterMs;
      next = Math.min(next, lastSign(member) + after);
    }
    return next;
  }

  /** This host stood still: what it did not hear meanwhile says nothing about the others. */
  forgive(nowMs: number): void {
    for (const member of this.#members.values()) {
      if (member.condition === 'failed') continue;
      member.sinceMs = nowMs;
      if (member.heardAtMs !== null) member.heardAtMs = nowMs;
      if (member.linkedAtMs !== null) member.linkedAtMs = nowMs;
    }
  }

  /** Every member either told what it runs, or has been silent long enough to count as failed. */
  isComplete(): boolean {
    return [...this.#members.values()].every(
      (member) => member.condition === 'failed' || member.list !== null,
    );
  }

  #conditionAfter(silentMs: number, before: Condition): Condition {
    // The same sums as in nextExpiryMs, compared with a little slack for rounding.
    if (silentMs + 0.01 >= this.#timings.failAfterMs) return 'failed';
    if (silentMs + 0.01 >= this.#timings.suspectAfterMs)
      return before === 'failed' ? 'failed' : 'suspected';
    return before;
  }
}

/** Which VMs one list has and the other has not. Lists grow at their end and lose one VM at a time: what
 * both begin and end with is passed over, the rest is small. (10,000 starts on 64 hosts send 15,000
 * lists of up to 156 VMs, each to 63 hosts.) */
function difference(
  before: readonly RunningVm[],
  after: readonly RunningVm[],
): { readonly added: ReadonlySet<VmId>; readonly gone: ReadonlySet<VmId> } {
  let first = 0;
  const shorter = Math.min(before.length, after.length);
  while (first < shorter && before[first]?.vm === after[first]?.vm) first += 1;
  let tail = 0;
  while (tail < shorter - first && before.at(-1 - tail)?.vm === after.at(-1 - tail)?.vm) tail += 1;
  const gone = new Set<VmId>();
  const added = new Set<VmId>();
  for (let index = first; index < before.length - tail; index += 1) {
    gone.add((before[index] as RunningVm).vm);
  }
  for (let index = first; index < after.length - tail; index += 1) {
    const { vm } = after[index] as RunningVm;
    if (!gone.delete(vm)) added.add(vm);
  }
  return { added, gone };
}

function lastSign(member: Member): number {
  return member.linkedAtMs ?? member.sinceMs;
}

function saysTheSame(a: Heartbeat, b: Heartbeat): boolean {
  return (
    a.role === b.role &&
    a.master === b.master &&
    a.term === b.term &&
    a.reachable === b.reachable &&
    a.cpus === b.cpus &&
    a.memoryBytes === b.memoryBytes &&
    a.instance === b.instance
  );
}
