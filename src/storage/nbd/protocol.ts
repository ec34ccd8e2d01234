// What a client says, understood step by step: bytes in, events out. The machine is synchronous and
// pulls: whoever drives it pushes what has come and asks for the next event as long as it can stand
// more work, which is all there is to back-pressure. The result does not depend on how the bytes
// were cut into chunks. (NBD protocol document, doc/proto.md; the fixed newstyle handshake only.)
//
// It is *not* where requests are carried out; it only knows the export's size and mode, because a
// request that can never succeed is refused here.

import { type Agreement, answerOption, greeting, refuseOption } from './handshake.ts';
import { Intake } from './intake.ts';
import {
  blockSizes,
  command,
  commandFlag,
  handshakeFlag,
  lengths,
  magic,
  maxOptionBytes,
  maxOptions,
  maxSkippedOptionBytes,
  type NbdExport,
  nbdError,
  option,
  optionReply,
} from './wire.ts';

/** What the bytes are that the machine waits for. */
type State =
  /** The client's answer to the greeting. */
  | 'clientFlags'
  /** The head of an option. */
  | 'option'
  /** The rest of an option whose head has been read. */
  | 'optionData'
  /** The head of a request. */
  | 'request'
  /** What a write writes, coming in pieces into one buffer. */
  | 'payload'
  /** Bytes of something that was refused, to be skipped. */
  | 'skip'
  /** Nothing any more, which is still to be announced: the client broke off the handshake. */
  | 'goodbye'
  /** Nothing any more: the client said goodbye, or broke the protocol. */
  | 'ended';

/** A request; all of one shape, because there are a hundred thousand a second of them. */
export interface NbdRequest {
  readonly kind: 'request';
  readonly command: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  /** The flags as they came, see `commandFlag`. */
  readonly flags: number;
  /** What a write writes; null for all others. */
  readonly bytes: Uint8Array | null;
  /** Not 0: the request is refused with this NBD error. */
  readonly refusal: number;
}

export type NbdEvent =
  | NbdRequest
  /** Part of the handshake, to be sent as it is. */
  | { readonly kind: 'answer'; readonly bytes: Uint8Array }
  /** The client takes its leave: answer what is under way, then close. */
  | { readonly kind: 'end' }
  /** The client can not be understood or served: close at once. */
  | { readonly kind: 'violation'; readonly reason: string };

