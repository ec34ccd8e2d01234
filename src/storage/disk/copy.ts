// One component as the writer of its disk sees it: a link that carries writes and flushes until they
// are acknowledged, whatever happens to the session or the daemon in between.
//
// When a request fails, the component is taken again (same fence, new token) and everything that it
// has not acknowledged is sent once more; writes in flight never overlap, so sending twice is
// harmless. Trouble that lasts, or cannot pass, is reported; the disk then decides, through the
// object's register, whether the copy still counts.

import type { HoldfastError } from '../../model/errors.ts';
import type { Timings } from '../../model/limits.ts';
import type { Component, Fence } from '../../model/record.ts';
import { noPayload } from '../../peer/frame.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import { decodeRegions, type TakeAnswer } from './messages.ts';

/**
 * `inSync`: the record counts it, reads may use it. `joining`: the record may count it already.
 * `syncing`: it gets all writes, and what it missed is being copied to it. `failing`: the record
 * counts it, and it is to be removed. `absent`: the record does not count it; nothing is sent to it.
 */
export type CopyState = 'inSync' | 'joining' | 'syncing' | 'failing' | 'absent';

/** `silent`: no answer for too long, or an error of its disk. `fenced`: somebody else has opened the
 * disk. */
export type Trouble = 'silent' | 'fenced';

/** What becomes of a copy that may have lost acknowledged writes: `out`, it does not count any more
 * or soon will not; `wait`, another copy may still have them; `keep`, nobody has. */
export type LossDecision = 'out' | 'wait' | 'keep';

interface Operation {
  readonly type: 'component.write' | 'component.flush';
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly fua: boolean;
  /** Writes acknowledged before this flush was submitted. */
  readonly covers: number;
  readonly done: () => void;
}

const retakePauseMs = 100;
/** Between attempts with the last copy of a disk, whose trouble may be a full device. */
const persistPauseMs = 500;

export class Copy {
  state: CopyState;
  readonly component: Component;
  readonly mirror: number;
  /** The component may be used for reads: taken, and no trouble at present. */
  isReady = false;
  /** It may have lost acknowledged writes, and waits for another copy that has them. */
  isLost = false;
  private token = '';
  private incarnation: string | null = null;
  private readonly outstanding = new Set<Operation>();
  /** The first one stands for what was written before this opening. */
  private acknowledgedWrites = 1;
  private flushedWrites = 0;
  private troubleSinceMs: number | null = null;
  private persisting = false;
  private retaking = false;
  private ended = false;
  private timer: Timer | null = null;

  private readonly options: {
    readonly peer: Peer;
    readonly clock: Clock;
    readonly timings: Timings;
    readonly fence: Fence;
    readonly onTrouble: (copy: Copy, trouble: Trouble, error: HoldfastError | null) => void;
    readonly onLoss: (copy: Copy) => LossDecision;
    readonly onReady: (copy: Copy) => void;
  };

  constructor(component: Component, mirror: number, state: CopyState, options: Copy['options']) {
    this.component = component;
    this.mirror = mirror;
    this.state = state;
    this.options = options;
  }

  get isLocal(): boolean {
    return this.component.host === this.options.peer.self;
  }

  /** All that was acknowledged is durable: a restart of its host loses nothing. */
  get isClean(): boolean {
    return this.flushedWrites === this.acknowledgedWrites;
  }

  /** In trouble for so long that it would be removed if it were not the last one. */
  get isSilent(): boolean {
    const { clock, timings } = this.options;
    const sinceMs = this.troubleSinceMs;
    return (
      this.persisting || (sinceMs !== null && clock.now() - sinceMs >= timings.componentTimeoutMs)
    );
  }

  /** Takes the component for this writer; regions are those of its write-intent bitmap. */
  take(done: (error: HoldfastError | null, mayHaveLost: boolean, regions: number[]) => void): void {
    const { peer, timings, fence } = this.options;
    const body = { component: this.component.id, fence: { epoch: fence.epoch, open: fence.open } };
    peer.request(
      this.component.host,
      'component.take',
      body,
      noPayload,
      timings.componentTimeoutMs,
      (error, answer, payload) => {
        if (this.ended) return;
        if (error !== null) return done(error, false, []);
        const taken = answer as unknown as TakeAnswer;
        this.token = taken.token;
        const restarted = this.incarnation !== null && this.incarnation !== taken.incarnation;
        this.incarnation = taken.incarnation;
        this.troubleSinceMs = null;
        this.persisting = false;
        this.isLost = false;
        this.isReady = true;
        done(null, taken.mayHaveLost || restarted, decodeRegions(payload));
      },
    );
  }

  write(offset: number, bytes: Uint8Array, fua: boolean, done: () => void): void {
    this.submit({ type: 'component.write', offset, bytes, fua, covers: 0, done });
  }

