// What the guests themselves reported on their serial consoles, which QEMU writes to `serial.log` in
// the VM's folder on the host where it runs: `wrote N` after N was flushed, `read N` after each boot.
// This is the only witness for "no acknowledged write is lost".

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface GuestReports {
  /** The number that each boot found on the disk. */
  readonly reads: readonly number[];
  /** The last number that was written and flushed; null before the first. */
  readonly lastWrote: number | null;
  /** Complaints of the guest about what it found on its disk. */
  readonly damage: readonly string[];
}

const noReports: GuestReports = { reads: [], lastWrote: null, damage: [] };

/** A last line without its end is still being written and does not count. */
export function parseReports(text: string): GuestReports {
  const reads: number[] = [];
  const damage: string[] = [];
  let lastWrote: number | null = null;
  for (const line of text.split('\n').slice(0, -1)) {
    const [, word, rest = ''] = /holdfast: (read|wrote|verify) (.*?)\r*$/.exec(line) ?? [];
    if (word === 'verify' && rest.startsWith('bad')) damage.push(`${word} ${rest}`);
    if (!/^\d+$/.test(rest)) continue;
    if (word === 'read') reads.push(Number(rest));
    if (word === 'wrote') lastWrote = Number(rest);
  }
  return { reads, lastWrote, damage };
}

/** No log is the same as no report: the guest never ran there. */
export async function readReports(runDir: string, vm: string): Promise<GuestReports> {
  const text = await readFile(join(runDir, vm, 'serial.log'), 'latin1').catch(() => null);
  return text === null ? noReports : parseReports(text);
}