export class NbdProtocol {
  readonly #disk: NbdExport;
  readonly #intake = new Intake();
  readonly #agreement: Agreement = {
    structured: false,
    allocationOf: null,
    noZeroes: false,
  };
  #state: State = 'clientFlags';
  #greeted = false;
  #hasEntered = false;
  #options = 0;
  #optionCode = 0;
  #optionLength = 0;
  #skip = 0;
  #afterSkip: State = 'request';
  /** The write whose bytes are coming in pieces. */
  #write: NbdRequest | null = null;
  #filled = 0;

  constructor(disk: NbdExport) {
    this.#disk = disk;
  }

  /** Whether the client agreed to structured replies. */
  get structured(): boolean {
    return this.#agreement.structured;
  }

  /** The handshake is over, and the client may ask for the disk. */
  get hasEntered(): boolean {
    return this.#hasEntered;
  }

  /** Bytes pushed and not yet looked at. */
  get backlogBytes(): number {
    return this.#intake.available;
  }

  push(chunk: Uint8Array): void {
    if (this.#state !== 'ended') this.#intake.push(chunk);
  }

  /** The next thing to do, or null: more bytes are needed. */
  next(): NbdEvent | null {
    if (!this.#greeted) {
      this.#greeted = true;
      return { kind: 'answer', bytes: greeting() };
    }
    for (;;) {
      const before = this.#state;
      const event = this.#step();
      if (event !== null) return event;
      if (this.#state === before) return null;
    }
  }

  /** One message or one change of state; null without a change: more bytes are needed. */
  #step(): NbdEvent | null {
    switch (this.#state) {
      case 'clientFlags':
        return this.#clientFlags();
      case 'option':
        return this.#option();
      case 'optionData':
        return this.#optionData();
      case 'request':
        return this.#request();
      case 'payload':
        return this.#collect();
      case 'skip':
        this.#skip -= this.#intake.skip(this.#skip);
        if (this.#skip === 0) this.#state = this.#afterSkip;
        return null;
      case 'goodbye':
        return this.#end();
      case 'ended':
        return null;
    }
  }

  #clientFlags(): NbdEvent | null {
    if (!this.#intake.gather(lengths.clientFlags)) return null;
    const flags = this.#intake.u32(0);
    if ((flags & ~(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)) !== 0) {
      return this.#violation(`unknown client flags ${hex(flags)}`);
    }
    this.#intake.skip(lengths.clientFlags);
    this.#agreement.noZeroes = (flags & handshakeFlag.noZeroes) !== 0;
    this.#state = 'option';
    return null;
  }

  #option(): NbdEvent | null {
    if (!this.#intake.gather(lengths.optionHeader)) return null;
    if (this.#intake.u32(0) !== magic.option[0] || this.#intake.u32(4) !== magic.option[1]) {
      return this.#violation(`wrong option magic ${hex(this.#intake.u32(0))}`);
    }
    this.#options += 1;
    if (this.#options > maxOptions) return this.#violation(`more than ${maxOptions} options`);
    const code = this.#intake.u32(8);
    const length = this.#intake.u32(12);
    if (length > maxSkippedOptionBytes) {
      return this.#violation(`option ${code} of ${length} bytes`);
    }
    if (length > maxOptionBytes && code === option.exportName) {
      return this.#violation(`export name of ${length} bytes`);
    }
    this.#intake.skip(lengths.optionHeader);
    if (length > maxOptionBytes) {
      this.#skipThen(length, 'option');
      return { kind: 'answer', bytes: refuseOption(code, optionReply.tooBig, 'too long').bytes };
    }
    this.#optionCode = code;
    this.#optionLength = length;
    this.#state = 'optionData';
    return null;
  }

  #optionData(): NbdEvent | null {
    if (!this.#intake.gather(this.#optionLength)) return null;
    const data = this.#intake.take(this.#optionLength) as Uint8Array;
    const answer = answerOption(this.#optionCode, data, this.#disk, this.#agreement);
    if (typeof answer === 'string') return this.#violation(answer);
    this.#state = answer.next === 'end' ? 'goodbye' : answer.next;
    this.#hasEntered = answer.next === 'request';
    return { kind: 'answer', bytes: answer.bytes };
  }

  #request(): NbdEvent | null {
    if (!this.#intake.gather(lengths.request)) return null;
    if (this.#intake.u32(0) !== magic.request) {
      return this.#violation(`wrong request magic ${hex(this.#intake.u32(0))}`);
    }
    const flags = this.#intake.u16(4);
    const code = this.#intake.u16(6);
    const cookieHigh = this.#intake.u32(8);
    const cookieLow = this.#intake.u32(12);
    const offset = this.#intake.u32(16) * 2 ** 32 + this.#intake.u32(20);
    const length = this.#intake.u32(24);
    if (code === command.write && length > blockSizes.maximum) {
      return this.#violation(`write of ${length} bytes`);
    }
    this.#intake.skip(lengths.request);
    if (code === command.disconnect) return this.#end();

    const refusal = this.#refusal(code, flags, offset, length);
    const writes = code === command.write && refusal === 0;
    const whole = writes ? this.#intake.take(length) : null;
    const inPieces = writes && whole === null;
    const request: NbdRequest = {
      kind: 'request',
      command: code,
      cookieHigh,
      cookieLow,
      offset,
      length,
      fua: (flags & commandFlag.fua) !== 0,
      flags,
      bytes: inPieces ? new Uint8Array(length) : whole,
      refusal,
    };
    if (code === command.write && refusal !== 0) this.#skipThen(length, 'request');
    if (!inPieces) return request;
    this.#write = request;
    this.#filled = 0;
    this.#state = 'payload';
    return null;
  }

  /** Goes on filling the buffer of a write that comes in pieces. */
  #collect(): NbdEvent | null {
    const write = this.#write as NbdRequest;
    this.#filled = this.#intake.fill(write.bytes as Uint8Array, this.#filled);
    if (this.#filled < write.length) return null;
    this.#write = null;
    this.#state = 'request';
    return write;
  }

  /** Why a request can not succeed whatever the device does; 0: it may. */
  #refusal(code: number, flags: number, offset: number, length: number): number {
    if ((flags & ~(commandFlag.fua | this.#allowedFlags(code))) !== 0) return nbdError.einval;
    const { readOnly, canUnmap, sizeBytes } = this.#disk;
    const beyond = offset > sizeBytes - length;
    switch (code) {
      case command.read:
        return beyond || length > blockSizes.maximum ? nbdError.einval : 0;
      case command.write:
        if (readOnly) return nbdError.eperm;
        return beyond ? nbdError.enospc : 0;
      case command.flush:
        return offset === 0 && length === 0 ? 0 : nbdError.einval;
      case command.trim:
        if (readOnly) return nbdError.eperm;
        return beyond || !canUnmap ? nbdError.einval : 0;
      case command.writeZeroes:
        if (readOnly) return nbdError.eperm;
        if (beyond) return nbdError.enospc;
        // Zeros that shall take space have to be written: no faster than by the client itself.
        if ((flags & commandFlag.fastZero) === 0) return 0;
        return (flags & commandFlag.noHole) === 0 && canUnmap ? 0 : nbdError.enotsup;
      case command.blockStatus:
        if (this.#agreement.allocationOf === null || length === 0) return nbdError.einval;
        return beyond ? nbdError.einval : 0;
      default:
        return nbdError.einval;
    }
  }

  /** Beside FUA, which says nothing to those that do not write. */
  #allowedFlags(code: number): number {
    switch (code) {
      case command.read:
        return this.structured ? commandFlag.df : 0;
      case command.writeZeroes:
        return commandFlag.noHole | commandFlag.fastZero;
      case command.blockStatus:
        return commandFlag.reqOne;
      default:
        return 0;
    }
  }

  #skipThen(count: number, then: State): void {
    this.#skip = count;
    this.#afterSkip = then;
    this.#state = 'skip';
  }

  #end(): NbdEvent {
    this.#stop();
    return { kind: 'end' };
  }

  #violation(reason: string): NbdEvent {
    this.#stop();
    return { kind: 'violation', reason };
  }

  #stop(): void {
    this.#state = 'ended';
    this.#intake.clear();
  }
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
