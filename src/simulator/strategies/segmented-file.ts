// `segmented-file`: every master writes a segment of its own, which is on its own host and so never
// out of its reach; all segments together are the file, and everybody reads the copies that reached
// it. Nothing is ever refused. The price is paid when partitions heal: segments may contradict each
// other, and only their authors' wall clocks are left to choose by.
//
// Each entry names what its author had seen of the other segments. An entry that somebody has seen
// and replaced counts no more; where two are left that have not seen each other, the later one wins.

import { HoldfastError } from '../../model/errors.ts';
import type { HostId, VmId } from '../../model/ids.ts';
import type { JsonValue } from '../../model/json.ts';
import { type ProtectionState, readProtection } from '../../model/protection.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Storage } from '../../storage/api.ts';
import { fileService, HiddenVm, segmentName } from './hidden-vms.ts';
import {
  assertNewer,
  Differences,
  newest,
  type ProtectionFile,
  type States,
} from './protection-file.ts';
import type { Shared } from './shared.ts';

interface Entry {
  readonly host: HostId;
  readonly state: ProtectionState;
  /** By the author's wall clock. */
  readonly atMs: number;
  /** Grows with each entry of this VM in this segment. */
  readonly number: number;
  /** Segment -> number of the last entry that the author had seen there. */
  readonly saw: Readonly<Record<string, number>>;
}

export class SegmentedFile implements ProtectionFile {
  readonly guardsStarts = false;
  readonly vm = null;
  readonly #self: HostId;
  readonly #storage: Storage;
  readonly #clock: Clock;
  readonly #members: () => readonly HostId[];
  readonly #shared: Shared;
  readonly #segments = new Map<HostId, HiddenVm>();
  readonly #numbers = new Map<VmId, number>();

  constructor(options: {
    readonly self: HostId;
    readonly storage: Storage;
    readonly clock: Clock;
    readonly members: () => readonly HostId[];
    readonly shared: Shared;
  }) {
    this.#self = options.self;
    this.#storage = options.storage;
    this.#clock = options.clock;
    this.#members = options.members;
    this.#shared = options.shared;
  }

  read(): States {
    const states = new Map<VmId, ProtectionState>();
    for (const [vm, entries] of this.#all()) {
      const winner = latest(unseen(entries));
      if (winner !== undefined) states.set(vm, winner.state);
    }
    return states;
  }

  async write(vm: VmId, state: ProtectionState): Promise<void> {
    const segment = this.#segment(this.#self).vm;
    if (segment === null) {
      throw new HoldfastError('inaccessible', `the segment of ${this.#self} is not known yet`);
    }
    const entries = this.#all().get(vm) ?? [];
    assertNewer(vm, latest(unseen(entries))?.state, state);
    const written = entries.find((entry) => entry.host === this.#self)?.number ?? 0;
    const number = Math.max(written, this.#numbers.get(vm) ?? 0) + 1;
    this.#numbers.set(vm, number);
    const saw = Object.fromEntries(entries.map((entry) => [entry.host, entry.number]));
    const value = { state: { ...state }, atMs: this.#clock.wallTime(), number, saw };
    await this.#storage.setMetadata(segment, fileService, vm, value);
  }

  switchedOff(vm: VmId, state: ProtectionState): Promise<void> {
    return this.write(vm, state);
  }

  watch(listener: (vms: readonly VmId[]) => void): void {
    const differences = new Differences();
    this.#storage.watchMetadata(fileService, () => {
      for (const [vm, entries] of this.#all()) this.#countConflicts(vm, entries);
      const changed = differences.since(this.read());
      if (changed.length > 0) listener(changed);
    });
  }

  #countConflicts(vm: VmId, entries: readonly Entry[]): void {
    const rivals = unseen(entries);
    const winner = latest(rivals);
    if (winner === undefined) return;
    const others = rivals.filter((entry) => contradict(entry.state, winner.state));
    if (others.length === 0) return;
    const names = rivals.map((entry) => `${entry.host}:${entry.number}`).sort();
    if (!this.#shared.isNew(`conflict ${vm} ${names.join(' ')}`)) return;
    const { counters } = this.#shared;
    counters.protectionConflicts += 1;
    // The epochs know better than the clocks.
    if (others.some((entry) => newest(entry.state, winner.state) !== winner.state)) {
      counters.protectionUpdatesLost += 1;
    }
  }

  #all(): Map<VmId, Entry[]> {
    const all = new Map<VmId, Entry[]>();
    for (const host of this.#members()) {
      for (const [vm, value] of Object.entries(this.#segment(host).content())) {
        const entry = { ...(value as unknown as Omit<Entry, 'host'>), host };
        if (readProtection(entry.state as unknown as JsonValue) === null) continue;
        const entries = all.get(vm as VmId) ?? [];
        entries.push(entry);
        all.set(vm as VmId, entries);
      }
    }
    return all;
  }

  #segment(host: HostId): HiddenVm {
    const known = this.#segments.get(host);
    if (known !== undefined) return known;
    const segment = new HiddenVm(this.#storage, segmentName(host));
    this.#segments.set(host, segment);
    return segment;
  }
}

/** Entries that no other entry's author has seen. */
function unseen(entries: readonly Entry[]): Entry[] {
  return entries.filter((entry) =>
    entries.every((other) => other === entry || (other.saw[entry.host] ?? 0) < entry.number),
  );
}

function latest(entries: readonly Entry[]): Entry | undefined {
  return entries.toSorted((a, b) => b.atMs - a.atMs || (a.host < b.host ? -1 : 1))[0];
}

function contradict(a: ProtectionState, b: ProtectionState): boolean {
  return a.protected !== b.protected || a.epoch !== b.epoch;
}
