// What the benchmark starts and ends: every process by its id, in a folder that goes with it, also
// after a failure or Ctrl-C. And what a process has cost: processor time, threads included.

import { execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
const endTimeoutMs = 5000;

const children = new Map();

/** The folder of everything; `parent` chooses the device that is measured. */
export function makeFolder(parent = tmpdir()) {
  const folder = mkdtempSync(path.join(parent, 'holdfast-bench-'));
  // Last resort; `endAll` has run before where there was time for it.
  process.once('exit', () => {
    for (const child of children.values()) kill(child, 'SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Starts a program whose output goes to a log file, which is named where it ends unasked. */
export function start(file, args, { log, env = {}, ipc = false, execArgv = [] }) {
  const fd = openSync(log, 'a');
  const child = spawn(file, [...execArgv, ...args], {
    stdio: ipc ? ['ignore', fd, fd, 'ipc'] : ['ignore', fd, fd],
    serialization: 'advanced',
    // Ctrl-C is for the benchmark, which then ends everything in order.
    detached: true,
    env: { ...process.env, ...env },
  });
  closeSync(fd);
  children.set(child.pid, child);
  child.failure = null;
  child.once('error', (error) => (child.failure = error.message));
  child.once('exit', (code, signal) => {
    children.delete(child.pid);
    const last = readFileSync(log, 'utf8').trim().split('\n').slice(-3).join(' | ');
    child.failure ??= `${path.basename(file)} ended (${signal ?? code}): ${last}`;
  });
  return child;
}

function kill(child, signal) {
  try {
    process.kill(child.pid, signal);
  } catch {
    // It is gone.
  }
}

export async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  kill(child, 'SIGCONT');
  kill(child, 'SIGTERM');
  const timer = setTimeout(() => kill(child, 'SIGKILL'), endTimeoutMs);
  await gone;
  clearTimeout(timer);
}

export const endAll = () => Promise.all([...children.values()].map(end));

/** Processor time of a process since its start, in microseconds. */
export function cpuUs(child) {
  const text = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1e6;
}

export async function waitFor(what, condition, child = null, timeoutMs = 30_000, everyMs = 20) {
  const until = performance.now() + timeoutMs;
  for (;;) {
    if (child?.failure) throw new Error(`${what}: ${child.failure}`);
    if (await condition()) return;
    if (performance.now() > until) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
