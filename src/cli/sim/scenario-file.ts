// Scenario files as commands take them. Each mistake in one is told on a line of its own, as compilers
// do, and all of them together are wrong usage.

import { readFile } from 'node:fs/promises';
import { readScenario, ScenarioError } from '../../scenario/read.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { notYetPossible } from '../../simulator/run/set-up.ts';
import { UsageError } from '../failure.ts';
import type { Io } from '../io.ts';

/** Throws UsageError, after it has told on standard error what is wrong. */
export async function readScenarioFile(io: Io, file: string): Promise<Scenario> {
  const scenario = parseScenario(io, file, await readText(file));
  const missing = notYetPossible(scenario);
  if (missing.length > 0 && scenario.pending === null) {
    for (const what of missing) io.err(`${file}: ${what} can not be had yet\n`);
    throw new UsageError(
      `${file} asks for what this version can not do.`,
      'Leave it out, or say at the top what the scenario waits for: `pending: ...`.',
    );
  }
  return scenario;
}

/** Throws UsageError where there is no such file. */
export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(
      `${file} can not be read: ${(error as Error).message}.`,
      'Name a scenario file; scenarios/ has examples.',
    );
  }
}

/** Throws UsageError, after it has told on standard error what is wrong with the text. */
export function parseScenario(io: Io, file: string, text: string): Scenario {
  try {
    return readScenario(text);
  } catch (error) {
    if (!(error instanceof ScenarioError)) throw error;
    const { problems } = error;
    for (const { line, key, message } of problems) {
      io.err(`${file}:${line}: ${key === '' ? '' : `${key}: `}${message}\n`);
    }
    throw new UsageError(
      `${file} has ${problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`}.`,
      'Correct the named lines; docs/scenarios.md has the format.',
    );
  }
}
