// A read that met a block which is not what was written to it, done once more block by block. Each block
// comes from whichever copy has it right, and is written again where it is wrong. In this order: a copy
// whose block matches its checksum; a copy of which a crash may have left it half written, as a disk
// without checksums would serve it; nobody.

import { HoldfastError } from '../../model/errors.ts';
import type { HostId } from '../../model/ids.ts';
import { limits } from '../../model/limits.ts';
import { type Copy, isOfBlock } from './copy.ts';

/** What no copy has right. */
export interface BadBlock {
  readonly offset: number;
  readonly length: number;
  readonly error: HoldfastError;
}

/** The mirror, as far as it is needed here. */
export interface Repairing {
  readonly copies: readonly Copy[];
  readonly gate: { isOpen(): boolean; pass(proceed: () => void): void };
  /** Until a copy is ready again, or counts no longer. */
  readonly wait: (retry: () => void) => void;
  /** Something is written there until the result is called. */
  readonly mark: (offset: number, length: number) => () => void;
  /** A block was bad on these hosts; `error`: on all. */
  readonly tell: (offset: number, hosts: readonly HostId[], error: HoldfastError | null) => void;
}

interface Range {
  readonly offset: number;
  readonly length: number;
  /** Of the component. */
  readonly sizeBytes: number;
}

export interface Sources {
  /** The copy that is asked before others; null: any. */
  readonly first: Copy | null;
  /** Copies that are not in sync, whose blocks are as good here. */
  readonly also: readonly Copy[];
}

/** The blocks are locked. */
export function readBlockwise(
  mirror: Repairing,
  range: Range,
  sources: Sources,
  done: (bytes: Uint8Array, bad: readonly BadBlock[]) => void,
): void {
  const whole = new Uint8Array(range.length);
  const bad: BadBlock[] = [];
  const { blockBytes } = limits;
  const end = range.offset + range.length;
  const step = (offset: number) => {
    if (offset >= end) return done(whole, bad);
    const length = Math.min(blockBytes, range.sizeBytes - offset);
    readBlock(mirror, { ...range, offset, length }, sources, (error, bytes) => {
      if (error !== null) bad.push({ offset, length, error });
      else {
        const from = Math.max(range.offset, offset);
        const to = Math.min(end, offset + length);
        whole.set(bytes.subarray(from - offset, to - offset), from - range.offset);
      }
      step(offset + length);
    });
  };
  step(range.offset - (range.offset % blockBytes));
}

function readBlock(
  mirror: Repairing,
  block: Range,
  sources: Sources,
  done: (error: HoldfastError | null, bytes: Uint8Array) => void,
): void {
  const { offset, length } = block;
  const again = () => readBlock(mirror, block, sources, done);
  const failures: { readonly copy: Copy; readonly error: HoldfastError }[] = [];

  function found(bytes: Uint8Array): void {
    // The lease may have ended meanwhile, and somebody else have written.
    if (!mirror.gate.isOpen()) return mirror.gate.pass(again);
    repair(
      mirror,
      failures.map(({ copy }) => copy),
      offset,
      bytes,
      () => {
        const hosts = badHosts();
        if (hosts.length > 0) mirror.tell(offset, hosts, null);
        done(null, bytes);
      },
    );
  }

  function badHosts(): HostId[] {
    return failures
      .filter(({ error }) => error.code === 'bad-block')
      .map(({ copy }) => copy.component.host);
  }

  function ask(copies: readonly Copy[], index: number): void {
    const source = copies[index];
    if (source === undefined) return noneMatches();
    const { state } = source;
    source.read(offset, length, false, (error, bytes) => {
      if (source.state !== state) again();
      else if (error === null) found(bytes);
      else if (!isOfBlock(error)) again();
      else {
        failures.push({ copy: source, error });
        ask(copies, index + 1);
      }
    });
  }

  function noneMatches(): void {
    const index = failures.findIndex(({ error }) => error.code === 'unsettled-block');
    const [unsettled] = index < 0 ? [] : failures.splice(index, 1);
    if (unsettled !== undefined) {
      const { copy } = unsettled;
      const { state } = copy;
      copy.read(offset, length, true, (error, bytes) => {
        if (error === null && copy.state === state) found(bytes);
        else again();
      });
    } else if (mirror.copies.some(mayHaveIt)) {
      mirror.wait(again); // if it stays away it is removed, and that is heard of
    } else {
      const error = failures[0]?.error ?? new HoldfastError('internal', 'no copy was asked');
      mirror.tell(offset, badHosts(), error);
      done(error, new Uint8Array(0));
    }
  }

  mirror.gate.pass(() => {
    const ready = mirror.copies.filter(
      (copy) => copy.isReady && (copy.state === 'inSync' || isTarget(copy)),
    );
    if (!ready.some((copy) => copy.state === 'inSync')) return mirror.wait(again);
    ask(
      ready.sort((a, b) => rank(a) - rank(b)),
      0,
    );
  });

  function mayHaveIt(copy: Copy): boolean {
    const counts = copy.state === 'inSync' || copy.state === 'joining';
    return counts && !failures.some((one) => one.copy === copy);
  }

  function isTarget(copy: Copy): boolean {
    return copy.state === 'joining' && sources.also.includes(copy);
  }

  /** The one that reads come from, others in sync, others. */
  function rank(copy: Copy): number {
    if (copy === sources.first) return 0;
    return copy.state !== 'inSync' ? 3 : copy.isLocal ? 1 : 2;
  }
}

function repair(
  mirror: Repairing,
  copies: readonly Copy[],
  offset: number,
  bytes: Uint8Array,
  done: () => void,
): void {
  const targets = copies.filter((copy) => copy.state !== 'absent');
  if (targets.length === 0) return done();
  const finished = mirror.mark(offset, bytes.length);
  let missing = targets.length;
  for (const copy of targets) {
    // Durably: a loss of power must not bring back what was bad, as something that a crash has left.
    copy.write(offset, bytes, true, () => {
      missing -= 1;
      if (missing > 0) return;
      finished();
      done();
    });
  }
}
