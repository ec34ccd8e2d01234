// The files of one guest in the run directory. The sockets and `launch.json` live as long as the
// guest's guard; the two logs stay, because that is where people look when the guest is gone.

import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../model/errors.ts';
import type { Epoch, VmId } from '../model/ids.ts';
import type { GuestLaunch } from '../ports/guests.ts';

export interface RunFiles {
  readonly dir: string;
  readonly guardSocket: string;
  readonly qmpSocket: string;
  readonly heartbeatSocket: string;
  /** Of the QEMU guest agent. */
  readonly agentSocket: string;
  /** What the guest said on its serial console, of all its starts on this host. */
  readonly serialLog: string;
  /** What QEMU and the guard said. */
  readonly guestLog: string;
  /** How it was started, for a restarted daemon. */
  readonly launch: string;
}

export function runFiles(runDir: string, vm: VmId): RunFiles {
  const dir = join(runDir, vm);
  return {
    dir,
    guardSocket: join(dir, 'guard.sock'),
    qmpSocket: join(dir, 'qmp.sock'),
    heartbeatSocket: join(dir, 'heartbeat.sock'),
    agentSocket: join(dir, 'agent.sock'),
    serialLog: join(dir, 'serial.log'),
    guestLog: join(dir, 'guest.log'),
    launch: join(dir, 'launch.json'),
  };
}

/** `sun_path` has 108 bytes, the last of which is zero (unix(7)). */
const maxSocketPathBytes = 107;

/** Why the path can not be a Unix socket's, or null. */
export function socketPathProblem(path: string): string | null {
  const bytes = Buffer.byteLength(path);
  if (bytes <= maxSocketPathBytes) return null;
  return `the path of the socket ${path} has ${bytes} bytes, and at most ${maxSocketPathBytes} work`;
}

/** The identity of a VM becomes a folder and a word of the guard's protocol. */
export function isPlainWord(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(text);
}

/** What a restarted daemon must know of a guest that it has not started itself. */
export interface LaunchRecord {
  readonly vm: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly memoryBytes: number;
  /** Those that were attached since included, and one that may be being attached. */
  readonly disks: readonly string[];
  /** It has been heard since its start, or since it reset itself or became mute; absent: it has not. */
  readonly heard?: boolean;
  /** Where in guest.log this start begins. */
  readonly logOffset: number;
}

/** Makes the folder and writes `launch.json`, whole or not at all. */
export async function writeLaunch(files: RunFiles, launch: GuestLaunch): Promise<LaunchRecord> {
  const record: LaunchRecord = {
    vm: launch.vm,
    name: launch.name,
    epoch: launch.epoch,
    memoryBytes: launch.memoryBytes,
    disks: launch.disks.map((disk) => disk.name),
    logOffset: await sizeOf(files.guestLog),
  };
  await mkdir(files.dir, { recursive: true, mode: 0o700 });
  await writeRecord(files, record);
  return record;
}

/** Whole or not at all. */
export async function writeRecord(files: RunFiles, record: LaunchRecord): Promise<void> {
  await writeFile(`${files.launch}.new`, `${JSON.stringify(record)}\n`, { mode: 0o600 });
  await rename(`${files.launch}.new`, files.launch);
}

/** The launch record, or null where it is missing or can not be understood. */
export async function readLaunch(files: RunFiles): Promise<LaunchRecord | null> {
  try {
    const record: unknown = JSON.parse(await readFile(files.launch, 'utf8'));
    if (typeof record !== 'object' || record === null) return null;
    const { memoryBytes, disks, logOffset } = record as Partial<LaunchRecord>;
    if (typeof memoryBytes !== 'number' || typeof logOffset !== 'number') return null;
    if (!Array.isArray(disks)) return null;
    return record as LaunchRecord;
  } catch {
    return null;
  }
}

/** Removes all but the logs. */
export async function removeRunFiles(files: RunFiles): Promise<void> {
  const { guardSocket, qmpSocket, heartbeatSocket, agentSocket } = files;
  const passing = [guardSocket, qmpSocket, heartbeatSocket, agentSocket];
  for (const path of [...passing, files.launch, `${files.launch}.new`])
    await rm(path, { force: true });
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => null))?.size ?? 0;
}

/** The last bytes of the file, from `offset` on, as text; empty where there is none. */
export async function tailOf(path: string, offset = 0, maxBytes = 2048): Promise<string> {
  const file = await open(path, 'r').catch(() => null);
  if (file === null) return '';
  try {
    const { size } = await file.stat();
    const start = Math.max(offset, size - maxBytes);
    const bytes = Buffer.alloc(Math.max(0, size - start));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
    return bytes.subarray(0, bytesRead).toString('utf8').trim();
  } finally {
    await file.close();
  }
}

/** A guest or its guard could not be started or used. */
export function guestFailed(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('guest-failed', message, cause === undefined ? {} : { cause });
}
