// At most one daemon uses a store. The lock is the kernel's flock(2) on a file in the store: it ends
// with the process however that ends, so nothing stale can block a restart, and it holds between
// containers and network namespaces, where a pid file, a TCP port or an abstract socket does not.

import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { HoldfastError } from '../model/errors.ts';
import { flock } from './flock.ts';

export interface StoreLock {
  release(): void;
}

const retryMs = 100;

/** Takes the lock or rejects with `conflict`, naming the process that has it. One that has been killed keeps it until
 * its device has answered what was under way: that is waited for. */
export async function lockStore(path: string): Promise<StoreLock> {
  const descriptor = openSync(path, 'a+', 0o600);
  try {
    while (true) {
      // Looked at before the lock is asked for: one that was ending may be gone by the time of the refusal.
      const pid = readFileSync(path, 'utf8').trim();
      const wasEnding = isEnding(pid);
      if (await flock(descriptor, path)) break;
      if (!wasEnding) {
        const owner = pid === '' ? 'another daemon' : `another daemon, process ${pid}`;
        throw new HoldfastError('conflict', `The store of ${path} is in use by ${owner}`);
      }
      await pause(retryMs);
    }
    tellOwner(descriptor);
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
  let held = true;
  return {
    release() {
      if (held) closeSync(descriptor);
      held = false;
    },
  };
}

/** For people only; the lock is what counts, also where the disk is full. */
function tellOwner(descriptor: number): void {
  try {
    ftruncateSync(descriptor, 0);
    writeSync(descriptor, `${process.pid}\n`);
  } catch {
    // Then the process that has it is not named.
  }
}

/** Killed, and not gone yet: a zombie whose threads still wait for a device, or SIGKILL is pending (proc(5), `status`). */
function isEnding(pid: string): boolean {
  let status: string;
  try {
    status = readFileSync(`/proc/${Number(pid)}/status`, 'utf8');
  } catch {
    return false; // nobody here knows it: it may be in another container
  }
  const pending = [...status.matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)];
  const sigkill = 1n << 8n;
  return (
    /^State:\s*[ZX]/m.test(status) ||
    pending.some(([, mask]) => (BigInt(`0x${mask}`) & sigkill) !== 0n)
  );
}
