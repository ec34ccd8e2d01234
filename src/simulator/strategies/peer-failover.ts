// What a peer does about VMs that should run and do not: it asks for the lock, waits until it is free
// and then for its own turn, and starts the VM here if all objects and the room for it are here. Its
// turn comes after that of each host which placement would prefer; a host does not ask why another one
// has let its turn pass. The product's machine (ha/failover.ts) has a list and a notice for each of
// these; a peer has for each VM one time at which it looks again.

import type { VmRunner, Waiting } from '../../ha/api.ts';
import type { Candidate } from '../../ha/failover-entry.ts';
import type { Note, NoteType } from '../../ha/failover-world.ts';
import { haLimits } from '../../ha/limits.ts';
import { choose, fits, type Target } from '../../ha/placement.ts';
import { asHoldfastError } from '../../model/errors.ts';
import type { EventType } from '../../model/events.ts';
import type { Epoch, HostId, VmId } from '../../model/ids.ts';
import type { WaitReason } from '../../model/recovery.ts';
import type { RestartPriority } from '../../model/vm.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Probe } from '../../ports/probe.ts';
import type { Random } from '../../ports/random.ts';
import type { Storage } from '../../storage/api.ts';

/** How long each host leaves to the one before it. */
const turnMs = 500;

interface Case {
  readonly candidate: Candidate;
  dueMs: number;
  attempts: number;
  busy: boolean;
  wanted: boolean;
  announced: boolean;
  started: boolean;
  freeSinceMs: number | null;
  wait: { readonly reason: WaitReason; readonly text: string } | null;
}

interface PeerFailoverOptions {
  readonly self: HostId;
  readonly storage: Storage;
  readonly runner: VmRunner;
  readonly clock: Clock;
  readonly random: Random;
  readonly probe: Probe;
  /** Hosts that are heard, this one included, with their room. */
  readonly targets: () => readonly Target[];
  readonly isSilent: (host: HostId) => boolean;
  readonly onStarted: (vm: VmId, epoch: Epoch) => void;
  readonly onNote: (note: Note) => void;
  readonly tell: (type: EventType, text: string, vm: VmId, name: string) => void;
  readonly poke: () => void;
}

export class PeerFailover {
  readonly #options: PeerFailoverOptions;
  readonly #cases = new Map<VmId, Case>();
  #startsInFlight = 0;
  #closed = false;

  constructor(options: PeerFailoverOptions) {
    this.#options = options;
  }

  /** Something became accessible. */
  storageChanged(): void {
    this.#lookNow((one) => one.wait?.reason === 'storage');
  }

  /** What runs here changed, and with it the room. */
  roomChanged(): void {
    this.#lookNow((one) => one.wait?.reason === 'capacity');
  }

  metadataChanged(vms: readonly VmId[]): void {
    this.#lookNow((one) => one.wait === null && !one.started && vms.includes(one.candidate.vm));
  }

