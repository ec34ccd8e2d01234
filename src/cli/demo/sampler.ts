// Counts, from outside, how many processes run each VM. It trusts nothing that Holdfast says: what the
// kernel lists is what runs. A stopped guest (SIGSTOP) can not write and does not count; two that do
// not stand still at the same moment are what must never be seen.

import { basename } from 'node:path';
import { listPids, mentions, readArguments, readStat } from '../../lab/processes.ts';

/** Between two samples; half of what the promised 50 Hz need, so that a busy machine still holds them. */
export const sampleEveryMs = 10;
export const leastRateHz = 50;

/** A process just forked shows its parent's command line until it executes its own. */
const settledAfterMs = 2000;

export interface Observation {
  readonly samples: number;
  readonly durationMs: number;
  readonly longestGapMs: number;
  readonly maxInstances: Readonly<Record<string, number>>;
}

interface Known {
  readonly firstSeenMs: number;
  vm: string | null;
}

export class Sampler {
  readonly #folder: string;
  readonly #vms: readonly string[];
  readonly #root: string;
  #known = new Map<number, Known>();
  #max = new Map<string, number>();
  #samples = 0;
  #firstMs: number | null = null;
  #lastMs = 0;
  #longestGapMs = 0;

  constructor(folder: string, vms: readonly string[], root = '/proc') {
    this.#folder = folder;
    this.#vms = vms;
    this.#root = root;
    for (const vm of vms) this.#max.set(vm, 0);
  }

  /** Looks once; `nowMs` is a monotonic time. */
  sample(nowMs: number): void {
    if (this.#firstMs === null) this.#firstMs = nowMs;
    else this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.#samples += 1;

    const known = new Map<number, Known>();
    const running = new Map<string, number>();
    for (const pid of listPids(this.#root)) {
      const entry = this.#known.get(pid) ?? { firstSeenMs: nowMs, vm: null };
      if (entry.vm === null && nowMs - entry.firstSeenMs <= settledAfterMs) {
        entry.vm = this.#guestOf(pid);
      }
      known.set(pid, entry);
      if (entry.vm !== null && this.#runs(pid)) {
        running.set(entry.vm, (running.get(entry.vm) ?? 0) + 1);
      }
    }
    this.#known = known;
    for (const [vm, count] of running) {
      this.#max.set(vm, Math.max(count, this.#max.get(vm) ?? 0));
    }
  }

  observation(): Observation {
    return {
      samples: this.#samples,
      durationMs: this.#firstMs === null ? 0 : this.#lastMs - this.#firstMs,
      longestGapMs: this.#longestGapMs,
      maxInstances: Object.fromEntries(this.#max),
    };
  }

  #guestOf(pid: number): string | null {
    const args = readArguments(pid, this.#root);
    if (!basename(args[0] ?? '').startsWith('qemu') || !mentions(args, this.#folder)) return null;
    return this.#vms.find((vm) => args.some((arg) => arg.includes(vm))) ?? null;
  }

  #runs(pid: number): boolean {
    const state = readStat(pid, this.#root)?.state;
    return state !== undefined && !['T', 't', 'Z', 'X', 'x'].includes(state);
  }
}

export function rateHz({ samples, durationMs }: Observation): number {
  return durationMs === 0 ? 0 : ((samples - 1) * 1000) / durationMs;
}
