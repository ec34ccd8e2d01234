// One component as the writer of its disk sees it: a link that carries writes and flushes until they
// are acknowledged, whatever happens to the session or the daemon in between.
//
// When a request fails, the component is taken again (same fence, new token) and everything that it
// has not acknowledged is sent once more; writes in flight never overlap, so sending twice is
// harmless. Trouble that lasts, or cannot pass, is reported; the disk then decides, through the
// object's register, whether the copy still counts.

import type { HoldfastError } from '../../model/errors.ts';
import type { JsonValue } from '../../model/json.ts';
import type { Timings } from '../../model/limits.ts';
import { type InLine, Line } from '../../model/line.ts';
import type { Component, Fence } from '../../model/record.ts';
import { noPayload } from '../../peer/frame.ts';
import type { Peer } from '../../peer/peer.ts';
import type { Clock, Timer } from '../../ports/clock.ts';
import type { ZeroOptions } from './block-device.ts';
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

interface Operation extends InLine {
  readonly type: 'component.write' | 'component.zero' | 'component.flush';
  /** What is asked for, beside component and token. */
  readonly range: { readonly [key: string]: JsonValue };
  readonly bytes: Uint8Array;
  readonly fua: boolean;
  /** Writes acknowledged before this flush was submitted. */
  readonly covers: number;
  readonly done: () => void;
}

const retakePauseMs = 100;
/** Regions in one message. */
const clearedAtOnce = 8192;
/** Between attempts with the last copy of a disk, whose trouble may be a full device. */
const persistPauseMs = 500;