  /** `candidates`: all protected VMs that nobody reports as running. */
  advance(candidates: readonly Candidate[], nowMs: number): void {
    const wanted = new Map(candidates.map((candidate) => [candidate.vm, candidate]));
    for (const one of this.#cases.values()) {
      one.wanted = wanted.has(one.candidate.vm);
      if (!one.wanted && !one.busy) this.#end(one);
    }
    for (const candidate of candidates) {
      if (!this.#cases.has(candidate.vm)) this.#cases.set(candidate.vm, newCase(candidate, nowMs));
    }
    const inOrder = [...this.#cases.values()].sort(compareCases);
    for (const one of inOrder) if (!one.busy && one.dueMs <= nowMs) void this.#attempt(one);
  }

  nextWakeMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const one of this.#cases.values()) if (!one.busy) next = Math.min(next, one.dueMs);
    return next;
  }

  waiting(): Waiting[] {
    return [...this.#cases.values()].flatMap(({ candidate: { vm, name }, wait }) =>
      wait === null ? [] : [{ vm, name, ...wait }],
    );
  }

  close(): void {
    this.#closed = true;
  }

  #lookNow(isMeant: (one: Case) => boolean): void {
    const nowMs = this.#options.clock.now();
    for (const one of this.#cases.values()) if (isMeant(one)) one.dueMs = nowMs;
  }

  async #attempt(one: Case): Promise<void> {
    one.busy = true;
    try {
      if (await this.#mayStart(one)) await this.#start(one);
    } catch (error) {
      this.#later(one, 'retry', asHoldfastError(error, 'internal').message, haLimits.retryMinMs);
    }
    one.busy = false;
    // Not ended here: while it was being started, this host itself was the one that runs it.
    if (!this.#closed) this.#options.poke();
  }

  /** Lock, objects, turn and room, in this order; what is missing says when to look again. */
  async #mayStart(one: Case): Promise<boolean> {
    const { storage, clock, targets, self, isSilent } = this.#options;
    const { vm, name } = one.candidate;
    if (!(await this.#isLockFree(one))) return false;
    if (this.#closed || !one.wanted) return false;
    const access = storage.accessibility([vm]).get(vm);
    if (access?.accessible !== true) {
      const text = access?.text ?? 'this host does not know it';
      return this.#later(one, 'storage', text, haLimits.slowLookMs);
    }
    this.#note(one, 'accessible', `All objects of ${name} are accessible.`);
    const able = targets().filter(
      (target) => !isSilent(target.host) && fits(one.candidate, target),
    );
    const own = able.find((target) => target.host === self);
    if (own === undefined) {
      return this.#later(one, 'capacity', `${self} has no room for it`, haLimits.slowLookMs);
    }
    const before = preferred(able, own, one.candidate, storage.vm(vm)?.dataHosts ?? []);
    const turnAtMs = (one.freeSinceMs ?? clock.now()) + before.length * turnMs;
    if (clock.now() < turnAtMs) {
      const text = `it is the turn of ${before.join(', ')}`;
      return this.#later(one, 'lock', text, turnAtMs - clock.now(), false);
    }
    if (this.#startsInFlight >= haLimits.startsAtFirst) {
      const text = `${self} is starting other VMs`;
      return this.#later(one, 'retry', text, haLimits.listPauseMs, false);
    }
    return true;
  }

  async #isLockFree(one: Case): Promise<boolean> {
    const { storage, clock, isSilent } = this.#options;
    const { vm, name } = one.candidate;
    try {
      const { holder, remainingMs } = await storage.lockStatus(vm);
      if (remainingMs > 0) {
        one.freeSinceMs = null;
        if (holder !== null && isSilent(holder)) this.#announce(one);
        return this.#later(one, 'lock', `the lease of ${holder} has not ended`, remainingMs);
      }
    } catch (thrown) {
      const error = asHoldfastError(thrown);
      this.#announce(one);
      const isOut = error.code === 'inaccessible';
      const waitMs = isOut ? haLimits.slowLookMs : haLimits.retryMinMs;
      return this.#later(one, isOut ? 'storage' : 'retry', error.message, waitMs);
    }
    if (one.freeSinceMs !== null) return true;
    one.freeSinceMs = clock.now();
    this.#announce(one);
    this.#note(one, 'lockFree', `The lock of ${name} is free.`);
    return true;
  }

  async #start(one: Case): Promise<void> {
    const { runner, self, probe, onStarted } = this.#options;
    const { vm, name } = one.candidate;
    one.wait = null;
    one.started = false;
    this.#note(one, 'placed', `${name} is placed on ${self}.`);
    this.#startsInFlight += 1;
    probe.reached({ at: 'ha.restarting', vm, on: self });
    try {
      const epoch = await runner.start(vm, { byHa: true });
      one.started = true;
      one.dueMs = this.#options.clock.now() + haLimits.settleMs; // until then it is reported
      onStarted(vm, epoch);
      this.#note(one, 'started', `${name} has been started on ${self}.`);
    } catch (error) {
      this.#failed(one, asHoldfastError(error, 'guest-failed'));
    } finally {
      this.#startsInFlight -= 1;
    }
  }

  #failed(one: Case, { code, message }: ReturnType<typeof asHoldfastError>): void {
    const { clock, random, probe, self } = this.#options;
    probe.reached({ at: 'ha.restartFailed', vm: one.candidate.vm, on: self, code });
    if (code === 'not-protected') {
      one.dueMs = clock.now() + haLimits.dismissMs; // the directory will say so, too
      return;
    }
    this.#note(one, 'failed', `${one.candidate.name} could not be started on ${self}: ${message}.`);
    if (code === 'lock-held') {
      one.freeSinceMs = null; // another peer was quicker
      this.#later(one, 'lock', message, haLimits.retryMinMs);
    } else {
      one.attempts += 1;
      const wholeMs = Math.min(haLimits.retryMaxMs, haLimits.retryMinMs * 2 ** (one.attempts - 1));
      const reason = code === 'no-capacity' ? 'capacity' : 'retry';
      this.#later(one, reason, message, wholeMs * (0.5 + random.next() / 2));
    }
  }

  #announce(one: Case): void {
    if (one.announced) return;
    one.announced = true;
    const { name, from } = one.candidate;
    this.#note(one, 'detected', `${name} is protected, and ${from ?? 'its host'} runs it no more.`);
  }

  /** `tell`: it is worth an event. */
  #later(one: Case, reason: WaitReason, text: string, afterMs: number, tell = true): false {
    if (tell && one.wait?.text !== text) {
      this.#note(one, 'waiting', `${one.candidate.name} waits for ${reason}: ${text}.`);
    }
    this.#options.probe.reached({ at: 'ha.waiting', vm: one.candidate.vm, reason });
    one.wait = { reason, text };
    one.dueMs = this.#options.clock.now() + Math.max(20, afterMs);
    return false;
  }

  #end(one: Case): void {
    this.#cases.delete(one.candidate.vm);
    this.#note(one, 'over', one.started ? 'it runs here' : 'others run it, or nobody shall');
  }

  #note(one: Case, type: NoteType, text: string): void {
    const { self, clock, onNote, tell } = this.#options;
    if (this.#closed) return;
    const { candidate } = one;
    onNote({ type, candidate, atMs: clock.now(), host: self, text });
    if (type !== 'over') tell(`failover.${type}`, text, candidate.vm, candidate.name);
  }
}

const byPriority: readonly RestartPriority[] = ['highest', 'high', 'medium', 'low', 'lowest'];

function compareCases({ candidate: a }: Case, { candidate: b }: Case): number {
  return byPriority.indexOf(a.priority) - byPriority.indexOf(b.priority) || (a.vm < b.vm ? -1 : 1);
}

function newCase(candidate: Candidate, nowMs: number): Case {
  return {
    candidate,
    dueMs: nowMs,
    attempts: 0,
    busy: false,
    wanted: true,
    announced: false,
    started: false,
    freeSinceMs: null,
    wait: null,
  };
}

/** The hosts that placement would choose before this one. */
function preferred(
  able: readonly Target[],
  own: Target,
  { prefer }: Candidate,
  dataHosts: readonly HostId[],
): HostId[] {
  const wishes = {
    prefer,
    avoid: null,
    affinity: undefined,
    crowd: new Map<HostId, number>(),
    dataHosts,
  };
  return able
    .filter((target) => target !== own && choose([target, own], wishes) !== own.host)
    .map((target) => target.host);
}
