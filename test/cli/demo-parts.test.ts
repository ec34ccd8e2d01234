// The parts of the demo that judge: what was seen of processes, what the guests reported, and what
// follows from both.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeFolder, removeFolder, writeContext } from '../../src/cli/demo/folder.ts';
import { parseReports } from '../../src/cli/demo/guest-reports.ts';
import { cutPower } from '../../src/cli/demo/power-cut.ts';
import {
  demoMarker,
  endDemoProcesses,
  processesBelow,
  processesOfDemo,
} from '../../src/cli/demo/processes.ts';
import { faults, lostWrites, sinceKill, type VmResult } from '../../src/cli/demo/result.ts';
import { type Observation, Sampler } from '../../src/cli/demo/sampler.ts';
import { stopDemo } from '../../src/cli/demo/stop.ts';
import { readStat } from '../../src/lab/processes.ts';

let folder: string;
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'hf-parts-')));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('guest reports', () => {
  it('takes whole lines only, with or without carriage returns and kernel noise', () => {
    const text =
      'noise\r\n[    1.0] x holdfast: read 7\r\nholdfast: verify ok 6\r\nholdfast: wrote 8\r\n' +
      'holdfast: wrote 9\nholdfast: wrote 10';
    expect(parseReports(text)).toEqual({ reads: [7], lastWrote: 9, damage: [] });
  });

  it('knows boots and damage', () => {
    const text =
      'holdfast: read 0\nholdfast: read 5\nholdfast: verify bad 4\nholdfast: error disk\n';
    expect(parseReports(text)).toEqual({
      reads: [0, 5],
      lastWrote: null,
      damage: ['verify bad 4'],
    });
  });
});

describe('lost writes', () => {
  it.each([
    [41, 41, [], 0],
    [41, 42, [], 0], // written, but the report did not come out any more
    [41, 40, [], 1],
    [41, 0, [], 41],
    [41, 41, ['verify bad 3'], 1],
  ])('acknowledged %i, read %i, damage %j: %i', (acknowledged, read, damage, lost) => {
    expect(lostWrites(acknowledged, read, damage)).toBe(lost);
  });
});

describe('times since the kill', () => {
  const record = {
    vm: 'a',
    name: 'vm-1',
    from: 'host-1',
    to: 'host-2',
    recovery: {
      failedAtMs: 0,
      detectedAtMs: 2600.4,
      lockFreeAtMs: 4000,
      accessibleAtMs: null,
      placedAtMs: 4010,
      startedAtMs: 4200,
      guestReadyAtMs: 7100,
    },
  };
  const event = (type: string, at: number, vm = 'a') => ({
    at,
    host: 'host-2',
    type,
    vm,
    text: '',
  });

  it('are tied to the kill by an event of the same step', () => {
    // The last heartbeat was sent 300 ms before the kill.
    const events = [
      event('failover.detected', 500, 'b'),
      event('failover.detected', 10_000 + 2300.4),
    ];
    expect(sinceKill(record, events, 10_000)).toEqual({
      failedAtMs: 0,
      detectedAtMs: 2300,
      lockFreeAtMs: 3700,
      accessibleAtMs: null,
      placedAtMs: 3710,
      startedAtMs: 3900,
      guestReadyAtMs: 6800,
    });
  });

  it('ignore events from before the kill, and stay as they are without any', () => {
    const { detectedAtMs } = sinceKill(record, [event('failover.detected', 9000)], 10_000);
    expect(detectedAtMs).toBe(2600);
  });
});

describe('faults', () => {
  const vm: VmResult = {
    name: 'vm-1',
    from: 'host-1',
    to: 'host-2',
    lastAcknowledged: 9,
    firstReadAfter: 9,
    lost: 0,
    recovery: null,
  };
  const seen: Observation = {
    samples: 1001,
    durationMs: 10_000,
    longestGapMs: 30,
    maxInstances: { a: 1 },
  };

  it('none where all is well', () => {
    expect(faults([vm, { ...vm, from: 'host-2' }], 'host-1', seen)).toEqual([]);
  });

  it.each<[string, Partial<VmResult>, Partial<Observation>, RegExp]>([
    ['not moved', { to: 'host-1' }, {}, /did not move/],
    ['moved without need', { from: 'host-3' }, {}, /had not failed/],
    ['lost', { lost: 2 }, {}, /lost 2 acknowledged/],
    ['twice', {}, { maxInstances: { a: 2 } }, /2 running instances/],
    ['never seen', {}, { maxInstances: { a: 0 } }, /0 running instances/],
    ['looked too seldom', {}, { samples: 400 }, /only 39.9 times a second/],
  ])('%s', (_what, change, observed, text) => {
    const found = faults([{ ...vm, ...change }], 'host-1', { ...seen, ...observed });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(text);
  });
});

