// The search for random faults on the compiled program, on all processors: it finds nothing in the
// product, and it finds each of a list of deliberate mistakes in a copy of it.

import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type PlantedBug, plantedBugs } from '../simulator/planted-bugs.ts';

interface Explored {
  readonly ok: boolean;
  readonly seeds: number;
  readonly faults: number;
  readonly wallMs: number;
  readonly found: readonly {
    readonly seed: number;
    readonly invariant: string;
    readonly text: string;
  }[];
}

const MINUTE_MS = 60_000;

function explore(program: string, ...options: string[]): Promise<Explored> {
  const args = [
    join(program, 'cli/main.js'),
    'sim',
    'explore',
    '--json',
    '--no-shrink',
    ...options,
  ];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { maxBuffer: 2 ** 26 }, (_error, out, err) => {
      try {
        resolve(JSON.parse(out) as Explored);
      } catch {
        reject(new Error(`no result: ${err}`));
      }
    });
  });
}

describe('the product', () => {
  it('breaks nothing in a fixed batch of 300 seeds', { timeout: 10 * MINUTE_MS }, async () => {
    const { found, seeds, faults, wallMs } = await explore('dist', '--seeds', '300');
    expect(found).toEqual([]);
    expect(seeds).toBe(300);
    expect(faults).toBeGreaterThan(10_000);
    console.log(`300 seeds in ${(wallMs / 1000).toFixed(1)} s, ${faults} faults`);
  });
});

describe('a planted bug is found', () => {
  let copy: string;

  beforeAll(() => {
    mkdirSync('build', { recursive: true });
    copy = mkdtempSync(join('build', 'planted-'));
    cpSync('dist', copy, { recursive: true, filter: (file) => !file.endsWith('.map') });
  });
  afterAll(() => rmSync(copy, { recursive: true, force: true }));

  it.each(plantedBugs.map((bug) => [bug.name, bug] as const))(
    '%s',
    { timeout: 10 * MINUTE_MS },
    async (_name, bug) => {
      const compiled = bug.file.replace(/\.ts$/, '.js');
      writeFileSync(join(copy, compiled), withBug(bug));
      try {
        // First the seeds about one that is known to find it; then those that know nothing of it.
        const options = ['--no-recovery', '--stop-after', '1'];
        const near = await explore(copy, ...options, '--from', String(bug.seed), '--seeds', '20');
        const { found } = near.ok ? await explore(copy, ...options, '--seeds', '2000') : near;
        expect(found.length, `${bug.name}: ${bug.why}`).toBeGreaterThan(0);
        for (const { seed, invariant } of found) {
          console.log(`${bug.name}: ${invariant}, by seed ${seed}`);
        }
      } finally {
        cpSync(join('dist', compiled), join(copy, compiled));
      }
    },
  );
});

/** The compiled file with the mistake in it. */
function withBug({ file, find, replace }: PlantedBug): string {
  const source = readFileSync(join('src', file), 'utf8');
  const { outputText } = ts.transpileModule(
    source.replace(find, () => replace),
    {
      compilerOptions: {
        module: ts.ModuleKind.ESNext,
        target: ts.ScriptTarget.ES2023,
        verbatimModuleSyntax: true,
        rewriteRelativeImportExtensions: true,
      },
    },
  );
  return outputText;
}
