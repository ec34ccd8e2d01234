// Looks, from outside, which processes run which VM, and whether they stand still. It trusts nothing that
// Holdfast says: what the kernel lists is what runs. A stopped guest (SIGSTOP) can not write and does not count,
// nor does one that the kernel is ending; two that count at the same moment are what must never be.

import { guestIn } from './host.ts';
import type { Change, InstanceState } from './instances.ts';
import {
  isAlive,
  isBeingKilled,
  listPids,
  networkOf,
  readArguments,
  readStat,
} from './processes.ts';

/** A process just forked shows its parent's command line and namespace until it has its own. */
const settledAfterMs = 2000;

export interface Watched {
  /** Inode of a namespace -> the host that it is. */
  readonly hosts: ReadonlyMap<number, string>;
  /** Ids of VMs. */
  readonly vms: readonly string[];
}

/** Several of a VM ran at once. */
export interface Doubled {
  readonly at: number;
  readonly vm: string;
  readonly hosts: readonly string[];
}

export interface Sample {
  readonly changes: readonly Change[];
  readonly doubled: readonly Doubled[];
}

interface Known {
  readonly firstSeen: number;
  guest: { readonly vm: string; readonly host: string } | null;
  state: InstanceState;
}

export class Sampler {
  readonly #watched: Watched;
  readonly #root: string;
  #known = new Map<number, Known>();
  /** Told already, and still so. */
  readonly #doubled = new Set<string>();

  constructor(watched: Watched, root = '/proc') {
    this.#watched = watched;
    this.#root = root;
  }

  /** Looks once, at `now` milliseconds since 1970. */
  sample(now: number): Sample {
    const changes: Change[] = [];
    const known = new Map<number, Known>();
    const running = new Map<string, number[]>();
    const note = (pid: number, entry: Known, state: InstanceState): void => {
      if (entry.guest === null || entry.state === state) return;
      entry.state = state;
      changes.push({ at: now, pid, ...entry.guest, state });
    };
    for (const pid of listPids(this.#root)) {
      const entry = this.#known.get(pid) ?? { firstSeen: now, guest: null, state: 'gone' };
      if (entry.guest === null && now - entry.firstSeen <= settledAfterMs) {
        entry.guest = this.#guestOf(pid);
      }
      if (entry.guest !== null) {
        const state = this.#stateOf(pid, entry.state === 'running');
        note(pid, entry, state);
        if (state === 'gone') continue; // its number may be given to another process
        const { vm } = entry.guest;
        if (state === 'running') running.set(vm, [...(running.get(vm) ?? []), pid]);
      }
      known.set(pid, entry);
    }
    for (const [pid, entry] of this.#known) if (!known.has(pid)) note(pid, entry, 'gone');
    this.#known = known;
    return { changes, doubled: this.#doubles(running, now) };
  }

  #doubles(running: ReadonlyMap<string, readonly number[]>, now: number): Doubled[] {
    const found: Doubled[] = [];
    for (const vm of this.#watched.vms) {
      // Looked at one after the other: only what still runs when the last one was seen ran together.
      const seen = running.get(vm) ?? [];
      const pids =
        seen.length < 2 ? seen : seen.filter((pid) => this.#stateOf(pid, false) === 'running');
      if (pids.length < 2) this.#doubled.delete(vm);
      else if (!this.#doubled.has(vm)) {
        this.#doubled.add(vm);
        const hosts = pids.map((pid) => this.#known.get(pid)?.guest?.host ?? '?');
        found.push({ at: now, vm, hosts });
      }
    }
    return found;
  }

  #guestOf(pid: number): { vm: string; host: string } | null {
    const host = this.#watched.hosts.get(networkOf(pid, this.#root) ?? 0);
    if (host === undefined) return null;
    const vm = guestIn(readArguments(pid, this.#root), this.#watched.vms);
    return vm === null ? null : { vm, host };
  }

  /** `quick`: what it was is what it most likely is. */
  #stateOf(pid: number, quick: boolean): InstanceState {
    const stat = readStat(pid, this.#root);
    if (!isAlive(stat) || stat.exiting) return 'gone';
    if (stat.state === 'T' || stat.state === 't') return 'paused';
    return !quick && isBeingKilled(pid, this.#root) ? 'gone' : 'running';
  }
}