describe('the sampler', () => {
  const processes = (entries: Record<number, [args: string[], state: string]>): void => {
    rmSync(join(folder, 'proc'), { recursive: true, force: true });
    mkdirSync(join(folder, 'proc', 'self'), { recursive: true });
    for (const [pid, [args, state]] of Object.entries(entries)) {
      mkdirSync(join(folder, 'proc', pid));
      writeFileSync(join(folder, 'proc', pid, 'cmdline'), args.map((arg) => `${arg}\0`).join(''));
      writeFileSync(join(folder, 'proc', pid, 'stat'), `${pid} (qemu (x) y) ${state} 1 2 3`);
    }
  };
  const qemu = (vm: string, state = 'S', dir = '/tmp/demo'): [string[], string] => [
    ['/usr/bin/qemu-system-x86_64', '-qmp', `unix:${dir}/host-1/run/${vm}/qmp.sock`],
    state,
  ];
  const look = (...samples: Parameters<typeof processes>[0][]): Observation => {
    const sampler = new Sampler('/tmp/demo', ['vma', 'vmb'], join(folder, 'proc'));
    samples.forEach((entries, index) => {
      processes(entries);
      sampler.sample(index * 10);
    });
    return sampler.observation();
  };

  it('counts guests per VM, and only guests of the demo', () => {
    const guard: [string[], string] = [['/x/guard', '/tmp/demo/host-1/run/vma/guard.sock'], 'S'];
    const entries = {
      10: qemu('vma'),
      11: guard,
      12: qemu('vmb'),
      13: qemu('vma', 'S', '/tmp/demo2'),
    };
    expect(look(entries).maxInstances).toEqual({ vma: 1, vmb: 1 });
  });

  it('sees two at once, but not one after the other', () => {
    expect(look({ 10: qemu('vma') }, { 11: qemu('vma') }).maxInstances).toEqual({ vma: 1, vmb: 0 });
    expect(look({ 10: qemu('vma'), 11: qemu('vma', 'R') }).maxInstances).toEqual({
      vma: 2,
      vmb: 0,
    });
  });

  it('does not count stopped, traced and ended ones, in the very sample in which they are', () => {
    for (const state of ['T', 't', 'Z', 'X']) {
      expect(look({ 10: qemu('vma'), 11: qemu('vma', state) }).maxInstances['vma']).toBe(1);
    }
    const resumed = look(
      { 10: qemu('vma'), 11: qemu('vma', 'T') },
      { 10: qemu('vma'), 11: qemu('vma') },
    );
    expect(resumed.maxInstances['vma']).toBe(2);
  });

  it('sees a process become a guest after its fork', () => {
    const forked: [string[], string] = [['/x/guard', 'vma', '/tmp/demo/host-1'], 'R'];
    expect(look({ 10: forked }, { 10: qemu('vma') }).maxInstances['vma']).toBe(1);
  });

  it('measures its own rate', () => {
    const { samples, durationMs, longestGapMs } = look({}, {}, {});
    expect({ samples, durationMs, longestGapMs }).toEqual({
      samples: 3,
      durationMs: 20,
      longestGapMs: 10,
    });
  });
});

describe('processes', () => {
  const started: number[] = [];
  afterEach(() => {
    for (const pid of started.splice(0)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // gone, as it should be
      }
    }
  });
  const sleeper = async (env: object, ...args: string[]): Promise<number> => {
    const code = 'setInterval(() => {}, 1000); process.stdout.write("x")';
    const child = spawn(process.execPath, ['-e', code, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(child.stdout, 'data');
    started.push(child.pid as number);
    return child.pid as number;
  };
  const alive = (pid: number): boolean => !['Z', undefined].includes(readStat(pid)?.state);

  it("are the demo's by environment or command line, never by a similar folder", async () => {
    const marked = await sleeper({ [demoMarker]: folder });
    const named = await sleeper({}, `${folder}/host-1/config.yaml`);
    const similar = await sleeper({}, `${folder}0/host-1/config.yaml`);
    const other = await sleeper({});
    expect(new Set(processesOfDemo(folder))).toEqual(new Set([marked, named]));
    await endDemoProcesses(folder);
    expect([marked, named, similar, other].map(alive)).toEqual([false, false, true, true]);
  });

  it('of a host end together when its power is cut', async () => {
    const daemon = await sleeper({}, `${join(folder, 'host-1')}/config.yaml`);
    const guest = await sleeper({}, `unix:${join(folder, 'host-1')}/run/a/qmp.sock`);
    const elsewhere = await sleeper({}, `${join(folder, 'host-10')}/config.yaml`);
    expect(cutPower(join(folder, 'host-1'), daemon).killed).toBe(2);
    await expect.poll(() => [daemon, guest, elsewhere].map(alive)).toEqual([false, false, true]);
    expect(processesBelow(join(folder, 'host-1'), null)).toEqual([]);
  });

  it('and folder of a kept demo go with --stop, which takes nothing else', async () => {
    const demo = await makeFolder(join(folder, 'demo'));
    const context = await writeContext(demo, [join(demo, 'host-1/run/api.sock')]);
    const daemon = await sleeper({ [demoMarker]: demo });
    expect(await stopDemo(context)).toBe(demo);
    expect(alive(daemon)).toBe(false);
    expect(existsSync(demo)).toBe(false);

    const forged = join(folder, 'context.yaml');
    writeFileSync(forged, `sockets: [a]\ndemo: ${folder}\n`);
    await expect(stopDemo(forged)).rejects.toThrow(/no mark of a demo/);
    writeFileSync(forged, 'sockets: [a]\n');
    await expect(stopDemo(forged)).rejects.toThrow(/not the context of a demo/);
    writeFileSync(forged, 'sockets: [a]\ndemo: /tmp\n');
    await expect(stopDemo(forged)).rejects.toThrow(/is not in the demo's folder/);
  });

  it('a folder in use, or with too long a path, is refused', async () => {
    writeFileSync(join(folder, 'mine'), '');
    await expect(makeFolder(folder)).rejects.toThrow(/is not empty/);
    await expect(makeFolder(join(folder, 'x'.repeat(50)))).rejects.toThrow(/must not exceed/);
    await expect(removeFolder(folder)).rejects.toThrow(/no mark/);
  });
});
