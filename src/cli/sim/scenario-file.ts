// Scenario files as commands take them: what is wrong in one is told as wrong usage, with key and line.

import { readFile } from 'node:fs/promises';
import { readScenario, ScenarioError } from '../../scenario/read.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { notYetPossible } from '../../simulator/run/set-up.ts';
import { UsageError } from '../failure.ts';

class ScenarioFileError extends UsageError {
  /** Each a line for people. */
  readonly problems: readonly string[];
  constructor(file: string, problems: readonly string[]) {
    super(
      `${file}: ${problems.join('; ')}`,
      'Correct the named lines; docs/scenarios.md has the format.',
    );
    this.problems = problems;
  }
}

export async function readScenarioFile(file: string): Promise<Scenario> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(
      `${file} can not be read: ${(error as Error).message}`,
      'Name a scenario file; scenarios/ has examples.',
    );
  }
  const scenario = parse(file, text);
  const missing = notYetPossible(scenario);
  if (missing.length > 0 && scenario.pending === null) {
    throw new ScenarioFileError(
      file,
      missing.map(
        (what) => `${what} can not be had yet (a scenario with \`pending\` may ask for it)`,
      ),
    );
  }
  return scenario;
}

function parse(file: string, text: string): Scenario {
  try {
    return readScenario(text);
  } catch (error) {
    if (!(error instanceof ScenarioError)) throw error;
    throw new ScenarioFileError(
      file,
      error.problems.map(({ line, key, message }) => `line ${line}: ${key}: ${message}`),
    );
  }
}
