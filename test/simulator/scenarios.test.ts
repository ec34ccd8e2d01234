// The scenarios in scenarios/: each is run, and what `sim run` prints of it must be its golden log, to
// the letter. UPDATE_GOLDEN=1 (or `make golden`) writes the logs anew; a reviewer reads what changed.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { resultLines } from '../../src/cli/sim/run-command.ts';
import { inOwnTurn, settlePromises } from '../../src/platform/promises.ts';
import { readScenario } from '../../src/scenario/read.ts';
import type { Scenario } from '../../src/scenario/scenario.ts';
import { runScenario, type ScenarioRun } from '../../src/simulator/run/run.ts';
import { notYetPossible } from '../../src/simulator/run/set-up.ts';
import { scenarioFiles } from './scenario-files.ts';

const isUpdate = process.env['UPDATE_GOLDEN'] === '1';

interface Told {
  readonly run: ScenarioRun;
  /** What is printed, but for how long it really took. */
  readonly text: string;
}

async function tell(scenario: Scenario): Promise<Told> {
  const story: string[] = [];
  const run = await inOwnTurn(() =>
    runScenario(scenario, {
      settle: settlePromises(),
      realTime: () => 0,
      log: (line) => void story.push(line),
    }),
  );
  return { run, text: `${[...story, '', ...resultLines(run.result)].join('\n')}\n` };
}

describe.each(scenarioFiles())('%s', (_name, file) => {
  const text = readFileSync(file, 'utf8');

  test('says what it shows', () => {
    expect(text.split('\n')[0]).toMatch(/^# \S/);
  });

  test('is told as in its golden log, twice the same', async () => {
    const scenario = readScenario(text);
    const { run, text: told } = await tell(scenario);
    expect((await tell(scenario)).text).toBe(told);

    const golden = file.replace(/\.yaml$/, '.log');
    if (isUpdate) writeFileSync(golden, told);
    expect(existsSync(golden), `${golden} is missing; UPDATE_GOLDEN=1 writes it`).toBe(true);
    expect(told).toBe(readFileSync(golden, 'utf8'));

    expect(run.violations).toEqual([]);
    expect(run.result.ok).toBe(true);
    const failed = run.result.checks.filter((check) => !check.ok);
    if (scenario.pending === null) {
      expect(failed).toEqual([]);
      expect(notYetPossible(scenario)).toEqual([]);
    } else {
      // Else the capability is there, and the mark must go.
      expect(failed.length).toBeGreaterThan(0);
      expect(failed.every((check) => check.pending === scenario.pending)).toBe(true);
    }
  });

  test('has no ids where names are meant', () => {
    const golden = file.replace(/\.yaml$/, '.log');
    expect(readFileSync(golden, 'utf8')).not.toMatch(/[0-9a-f]{32}/);
  });
});
