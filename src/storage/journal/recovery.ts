// Reading a journal file after a restart. The one question is what a batch that is not whole means:
// the torn end of what was never acknowledged, or damage of what was. Only one batch is ever in
// flight, so any whole header of this generation with a higher number proves damage.

import type { DiskFile } from '../../ports/disk.ts';
import { readFrom, syncFile, writeTo } from '../../ports/disk-calls.ts';
import type { Log } from '../../ports/log.ts';
import {
  type BatchHeader,
  batchBytes,
  blockBytes,
  decodeEntries,
  decodeHeader,
  headerBytes,
} from './batch.ts';
import { damaged, fromDisk } from './disk-errors.ts';

export interface Recovered {
  /** In the order in which they were appended. */
  readonly entries: Uint8Array[];
  /** Number of the last batch; 0 for none. */
  readonly sequence: number;
  /** Where the next batch goes. */
  readonly endOffset: number;
}

const windowBytes = 1024 * 1024;

/**
 * Reads the file, cuts a torn tail off and makes durable what was read. `leastSequence`: the number
 * that the last batch has at least, as the superblock knows.
 */
export async function recover(
  file: DiskFile,
  name: string,
  generation: number,
  leastSequence: number,
  log: Log,
): Promise<Recovered> {
  const reader = new WindowReader(file);
  const entries: Uint8Array[] = [];
  let offset = 0;
  let sequence = 0;
  let last: Uint8Array | null = null;
  try {
    for (;;) {
      const header = decodeHeader(await reader.bytes(offset, headerBytes));
      if (header === null || !isNext(header, generation, sequence, file.sizeBytes - offset)) break;
      const whole = await reader.bytes(offset, batchBytes(header.payloadBytes));
      const payload = whole.subarray(headerBytes, headerBytes + header.payloadBytes);
      const decoded = decodeEntries(header, payload);
      if (decoded === null) break;
      for (const entry of decoded) entries.push(entry);
      last = whole.slice();
      sequence = header.sequence;
      offset += whole.length;
    }
    const later = await findLater(reader, file.sizeBytes, offset, generation, sequence);
    if (later !== null || sequence < leastSequence) {
      throw damaged(
        `${name} is damaged at byte ${offset}: batch ${sequence + 1} is not readable, but it was ` +
          `acknowledged (batch ${later?.sequence ?? leastSequence} was written after it)`,
      );
    }
    if (file.sizeBytes > offset) {
      const fields = { file: name, offset, bytes: file.sizeBytes - offset };
      log.warn('cut off a torn batch that was never acknowledged', fields);
      await file.resize(offset);
    }
    // The last batch may be readable only because the kernel still has it in memory after a failed
    // sync. What the replayed state answers must rest on the disk, so it is written once more.
    if (last !== null) await writeTo(file, offset - last.length, last);
    await syncFile(file);
  } catch (error) {
    throw fromDisk(error, `reading ${name}`);
  }
  return { entries, sequence, endOffset: offset };
}

function isNext(header: BatchHeader, generation: number, sequence: number, rest: number): boolean {
  return (
    header.generation === generation &&
    header.sequence === sequence + 1 &&
    header.payloadBytes <= rest - headerBytes
  );
}

/** A header beyond the bad batch at `offset` with a higher number than the bad one has; also the bad
 * batch's own place counts if its header has a higher number. */
async function findLater(
  reader: WindowReader,
  sizeBytes: number,
  offset: number,
  generation: number,
  sequence: number,
): Promise<BatchHeader | null> {
  for (let at = offset; at + headerBytes <= sizeBytes; at += blockBytes) {
    const header = decodeHeader(await reader.bytes(at, headerBytes));
    if (header !== null && header.generation === generation && header.sequence > sequence + 1) {
      return header;
    }
  }
  return null;
}

/** Reads a file from front to back through one buffer. */
class WindowReader {
  readonly #file: DiskFile;
  #window = new Uint8Array(0);
  #start = 0;

  constructor(file: DiskFile) {
    this.#file = file;
  }

  /** Valid until the next call; beyond the end of the file it reads zeros. */
  async bytes(offset: number, length: number): Promise<Uint8Array> {
    const end = this.#start + this.#window.length;
    if (offset < this.#start || offset + length > end) {
      const rest = Math.max(length, Math.min(windowBytes, this.#file.sizeBytes - offset));
      const window = new Uint8Array(rest);
      await readFrom(this.#file, offset, window);
      this.#window = window;
      this.#start = offset;
    }
    return this.#window.subarray(offset - this.#start, offset - this.#start + length);
  }
}