  flush(done: () => void): void {
    this.submit({
      type: 'component.flush',
      offset: 0,
      bytes: noPayload,
      fua: false,
      covers: this.acknowledgedWrites,
      done,
    });
  }

  read(
    offset: number,
    length: number,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    const { peer, timings, clock } = this.options;
    const sentAtMs = clock.now();
    const body = { component: this.component.id, token: this.token, offset, length };
    peer.request(
      this.component.host,
      'component.read',
      body,
      noPayload,
      timings.componentTimeoutMs,
      (error, _body, bytes) => {
        if (this.ended) return;
        if (error !== null) this.trouble(error, sentAtMs);
        done(error, bytes);
      },
    );
  }

  /** Best effort: a bit too many does no harm. */
  clearIntent(regions: readonly number[]): void {
    const body = { component: this.component.id, token: this.token, regions };
    this.options.peer.send(this.component.host, 'component.clear', body);
  }

  /** The disk keeps the copy in spite of its trouble: try on until it is back. */
  persist(): void {
    this.persisting = true;
    this.retakeAfter(persistPauseMs);
  }

  /** The record does not count the copy any more: nothing waits for it. */
  drop(): void {
    this.state = 'absent';
    this.isReady = false;
    this.isLost = false;
    this.persisting = false;
    this.troubleSinceMs = null;
    this.incarnation = null;
    this.timer?.cancel();
    this.timer = null;
    const dropped = [...this.outstanding];
    this.outstanding.clear();
    for (const operation of dropped) operation.done();
  }

  /** The disk is closed: no call back happens any more. */
  end(): void {
    this.ended = true;
    this.isReady = false;
    this.timer?.cancel();
    this.outstanding.clear();
  }

  private submit(operation: Operation): void {
    this.outstanding.add(operation);
    if (this.isReady) this.send(operation);
  }

  private send(operation: Operation): void {
    const { peer, timings, clock } = this.options;
    const sentAtMs = clock.now();
    const { token } = this;
    const body =
      operation.type === 'component.write'
        ? {
            component: this.component.id,
            token: this.token,
            offset: operation.offset,
            fua: operation.fua,
          }
        : { component: this.component.id, token: this.token };
    peer.request(
      this.component.host,
      operation.type,
      body,
      operation.bytes,
      timings.componentTimeoutMs,
      (error) => {
        if (this.ended || !this.outstanding.has(operation)) return;
        if (error !== null) {
          // With an older token: it has been sent once more since.
          if (token === this.token) this.trouble(error, sentAtMs);
          return;
        }
        this.outstanding.delete(operation);
        if (operation.type === 'component.flush') {
          this.flushedWrites = Math.max(this.flushedWrites, operation.covers);
        } else if (!operation.fua) {
          this.acknowledgedWrites += 1;
        }
        operation.done();
      },
    );
  }

  /** Nothing is sent to it any more: it does not count, or soon will not. */
  private isOut(): boolean {
    return this.state === 'absent' || this.state === 'failing';
  }

  private trouble(error: HoldfastError, sinceMs: number): void {
    if (this.isOut()) return;
    this.isReady = false;
    this.troubleSinceMs ??= sinceMs;
    if (mayPass(error)) this.retake();
    else this.options.onTrouble(this, 'silent', error);
  }

  private retakeAfter(pauseMs: number): void {
    this.timer ??= this.options.clock.after(pauseMs, () => {
      this.timer = null;
      if (!this.isOut()) this.retake();
    });
  }

  /** Whether it goes on in spite of what it may have lost. */
  private surviveLoss(): boolean {
    this.isReady = false;
    const decision = this.options.onLoss(this);
    if (decision === 'wait') {
      this.isLost = true;
      this.retakeAfter(retakePauseMs);
    }
    this.isReady = decision === 'keep';
    return this.isReady;
  }

  private retake(): void {
    if (this.retaking || this.timer !== null || this.ended) return;
    const { clock, timings } = this.options;
    const troubleMs = clock.now() - (this.troubleSinceMs ?? clock.now());
    if (troubleMs >= timings.componentTimeoutMs && !this.persisting) {
      this.options.onTrouble(this, 'silent', null);
      return;
    }
    this.retaking = true;
    this.take((error, mayHaveLost) => {
      this.retaking = false;
      if (this.isOut()) return;
      if (error === null) {
        if (mayHaveLost && !this.isClean && !this.surviveLoss()) return;
        for (const operation of [...this.outstanding]) this.send(operation);
        this.options.onReady(this);
      } else if (error.code === 'fenced') {
        this.options.onTrouble(this, 'fenced', error);
      } else if (mayPass(error)) {
        this.retakeAfter(retakePauseMs);
      } else {
        this.options.onTrouble(this, 'silent', error);
      }
    });
  }
}

/** Trouble of the way to the component, or a token made void by its host's restart. */
function mayPass(error: HoldfastError): boolean {
  return error.code === 'timeout' || error.code === 'unreachable' || error.code === 'fenced';
}
