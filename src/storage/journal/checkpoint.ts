// Writes the live entries into the file of the next generation, while appends go on in the old one.
// What is appended meanwhile is copied in rounds until little is left; only for the rest, one sync
// and the switch are appends held back.

import type { DiskFile, LocalDisk } from '../../ports/disk.ts';
import { syncFile, writeTo } from '../../ports/disk-calls.ts';
import { encodeBatch } from './batch.ts';

const smallTail = 64;
const maxRounds = 8;

/** Rejects if anything fails; the file is then to be removed. */
export async function writeCheckpoint(options: {
  readonly disk: LocalDisk;
  readonly name: string;
  readonly generation: number;
  readonly batchBytes: number;
  readonly live: Iterable<Uint8Array>;
  /** Entries made durable in the old file since the last call, in order. */
  readonly takeTail: () => Uint8Array[];
  /** Stops appends: after it resolves the next tail is the last one. */
  readonly hold: () => Promise<void>;
}): Promise<{ file: DiskFile; offset: number; sequence: number }> {
  const { generation, takeTail, hold } = options;
  const file = await options.disk.open(options.name, { create: true });
  let offset = 0;
  let sequence = 0;

  async function write(entries: Iterable<Uint8Array>): Promise<void> {
    let batch: Uint8Array[] = [];
    let bytes = 0;
    const flush = async () => {
      if (batch.length === 0) return;
      const encoded = encodeBatch(generation, sequence + 1, batch);
      await writeTo(file, offset, encoded);
      sequence += 1;
      offset += encoded.length;
      batch = [];
      bytes = 0;
    };
    for (const entry of entries) {
      if (bytes + entry.length > options.batchBytes) await flush();
      batch.push(entry);
      bytes += entry.length + 4;
    }
    await flush();
  }

  try {
    await file.resize(0);
    await write(options.live);
    for (let round = 0; round < maxRounds; round += 1) {
      const tail = takeTail();
      await write(tail);
      if (tail.length < smallTail) break;
    }
    await syncFile(file);
    await hold();
    await write(takeTail());
    await syncFile(file);
  } catch (error) {
    await file.close().catch(() => {});
    throw error;
  }
  return { file, offset, sequence };
}
