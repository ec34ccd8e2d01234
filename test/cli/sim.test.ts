// `holdfast sim` as its user meets it: what is said, where, and with which exit status.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '../../src/cli/program.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hf-sim-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function file(text: string): string {
  const path = join(folder, 'scenario.yaml');
  writeFileSync(path, text);
  return path;
}

async function sim(...args: string[]) {
  let out = '';
  let err = '';
  const status = await runCli(['sim', ...args], {
    out: (text) => (out += text),
    err: (text) => (err += text),
    closed: new AbortController().signal,
    errIsTerminal: false,
    env: {},
    style: (_format, text) => text,
  });
  return { status, out, err };
}

const hostDies = `
name: A host dies
cluster: {hosts: 3, networks: shared}
vms: [{name: v, count: 2, on: h1}]
steps: [{at: 5s, crash: h1}]
duration: 20s
expect:
  - {at: 20s, vm: "v-*", state: running, on: [h2, h3]}
  - {vm: "v-*", restartedWithin: 8s}
`;

describe('sim run', () => {
  it('tells the story, and ends with 0 where every check holds', async () => {
    const { status, out, err } = await sim('run', file(hostDies));
    expect(err).toBe('');
    expect(status).toBe(0);
    expect(out).toMatch(/^5\.000s world: h1 loses its power$/m);
    expect(out).toMatch(/^check ok: at 20s vm v-\* state running on h2, h3: saw 2 running/m);
    expect(out).toMatch(/\nok: A host dies \(seed 1, /);
  });

  it('gives the result as the last line, in JSON', async () => {
    const { status, out } = await sim('run', '--json', '--seed', '9', file(hostDies));
    const result = JSON.parse(out.trimEnd().split('\n').at(-1) as string);
    expect(status).toBe(0);
    expect(result).toMatchObject({
      name: 'A host dies',
      ok: true,
      executor: 'sim',
      seed: 9,
      simulatedMs: 20_000,
    });
    expect(result.recoveries).toHaveLength(2);
    expect(result.recoveries[0]).toMatchObject({ from: 'h1', failedAtMs: 5000 });
    expect(result.counters.restartAttempts).toBe(2);
  });

  it('ends with 1 where a check fails, and says what was there instead', async () => {
    const wrong = hostDies.replace('on: [h2, h3]', 'on: [h1]');
    const { status, out } = await sim('run', '--no-story', file(wrong));
    expect(status).toBe(1);
    expect(out).toMatch(/check FAILED: at 20s vm v-\* state running on h1: saw 2 running on h2/);
  });

  it('counts failing checks of a pending scenario neither way, and refuses the mark in vain', async () => {
    const wrong = hostDies.replace('on: [h2, h3]', 'on: [h1]');
    const pending = await sim('run', '--no-story', file(`pending: raising the dead${wrong}`));
    expect(pending.status).toBe(0);
    expect(pending.out).toMatch(/check pending: .*waits for: raising the dead/);
    expect((await sim('run', '--no-story', file(`pending: nothing${hostDies}`))).status).toBe(1);
  });

  it('refuses a bad file with line and key, each mistake on its line', async () => {
    const bad = hostDies.replace('networks', 'netwroks').replace('crash: h1', 'crash: h7');
    const { status, out, err } = await sim('run', file(bad));
    expect(status).toBe(2);
    expect(out).toBe('');
    expect(err).toMatch(
      /scenario\.yaml:3: cluster\.netwroks: unknown key, did you mean networks\?/,
    );
    expect(err).toMatch(/scenario\.yaml:5: steps\[0\]\.crash: there is no host "h7"/);
    expect(err).toMatch(/has 2 mistakes/);
  });

  it('refuses what can not be had yet', async () => {
    const steps = 'steps: [{at: 5s, migrate: v-1, to: h2}]';
    const { status, err } = await sim('run', file(hostDies.replace(/steps:.*/, steps)));
    expect(status).toBe(2);
    expect(err).toMatch(/v-1: migration can not be had yet/);
  });
});

describe('sim compare', () => {
  it('puts the strategies side by side', async () => {
    const { status, out } = await sim('compare', '--json', file(hostDies));
    expect(status).toBe(0);
    const [{ rows }] = JSON.parse(out) as [{ rows: { way: string; vmsRestarted: number }[] }];
    expect(rows.map((row) => row.way)).toContain('central file');
    expect(rows[0]).toMatchObject({ way: 'product', vmsRestarted: 2, attemptsFailed: 0 });
  });
});
