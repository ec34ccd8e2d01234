// `holdfast lab` as its user meets it where nothing is started: what it refuses, and how it says so.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '../../src/cli/program.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hf-lab-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function lab(...args: string[]) {
  let out = '';
  let err = '';
  const status = await runCli(['lab', ...args], {
    out: (text) => (out += text),
    err: (text) => (err += text),
    closed: new AbortController().signal,
    errIsTerminal: false,
    env: {},
    style: (_format, text) => text,
  });
  return { status, out, err };
}

function file(text: string): string {
  const path = join(folder, 'scenario.yaml');
  writeFileSync(path, text);
  return path;
}

describe.each(['run', 'up'])('lab %s', (command) => {
  it('refuses what is for the simulator only, naming each key', async () => {
    const path = file(`
name: x
seed: 7
cluster: {hosts: 3, drift: {h1: 1%}}
vms: [{name: web}]
steps:
  - {at: 1s, flakyDisk: h1, errors: 5%}
  - {at: 2s, migrate: web, to: h2}
`);
    const { status, out, err } = await lab(command, path);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    const told = err.split('\n').filter((line) => line.startsWith(`${path}: `));
    expect(
      told.map((line) =>
        line
          .slice(path.length + 2)
          .split(': ')
          .slice(0, 2)
          .join(': '),
      ),
    ).toEqual([
      'seed: chance on real machines has none',
      'cluster.drift: all hosts of the lab have the clock of this machine',
      'steps: flakyDisk',
      'steps: migrate',
    ]);
    expect(err).toContain('holdfast sim run');
  });

  it('tells mistakes with their lines, as sim run does', async () => {
    const path = file('name: x\ncluster: {hosts: 3}\nstep: []\n');
    const { status, err } = await lab(command, path);
    expect(status).toBe(2);
    expect(err).toContain(`${path}:3: step: `);
  });

  it('says which file it can not read', async () => {
    expect(await lab(command, join(folder, 'none.yaml'))).toMatchObject({ status: 2 });
  });
});

it('knows no lab that there is not', async () => {
  const { status, err } = await lab('down', 'nosuchlab');
  expect(status).toBe(2);
  expect(err).toContain('There is no lab nosuchlab.');
});
