// What an agent tells the master of the VMs that its own host reaches, where the master's host may not reach
// them (docs/protocols/ha.md, "VMs that the master's host can not reach"). It keeps what it has told with a
// version, so that it tells only what is new since, and begins when it is asked for the first time.

import type { HostId, VmId } from '../model/ids.ts';
import type { Clock } from '../ports/clock.ts';
import type { Storage } from '../storage/api.ts';
import { haLimits } from './limits.ts';
import type { OutlookAnswer, OutlookQuestion, ToldVm } from './messages.ts';
import type { ProtectionView } from './protection-view.ts';

interface Told {
  /** In which version it changed last. */
  readonly version: number;
  /** Of the namespace record; null: it is not reached. */
  readonly revision: number | null;
}

export class Outlook {
  readonly #storage: Storage;
  readonly #view: ProtectionView;
  readonly #clock: Clock;
  readonly #instance: string;
  readonly #tellNews: (master: HostId) => void;
  readonly #told = new Map<VmId, Told>();
  #version = 0;
  /** Of which VMs there may be news; null: of any. */
  #news: Set<VmId> | null = null;
  #reached = '';
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  /** Who asked last, and whether it has been told since that there is news. */
  #asker: { readonly host: HostId; readonly atMs: number; isTold: boolean } | null = null;

  constructor(options: {
    readonly storage: Storage;
    readonly view: ProtectionView;
    readonly clock: Clock;
    readonly instance: string;
    readonly tellNews: (master: HostId) => void;
  }) {
    this.#storage = options.storage;
    this.#view = options.view;
    this.#clock = options.clock;
    this.#instance = options.instance;
    this.#tellNews = options.tellNews;
  }

  /** Something may be new of these VMs. */
  changed(vms: readonly VmId[]): void {
    const asker = this.#asker;
    if (asker === null) return;
    if (this.#clock.now() - asker.atMs >= haLimits.outlookFullMs) {
      this.#asker = null; // nobody asks any more
      this.#news = null;
      return;
    }
    for (const vm of vms) this.#news?.add(vm);
    if (!asker.isTold) this.#tellNews(asker.host);
    asker.isTold = true;
  }

  answer(from: HostId, { instance, since }: OutlookQuestion): OutlookAnswer {
    this.#look();
    this.#asker = { host: from, atMs: this.#clock.now(), isTold: false };
    const known = instance === this.#instance ? since : 0;
    const news = [...this.#told]
      .filter(([, { version }]) => version > known)
      .sort(([, a], [, b]) => a.version - b.version);
    const part = news.slice(0, haLimits.outlookVmsAtOnce);
    const [, last] = part.at(-1) ?? [null, { version: this.#version }];
    const answer = { instance: this.#instance, version: last.version };
    const isMore = part.length < news.length;
    return { ...answer, isMore, ...this.#tell(part.map(([vm]) => vm)) };
  }

  #tell(vms: readonly VmId[]): Pick<OutlookAnswer, 'vms' | 'gone' | 'removed'> {
    const states = this.#view.of(vms);
    const seen: ToldVm[] = [];
    const gone: VmId[] = [];
    const removed: VmId[] = [];
    for (const vm of vms) {
      const view = this.#storage.vm(vm);
      if (view === null || view.lifecycle !== 'ready') removed.push(vm);
      else if (this.#told.get(vm)?.revision === null) gone.push(vm);
      else {
        const { name, revision, lock, dataHosts } = view;
        const { holder, epoch } = lock;
        const state = states.get(vm) ?? null;
        seen.push({ vm, name, revision, lock: { holder, epoch }, dataHosts, state });
      }
    }
    return { vms: seen, gone, removed };
  }

  /** At all VMs where it is not known of which there are news: what becomes inaccessible is told by nobody. */
  #look(): void {
    const nowMs = this.#clock.now();
    const reached = this.#storage.reachableHosts().join();
    const isOld = nowMs - this.#lookedAtMs >= haLimits.outlookFullMs;
    const news = isOld || reached !== this.#reached ? null : this.#news;
    const access = this.#storage.accessibility(news === null ? undefined : [...news]);
    if (news === null) this.#lookedAtMs = nowMs;
    this.#reached = reached;
    this.#news = new Set();
    for (const vm of news ?? new Set([...this.#told.keys(), ...access.keys()])) {
      const isReached = access.get(vm)?.accessible === true;
      this.#note(vm, isReached ? (this.#storage.vm(vm)?.revision ?? null) : null);
    }
  }

  #note(vm: VmId, revision: number | null): void {
    const told = this.#told.get(vm);
    if (told === undefined ? revision === null : told.revision === revision) return;
    this.#version += 1;
    this.#told.set(vm, { version: this.#version, revision });
  }
}
