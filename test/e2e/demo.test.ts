// The demo as its users run it: real daemons, a real object store, real guests, one host killed. Its
// contract is checked field by field, and so is that nothing of it stays behind.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

const program = fileURLToPath(new URL('../../bin/holdfast', import.meta.url));

let folder: string;
const running = new Set<ChildProcess>();
beforeEach(() => {
  folder = join(realpathSync(mkdtempSync(join(tmpdir(), 'hf-e2e-'))), 'demo');
});
afterEach(async () => {
  for (const child of running) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
  // What a failing demo has left names the folder of this test.
  for (const line of processesLeft()) {
    try {
      process.kill(Number(line.split(' ')[0]), 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
  rmSync(join(folder, '..'), { recursive: true, force: true });
});

interface Finished {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  /** Resolves when the text has been said on standard error. */
  said(text: string): Promise<void>;
}

function holdfast(...args: string[]): Running {
  const child = spawn(process.execPath, [program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Where a demo that fails leaves its logs.
    env: { ...process.env, TMPDIR: join(folder, '..') },
  });
  running.add(child);
  let out = '';
  let err = '';
  child.stdout.on('data', (part) => (out += part));
  child.stderr.on('data', (part) => (err += part));
  const finished = once(child, 'close').then(([status]): Finished => {
    running.delete(child);
    return { status: status as number | null, out, err };
  });
  return {
    child,
    finished,
    async said(text) {
      while (!err.includes(text)) {
        const over = await Promise.race([finished, once(child.stderr, 'data').then(() => null)]);
        if (over !== null && !err.includes(text)) throw new Error(`"${text}" was not said: ${err}`);
      }
    },
  };
}

/** Processes that name the demo's folder, whoever started them. */
function processesLeft(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => {
      try {
        return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')}`;
      } catch {
        return '';
      }
    })
    .filter((line) => line.includes(folder));
}

/** Unix sockets of the demo that some process still serves. */
const socketsLeft = (): string[] =>
  readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .filter((line) => line.includes(folder));

async function expectNothingLeft(): Promise<void> {
  expect(processesLeft()).toEqual([]);
  // The kernel closes them when the last thread of a killed process is gone.
  await vi.waitFor(() => expect(socketsLeft()).toEqual([]), 5_000);
  expect(existsSync(folder)).toBe(false);
}

describe('the demo', () => {
  it('shows that a VM runs on elsewhere with all its data', async () => {
    const { status, out, err } = await holdfast('demo', '--json', '--dir', folder).finished;
    const lines = out.trim().split('\n');
    const result = JSON.parse(lines.at(-1) as string);
    expect({ status, ok: result.ok, err }).toEqual({ status: 0, ok: true, err });
    expect(Object.keys(result).sort()).toEqual(
      ['accelerator', 'hosts', 'maxInstancesAtOnce', 'ok', 'vms'].sort(),
    );
    expect(result).toMatchObject({
      hosts: 3,
      maxInstancesAtOnce: 1,
      accelerator: expect.stringMatching(/^(kvm|tcg)$/),
    });
    const [moved, stayed, ...others] = result.vms;
    expect(others).toEqual([]);

    expect(moved).toEqual({
      name: 'vm-1',
      from: 'host-1',
      to: expect.stringMatching(/^host-[23]$/),
      lastAcknowledged: expect.any(Number),
      firstReadAfter: expect.any(Number),
      lost: 0,
      recovery: {
        failedAtMs: 0,
        detectedAtMs: expect.any(Number),
        lockFreeAtMs: expect.any(Number),
        accessibleAtMs: expect.any(Number),
        placedAtMs: expect.any(Number),
        startedAtMs: expect.any(Number),
        guestReadyAtMs: expect.any(Number),
      },
    });
    expect(moved.lastAcknowledged).toBeGreaterThanOrEqual(5);
    expect(moved.firstReadAfter).toBeGreaterThanOrEqual(moved.lastAcknowledged);
    // At most one number was written without its report coming out any more.
    expect(moved.firstReadAfter).toBeLessThanOrEqual(moved.lastAcknowledged + 1);
    const { detectedAtMs, placedAtMs, startedAtMs, guestReadyAtMs } = moved.recovery;
    const times = [0, detectedAtMs, placedAtMs, startedAtMs, guestReadyAtMs];
    expect(times).toEqual([...times].sort((a, b) => a - b));

    expect(stayed).toMatchObject({
      name: 'vm-2',
      from: 'host-2',
      to: 'host-2',
      lost: 0,
      recovery: null,
    });
    expect(err).toMatch(/failure .*host-1 lost its power/);
    for (const moment of ['detected', 'lock free', 'placed', 'started', 'first guest report']) {
      expect(err).toMatch(new RegExp(`\\d s +${moment} `));
    }
    await expectNothingLeft();
  });

  it('keeps the cluster if it shall, and ends it when told', async () => {
    const { status, out, err } = await holdfast('demo', '--json', '--keep', '--dir', folder)
      .finished;
    expect({ status, err }).toEqual({ status: 0, err });
    const { context } = JSON.parse(out.trim().split('\n').at(-1) as string);
    const list = await holdfast('vm', 'list', '--output', 'json', '--context', context).finished;
    expect(JSON.parse(list.out)).toMatchObject([{ power: 'running' }, { power: 'running' }]);
    const stopped = await holdfast('demo', '--stop', '--context', context).finished;
    expect(stopped).toMatchObject({ status: 0 });
    await expectNothingLeft();
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('leaves nothing behind after %s', async (signal) => {
    const demo = holdfast('demo', '--json', '--dir', folder);
    await demo.said('started vm-1 on host-1');
    demo.child.kill(signal);
    const { status, out } = await demo.finished;
    expect(status).toBe(1);
    expect(JSON.parse(out.trim().split('\n').at(-1) as string)).toMatchObject({
      ok: false,
      error: { code: 'interrupted' },
    });
    await expectNothingLeft();
  });

  it('leaves nothing behind when it is killed itself', async () => {
    const demo = holdfast('demo', '--dir', folder, '--json');
    await demo.said('started host-1 on');
    demo.child.kill('SIGKILL');
    await demo.finished;
    await expect
      .poll(() => [...processesLeft(), existsSync(folder)], { timeout: 20_000 })
      .toEqual([false]);
    await expectNothingLeft();
  });

  it('fails, and leaves nothing behind, when a daemon dies during its preparation', async () => {
    const demo = holdfast('demo', '--json', '--dir', folder);
    await demo.said('started host-2 on');
    const daemon = processesLeft().find((line) => line.includes('host-2/config.yaml'));
    process.kill(Number(daemon?.split(' ')[0]), 'SIGKILL');
    const { status, out, err } = await demo.finished;
    expect(status).toBe(1);
    expect(JSON.parse(out.trim().split('\n').at(-1) as string)).toMatchObject({ ok: false });
    expect(err).toMatch(/The daemon of host-2 ended: signal SIGKILL/);
    await expectNothingLeft();
  });
});
