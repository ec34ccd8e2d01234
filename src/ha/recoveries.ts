// The record of the failovers that this host carried out as a master, one per VM and failure, in
// milliseconds from the failure. A VM that turns out to run elsewhere leaves no record: that was no
// failover.

import type { HostId, VmId } from '../model/ids.ts';
import type { Recovery, VmRecovery } from '../model/recovery.ts';
import type { Note } from './failover-world.ts';
import { haLimits } from './limits.ts';

type Step = Exclude<keyof Recovery, 'failedAtMs'>;

interface Story {
  readonly vm: VmId;
  readonly name: string;
  readonly from: HostId | null;
  readonly baseMs: number;
  readonly steps: Record<Step, number | null>;
  to: HostId | null;
}

const stepOf: Partial<Record<Note['type'], Step>> = {
  detected: 'detectedAtMs',
  lockFree: 'lockFreeAtMs',
  accessible: 'accessibleAtMs',
  placed: 'placedAtMs',
  started: 'startedAtMs',
};

export class Recoveries {
  #stories: Story[] = [];
  /** Failovers under way, and those whose guest has not been heard yet. */
  readonly #open = new Map<VmId, Story>();

  note(note: Note): void {
    const { candidate } = note;
    const step = stepOf[note.type];
    let story = this.#open.get(candidate.vm);
    if (note.type === 'detected') {
      story = {
        vm: candidate.vm,
        name: candidate.name,
        from: candidate.from,
        baseMs: candidate.failedAtMs,
        steps: {
          detectedAtMs: null,
          lockFreeAtMs: null,
          accessibleAtMs: null,
          placedAtMs: null,
          startedAtMs: null,
          guestReadyAtMs: null,
        },
        to: null,
      };
      this.#open.set(candidate.vm, story);
    }
    if (story === undefined) return;
    if (note.type === 'over' && story.steps.startedAtMs === null) this.#drop(story);
    if (step === undefined) return;
    // The lock and the objects count when they were first there, a repeated start when it succeeded.
    if (step === 'placedAtMs' || step === 'startedAtMs' || story.steps[step] === null) {
      story.steps[step] = note.atMs;
    }
    if (step === 'placedAtMs') story.to = note.host;
    if (step === 'lockFreeAtMs' && !this.#stories.includes(story)) this.#publish(story);
  }

  /** A guest has been heard since its start; returns the host if that ends a failover. */
  ready(vm: VmId, on: HostId, nowMs: number): string | null {
    const story = this.#open.get(vm);
    if (story === undefined || story.to !== on || story.steps.startedAtMs === null) return null;
    story.steps.guestReadyAtMs = nowMs;
    this.#open.delete(vm);
    return story.name;
  }

  /** VMs that were started and whose guests have not been heard yet, and where. */
  awaited(): ReadonlyMap<VmId, HostId> {
    const awaited = new Map<VmId, HostId>();
    for (const { vm, to, steps } of this.#open.values()) {
      if (steps.startedAtMs !== null && to !== null) awaited.set(vm, to);
    }
    return awaited;
  }

  /** The master abdicated: what it has not started is another's. */
  abandon(): void {
    for (const story of [...this.#open.values()]) {
      if (story.steps.startedAtMs === null) this.#drop(story);
    }
  }

  list(): VmRecovery[] {
    return this.#stories.map(({ vm, name, from, to, baseMs, steps }) => {
      const since = (atMs: number | null) => (atMs === null ? null : Math.round(atMs - baseMs));
      return {
        vm,
        name,
        from,
        to,
        recovery: {
          failedAtMs: 0,
          detectedAtMs: since(steps.detectedAtMs),
          lockFreeAtMs: since(steps.lockFreeAtMs),
          accessibleAtMs: since(steps.accessibleAtMs),
          placedAtMs: since(steps.placedAtMs),
          startedAtMs: since(steps.startedAtMs),
          guestReadyAtMs: since(steps.guestReadyAtMs),
        },
      };
    });
  }

  #publish(story: Story): void {
    this.#stories.push(story);
    if (this.#stories.length > haLimits.recoveriesKept) this.#stories.shift();
  }

  #drop(story: Story): void {
    if (this.#open.get(story.vm) === story) this.#open.delete(story.vm);
    this.#stories = this.#stories.filter((it) => it !== story);
  }
}
