// One client: requests from its stream to the device, results back in whatever order they come. The
// device may take for ever (I/O waits while storage is away), so everything that a client can make
// this host hold is counted, and above a bound nothing more is read from it until answers are out.
//
// A connection that has closed has no effects left: what was under way at the device completes
// there, and its result is dropped. A client that is cut off does not know what became of its
// unanswered requests and sends them again; that is what makes it safe to hang up at any time.

import { HoldfastError } from '../../model/errors.ts';
import type { Log } from '../../ports/log.ts';
import type { Stream } from '../../ports/streams.ts';
import type { BlockDevice } from '../disk/block-device.ts';
import { type Extent, readExtents, statusScanBytes } from './allocation.ts';
import { NbdProtocol, type NbdRequest } from './protocol.ts';
import { Replies } from './replies.ts';
import { command, commandFlag, type NbdExport, nbdError } from './wire.ts';

export const connectionBounds = {
  /** Data of requests under way and of answers that the client has not taken; one more request may
   * come on top. */
  inFlightBytes: 32 * 1024 * 1024,
  inFlightRequests: 1024,
  /** Data of requests under way of all clients of the disk; above it each has one at most. */
  sharedInFlightBytes: 256 * 1024 * 1024,
  /** Unread input above which a stalled client's stream is paused. */
  backlogBytes: 64 * 1024,
  /** Unread input above which a client is dropped, should its stream not heed the pause. */
  maxBacklogBytes: 64 * 1024 * 1024,
  /** Answers gathered before they are handed to the stream. */
  batchBytes: 256 * 1024,
} as const;

export interface ConnectionOptions {
  readonly stream: Stream;
  readonly device: BlockDevice;
  readonly disk: NbdExport;
  readonly log: Log;
  readonly onClosed: () => void;
  /** Of all clients of the disk together. */
  readonly shared: { inFlightBytes: number; requests: number };
  /** It takes its answers slower than they come. */
  readonly onUnsent: () => void;
}

export class Connection {
  readonly #stream: Stream;
  readonly #device: BlockDevice;
  readonly #log: Log;
  readonly #onClosed: () => void;
  readonly #onUnsent: () => void;
  readonly #shared: { inFlightBytes: number; requests: number };
  readonly #protocol: NbdProtocol;
  readonly #replies = new Replies();
  #inFlightRequests = 0;
  #inFlightBytes = 0;
  /** Bytes written since the stream said that its peer is slow; 0 while it does not. */
  #unsentBytes = 0;
  #deviceErrors = 0;
  #pumping = false;
  #paused = false;
  /** The client took its leave; `#ended` once all its answers have been written. */
  #ending = false;
  #ended = false;
  #closed = false;

  constructor(options: ConnectionOptions) {
    this.#stream = options.stream;
    this.#device = options.device;
    this.#log = options.log;
    this.#onClosed = options.onClosed;
    this.#onUnsent = options.onUnsent;
    this.#shared = options.shared;
    this.#protocol = new NbdProtocol(options.disk);
  }

  get hasEntered(): boolean {
    return this.#protocol.hasEntered;
  }

  /** What this host holds of answers that the client does not take. */
  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  /** Requests that are not answered yet. */
  get inFlight(): number {
    return this.#inFlightRequests;
  }

