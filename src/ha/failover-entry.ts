// One VM that should run and does not: where it stands in its failover, as a table of stages with the
// only setter. An entry is in exactly one stage, so a VM is on exactly one list and none is lost.

import type { HostId, VmId } from '../model/ids.ts';
import type { WaitReason } from '../model/recovery.ts';
import type { HaRules, RestartPriority } from '../model/vm.ts';
import type { Log } from '../ports/log.ts';
import type { LockStatus } from '../storage/api.ts';
import type { Need } from './placement.ts';

/** A protected VM that no agent of the partition reports. */
export interface Candidate extends Need, HaRules {
  readonly vm: VmId;
  readonly name: string;
  readonly from: HostId | null;
  /** The last sign of life: of the failed host, or of the guest on a living one. */
  readonly failedAtMs: number;
  /** The guest ended by itself on this living host. */
  readonly prefer: HostId | null;
  /** `from` lives, and the guest stands there, because its host can not use its objects. */
  readonly isCutOff: boolean;
  /** Its guest hung on `from`, and was ended for that. */
  readonly hasHung: boolean;
}

type Stage = 'candidate' | 'asking' | 'restart' | 'reaching' | 'starting' | 'unsettled' | 'waiting';

interface StageRow {
  readonly means: string;
  readonly next: readonly Stage[];
}

const stages: Readonly<Record<Stage, StageRow>> = {
  candidate: {
    means: 'nobody has asked yet whether its lock is live',
    next: ['asking', 'waiting'],
  },
  asking: {
    means: 'its voters are being asked whether its lock is live',
    next: ['restart', 'waiting'],
  },
  restart: {
    means: 'on the restart list: its lock is free and its objects are accessible',
    next: ['reaching', 'starting', 'waiting'],
  },
  reaching: {
    means: 'on the restart list: the targets are being asked who reaches its objects',
    next: ['restart', 'waiting'],
  },
  starting: {
    means: 'on the restart list: a target has been told to start it',
    next: ['unsettled', 'waiting'],
  },
  unsettled: {
    means: 'it was or may have been started; the list of the target will show',
    next: ['candidate'],
  },
  waiting: {
    means:
      'on the wait list: nothing is done until what it waits for has come; then it may wait for more',
    next: ['candidate', 'restart', 'waiting'],
  },
};

/** The lists that people are told of; null: on its way from one to the next. */
const lists: Readonly<Record<Stage, string | null>> = {
  candidate: null,
  asking: null,
  restart: 'restart list',
  reaching: null,
  starting: 'starting',
  unsettled: 'unsettled',
  waiting: 'wait list',
};

const byPriority: readonly RestartPriority[] = ['highest', 'high', 'medium', 'low', 'lowest'];

/** What a waiting VM waits for. */
export interface Wait {
  readonly reason: WaitReason;
  readonly text: string;
  /** Not to be tried again before, whatever comes. */
  readonly notBeforeMs: number;
  /** When to look by itself, should nothing have come. */
  lookAtMs: number;
}

export class Entry {
  candidate: Candidate;
  /** Still without a host that runs it, as of the last comparison. */
  wanted = true;
  stage: Stage = 'candidate';
  wait: Wait | null = null;
  readonly createdMs: number;
  /** When it came into its stage. */
  sinceMs: number;
  /** The last sign of its holder that the voters know of: when the lease was last renewed. */
  renewedAtMs = Number.NEGATIVE_INFINITY;
  /** What was last told of its waiting. */
  toldText = '';
  /** Failed starts in a row. */
  attempts = 0;
  /** What its voters said when its lock was found free; null: it is to be asked for. */
  freeLock: LockStatus | null = null;
  /** When it could have been started but for those that it starts after; null: it was not so yet. */
  heldBackAtMs: number | null = null;
  announced = false;
  /** A start of it has been acknowledged. */
  started = false;
  target: HostId | null = null;
  /** Where it ended soon after its last start, or could not be started: another host is better, if one can. */
  avoid: HostId | null = null;
  /** The lock in the directory, when it was last asked for, and when to ask again at the latest. */
  lockSeen = '';
  lockAsks = 0;
  /** Its lock was renewed by a host of another partition. */
  held = false;
  askAtMs = 0;
  /** The question about access that is open for it. */
  question = 0;
  /** Room of each target that was of no use, when it was: only more room makes it worth a try. */
  readonly tried = new Map<HostId, number>();
  /** Why a target could not use a path of its disks; null: none of those `tried` was refused for that. */
  unseen: string | null = null;
  reach: { readonly atMs: number; readonly hosts: ReadonlySet<HostId> } | null = null;
  /** The list that was told last, and the whole of what was said. */
  #list = 'missing';
  #said = '';

  /** Who reports it while its target has been told to start it. */
  listedBy: HostId | null = null;
  /** The list of a target that could not start it may be older than its answer: until when. */
  echo: { readonly host: HostId; readonly untilMs: number } | null = null;

  constructor(candidate: Candidate, nowMs: number) {
    this.candidate = candidate;
    this.createdMs = nowMs;
    this.sinceMs = nowMs;
  }

  get vm(): VmId {
    return this.candidate.vm;
  }

  get name(): string {
    return this.candidate.name;
  }

  enter(stage: Stage, nowMs: number, log: Log, why: string, wait: Wait | null = null): void {
    if (!stages[this.stage].next.includes(stage) || (stage === 'waiting') !== (wait !== null)) {
      throw new Error(`${this.candidate.name} can not go from ${this.stage} to ${stage} (${why})`);
    }
    this.stage = stage;
    this.wait = wait;
    this.sinceMs = nowMs;
    const list = lists[stage];
    if (list === null || (stage === 'unsettled' && this.started)) return;
    this.#say(list, wait === null ? why : `${wait.reason}: ${wait.text}`, log);
  }

  /** It is on no list any more. */
  leave(log: Log, why: string): void {
    this.#say('done', why, log);
  }

  /** One line for each change of list, or of the reason to be on it. */
  #say(list: string, why: string, log: Log): void {
    const before = this.#list;
    const said = `${list} (${why})`;
    if (said === this.#said || (list === before && this.wait === null)) return;
    this.#list = list;
    this.#said = said;
    const step = list === before ? said : `${before} -> ${said}`;
    log.info(`${this.name}: ${step}`, {
      vm: this.vm,
      means: stages[this.stage].means,
    });
  }
}

/** Order of the restart list. */
export function compareEntries(a: Entry, b: Entry): number {
  return (
    byPriority.indexOf(a.candidate.priority) - byPriority.indexOf(b.candidate.priority) ||
    (a.vm < b.vm ? -1 : a.vm > b.vm ? 1 : 0)
  );
}

/** What is told of it first. */
export function failureText({ name, from, prefer, isCutOff, hasHung }: Candidate): string {
  if (hasHung) return `The guest of ${name} hung on ${from}, and was ended.`;
  if (prefer !== null) return `The guest of ${name} ended by itself on ${prefer}.`;
  if (isCutOff) return `${name} stands: its host ${from} can not use its objects any more.`;
  return `${name} is protected, and ${from ?? 'its host'} does not run it any more.`;
}