export class Copy {
  state: CopyState;
  readonly component: Component;
  /** The component may be used for reads: taken, and no trouble at present. */
  isReady = false;
  /** Another component is about to take its place, or nothing is. */
  isReplaced = false;
  /** It may have lost acknowledged writes, and waits for another copy that has them. */
  isLost = false;
  /** A sync of it has failed. Its host may not have been able to note that. */
  private hasFailedSync = false;
  private token = '';
  private incarnation: string | null = null;
  private readonly outstanding = new Line<Operation>();
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
    /** With the regions in which its host does not know for certain what it holds. */
    readonly onReady: (copy: Copy, unsettled: readonly number[]) => void;
  };

  constructor(component: Component, state: CopyState, options: Copy['options']) {
    this.component = component;
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
  take(
    done: (
      error: HoldfastError | null,
      mayHaveLost: boolean,
      regions: number[],
      isUnsettled: boolean,
    ) => void,
  ): void {
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
        if (error !== null) return done(error, false, [], false);
        const taken = answer as unknown as TakeAnswer;
        this.token = taken.token;
        const restarted = this.incarnation !== null && this.incarnation !== taken.incarnation;
        this.incarnation = taken.incarnation;
        this.troubleSinceMs = null;
        this.persisting = false;
        this.isLost = false;
        this.isReady = true;
        const mayHaveLost = taken.mayHaveLost || restarted || this.hasFailedSync;
        done(null, mayHaveLost, decodeRegions(payload), taken.isUnsettled);
      },
    );
  }

  write(offset: number, bytes: Uint8Array, fua: boolean, done: () => void): void {
    this.submit('component.write', { offset, fua }, bytes, fua, 0, done);
  }

  /** Nobody knows what these blocks should be: whoever reads them is to be told so. */
  writeBad(offset: number, length: number, done: () => void): void {
    const range = { offset, fua: false, badBytes: length };
    this.submit('component.write', range, noPayload, false, 0, done);
  }

  /** In all that matters a write of zeros, but for its bytes. */
  zero(offset: number, length: number, options: ZeroOptions, done: () => void): void {
    const { fua, unmap } = options;
    const range = { offset, length, fua, unmap };
    this.submit('component.zero', range, noPayload, fua, 0, done);
  }

  flush(done: () => void): void {
    this.submit('component.flush', {}, noPayload, false, this.acknowledgedWrites, done);
  }

  /** A `bad-block` or `unsettled-block` says nothing against the copy as a whole. */
  read(
    offset: number,
    length: number,
    adopt: boolean,
    done: (error: HoldfastError | null, bytes: Uint8Array) => void,
  ): void {
    const { peer, timings, clock } = this.options;
    const sentAtMs = clock.now();
    const body = { component: this.component.id, token: this.token, offset, length, adopt };
    peer.request(
      this.component.host,
      'component.read',
      body,
      noPayload,
      timings.componentTimeoutMs,
      (error, _body, bytes) => {
        if (this.ended) return;
        if (error !== null && !isOfBlock(error)) this.trouble(error, sentAtMs);
        done(error, bytes);
      },
    );
  }

  /** Best effort: a bit too many does no harm. */
  clearIntent(regions: readonly number[]): void {
    // A whole disk that was trimmed has hundreds of thousands.
    for (let from = 0; from < regions.length; from += clearedAtOnce) {
      const some = regions.slice(from, from + clearedAtOnce);
      const body = { component: this.component.id, token: this.token, regions: some };
      this.options.peer.send(this.component.host, 'component.clear', body);
    }
  }

  /** The disk keeps the copy in spite of its trouble: try on until it is back, or the disk, which is told of each
   * failure, can do without it. */
  persist(): void {
    this.persisting = true;
    this.retakeAfter(persistPauseMs);
  }

  /** The record does not count the copy any more: no write waits for it. Reads that are under way with it still end. */
  drop(): void {
    this.state = 'absent';
    this.isReady = false;
    this.isLost = false;
    this.persisting = false;
    this.troubleSinceMs = null;
    this.incarnation = null;
    this.hasFailedSync = false;
    this.timer?.cancel();
    this.timer = null;
    for (const operation of this.outstanding.removeAll()) operation.done();
  }

  /** The disk is closed, or has another tree: no call back happens any more. */
  end(): void {
    this.ended = true;
    this.isReady = false;
    this.timer?.cancel();
    this.outstanding.removeAll();
  }

  private submit(
    type: Operation['type'],
    range: Operation['range'],
    bytes: Uint8Array,
    fua: boolean,
    covers: number,
    done: () => void,
  ): void {
    const operation = { type, range, bytes, fua, covers, done, previous: null, next: null };
    this.outstanding.add(operation);
    if (this.isReady) this.send(operation);
  }

  private send(operation: Operation): void {
    const { peer, timings, clock } = this.options;
    const sentAtMs = clock.now();
    const { token } = this;
    const body = { component: this.component.id, token, ...operation.range };
    peer.request(
      this.component.host,
      operation.type,
      body,
      operation.bytes,
      timings.componentTimeoutMs,
      (error) => {
        if (this.ended || !this.outstanding.has(operation)) return;
        if (error !== null) {
          const isSync = operation.fua || operation.type === 'component.flush';
          this.hasFailedSync ||= isSync && error.code === 'disk-error';
          // With an older token: it has been sent once more since.
          if (token === this.token) this.trouble(error, sentAtMs);
          return;
        }
        this.outstanding.remove(operation);
        if (operation.type === 'component.flush') {
          this.flushedWrites = Math.max(this.flushedWrites, operation.covers);
          this.hasFailedSync = false;
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
    this.take((error, mayHaveLost, regions, isUnsettled) => {
      this.retaking = false;
      if (this.isOut()) return;
      if (error === null) {
        if (mayHaveLost && !this.isClean && !this.surviveLoss()) return;
        for (const operation of this.outstanding.all()) this.send(operation);
        this.options.onReady(this, isUnsettled ? regions : []);
      } else if (error.code === 'fenced') {
        this.options.onTrouble(this, 'fenced', error);
      } else if (mayPass(error) && !this.persisting) {
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

/** Some block is not what was written to it, or may not be. */
export function isOfBlock(error: HoldfastError): boolean {
  return error.code === 'bad-block' || error.code === 'unsettled-block';
}