  start(): void {
    this.#stream.handle({
      data: (bytes) => this.#received(bytes),
      drained: () => {
        this.#unsentBytes = 0;
        this.#pump();
      },
      closed: () => this.#close(),
    });
    this.#pump();
  }

  /** Hangs up at once; after that nothing of this client reaches the device any more. */
  destroy(): void {
    if (this.#closed) return;
    this.#close();
    this.#stream.destroy();
  }

  #received(bytes: Uint8Array): void {
    if (this.#closed || this.#ending) return;
    this.#protocol.push(bytes);
    this.#pump();
    if (this.#protocol.backlogBytes > connectionBounds.maxBacklogBytes) {
      this.drop('more requests than can be held');
    }
  }

  #stalled(): boolean {
    return (
      this.#inFlightBytes + this.#unsentBytes >= connectionBounds.inFlightBytes ||
      this.#inFlightRequests >= connectionBounds.inFlightRequests ||
      (this.#inFlightBytes > 0 &&
        this.#shared.inFlightBytes >= connectionBounds.sharedInFlightBytes)
    );
  }

  #hold(bytes: number): void {
    this.#inFlightBytes += bytes;
    this.#shared.inFlightBytes += bytes;
  }

  /** Understands and starts as much as the bounds allow, then sends what can be answered. */
  #pump(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    while (!this.#closed && !this.#stalled()) {
      if (!this.#step()) break;
      if (this.#replies.bytes >= connectionBounds.batchBytes) this.#flush();
    }
    this.#pumping = false;
    if (this.#closed) return;
    this.#flush();
    if (this.#closed) return;
    this.#pauseOrResume();
    if (this.#ending && this.#inFlightRequests === 0 && !this.#ended) {
      this.#ended = true;
      this.#stream.end();
    }
  }

  /** One event of the protocol; false: nothing more to do now. */
  #step(): boolean {
    const event = this.#protocol.next();
    if (event === null) return false;
    switch (event.kind) {
      case 'request':
        this.#execute(event);
        return true;
      case 'answer':
        this.#replies.raw(event.bytes);
        return true;
      case 'end':
        this.#ending = true;
        return false;
      case 'violation':
        this.#flush();
        this.drop(event.reason);
        return false;
    }
  }

  #execute(request: NbdRequest): void {
    const structured = this.#protocol.structured;
    if (request.refusal !== 0) return this.#replies.failed(request, request.refusal, structured);
    if (request.length === 0 && request.command !== command.flush) {
      return this.#replies.done(request, structured);
    }
    this.#inFlightRequests += 1;
    this.#shared.requests += 1;
    this.#hold(heldBytes(request));
    const finish = (error: HoldfastError | null) => this.#finish(request, error, null);
    const { offset, length, fua } = request;
    switch (request.command) {
      case command.read:
        this.#device.read(offset, length, (error, bytes) => this.#finish(request, error, bytes));
        return;
      case command.write:
        this.#device.write(offset, request.bytes as Uint8Array, fua, finish);
        return;
      case command.trim:
        this.#device.zero(offset, length, { unmap: true, fua }, finish);
        return;
      case command.writeZeroes: {
        const unmap = (request.flags & commandFlag.noHole) === 0;
        this.#device.zero(offset, length, { unmap, fua }, finish);
        return;
      }
      case command.blockStatus:
        readExtents(this.#device, request, (error, extents) =>
          this.#finish(request, error, null, extents),
        );
        return;
      default:
        this.#device.flush(finish);
    }
  }

  #finish(
    request: NbdRequest,
    failure: HoldfastError | null,
    bytes: Uint8Array | null,
    extents: readonly Extent[] | null = null,
  ): void {
    this.#inFlightRequests -= 1;
    this.#hold(-heldBytes(request));
    if (this.#closed) return;
    const structured = this.#protocol.structured;
    const error = failure ?? wrongLength(request, bytes);
    if (error === null) {
      if (extents !== null) this.#replies.extents(request, extents);
      else if (bytes === null) this.#replies.done(request, structured);
      else this.#replies.data(request, bytes, structured);
    } else if (error.code === 'stopped' || error.code === 'fenced') {
      // The disk is served here no longer: nothing that a guest should take for a broken disk.
      this.#log.debug(`hung up on an NBD client: ${error.message}`, { code: error.code });
      return this.destroy();
    } else {
      this.#reportFailure(request, error);
      this.#replies.failed(request, wireError(error), structured, error.message);
    }
    this.#pump();
  }

  /** The first failure is said at once, the number of all when the client leaves: a guest on a
   * broken disk must not flood the log. */
  #reportFailure(request: NbdRequest, error: HoldfastError): void {
    this.#deviceErrors += 1;
    if (this.#deviceErrors > 1) return;
    const { command: code, offset, length } = request;
    const fields = { code: error.code, command: code, offset, length };
    this.#log.error(`a request of an NBD client failed: ${error.message}`, fields);
  }

  #flush(): void {
    const { bytes } = this.#replies;
    if (bytes === 0) return;
    const fluent = this.#stream.write(this.#replies.take());
    if (fluent && this.#unsentBytes === 0) return;
    this.#unsentBytes += bytes;
    this.#onUnsent();
  }

  #pauseOrResume(): void {
    const { backlogBytes } = this.#protocol;
    const pause = this.#stalled() && backlogBytes >= connectionBounds.backlogBytes;
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.#stream.pause();
    else this.#stream.resume();
  }

  /** Hangs up because of what the client does, and says so. */
  drop(reason: string): void {
    this.#log.warn(`dropped an NBD client: ${reason}`);
    this.destroy();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#deviceErrors > 1) {
      this.#log.error('requests of an NBD client failed', { failures: this.#deviceErrors });
    }
    this.#onClosed();
  }
}

/** What a request under way makes this host hold. */
function heldBytes({ command: code, length }: NbdRequest): number {
  switch (code) {
    case command.read:
    case command.write:
      return length;
    case command.blockStatus:
      return Math.min(length, statusScanBytes);
    default:
      return 0;
  }
}

/** A reply of another length than was asked for would put the whole stream out of step. */
function wrongLength(request: NbdRequest, bytes: Uint8Array | null): HoldfastError | null {
  if (bytes === null || bytes.length === request.length) return null;
  const text = `the device read ${bytes.length} bytes instead of ${request.length}`;
  return new HoldfastError('disk-error', text);
}

/** The closest of the few errors that may stand on the wire. */
function wireError(error: HoldfastError): number {
  return error.code === 'disk-full' ? nbdError.enospc : nbdError.eio;
}
