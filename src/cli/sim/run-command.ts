// `holdfast sim run FILE`: one scenario on virtual time, its story, and what became of its checks.

import { crc32 } from 'node:zlib';
import type { Command } from '@commander-js/extra-typings';
import { inOwnTurn, settlePromises } from '../../platform/promises.ts';
import type { ScenarioResult } from '../../scenario/scenario.ts';
import { runScenario, type ScenarioRun } from '../../simulator/run/run.ts';
import { wholeNumber } from '../arguments.ts';
import type { OpenSession } from '../command.ts';
import { AlreadySaid } from '../failure.ts';
import type { Io } from '../io.ts';
import { readScenarioFile } from './scenario-file.ts';

export function addRun(sim: Command, open: OpenSession): void {
  sim
    .command('run')
    .description('run a scenario on virtual time')
    .argument('<file>', 'the scenario (docs/scenarios.md)')
    .option('--seed <number>', 'instead of the seed in the file', wholeNumber(0, 2 ** 53 - 1))
    .option('--no-story', 'only the checks, not what happened')
    .option('--json', 'the result as one line of JSON, last on standard output')
    .action(async (file, options, command) => {
      const session = open(command);
      const json = session.json || options.json === true;
      const { io } = session;
      const scenario = await readScenarioFile(io, file);
      const run = await inOwnTurn(() =>
        runScenario(scenario, {
          settle: settlePromises(),
          crc32,
          realTime: () => performance.now(),
          log: options.story && !json ? (line) => io.out(`${line}\n`) : null,
          ...(options.seed === undefined ? {} : { seed: options.seed }),
        }),
      );
      for (const { atMs, invariant, text } of run.violations) {
        io.err(`${(atMs / 1000).toFixed(3)}s ${invariant}: ${text}\n`);
      }
      if (json) io.out(`${JSON.stringify(run.result)}\n`);
      else io.out(report(io, run));
      if (!run.result.ok) throw new AlreadySaid();
    });
}

function report(io: Io, { result }: ScenarioRun): string {
  const lines = ['', ...resultLines(result, (format, text) => io.style(format, text))];
  const speed = result.simulatedMs / Math.max(1, result.wallMs);
  lines.push(
    `${(result.wallMs / 1000).toFixed(1)} s, ${speed.toFixed(0)} times faster than real time`,
  );
  return `${lines.join('\n')}\n`;
}

type Style = (format: 'green' | 'red' | 'yellow', text: string) => string;

/** Checks, invariants, counters, restarts and the verdict: what a golden log ends with. */
export function resultLines(result: ScenarioResult, style: Style = (_, text) => text): string[] {
  const lines = result.checks.map(({ check, ok, saw, pending }) => {
    const word = ok
      ? style('green', 'ok')
      : pending
        ? style('yellow', 'pending')
        : style('red', 'FAILED');
    const why = pending === undefined ? '' : ` (waits for: ${pending})`;
    return `check ${word}: ${check}: saw ${saw}${why}`;
  });
  for (const { name, violations } of result.invariants) {
    if (violations > 0)
      lines.push(`invariant ${style('red', 'BROKEN')}: ${name}: ${violations} times`);
  }
  const kept = result.invariants.filter((one) => one.violations === 0).map((one) => one.name);
  lines.push(`invariants kept: ${kept.join(', ')}`);
  for (const one of result.recoveries) {
    const took =
      one.startedAtMs === null ? 'never' : `${(one.startedAtMs - one.failedAtMs) / 1000} s`;
    lines.push(`restart: ${one.vm}: ${one.from ?? '?'} -> ${one.to ?? '?'}, after ${took}`);
  }
  const counters = Object.entries(result.counters).map(([name, value]) => `${name} ${value}`);
  lines.push(`counters: ${counters.join(', ')}`);
  lines.push(`${verdict(result, style)}: ${result.name} (seed ${result.seed}, ${seconds(result)})`);
  return lines;
}

function verdict(result: ScenarioResult, style: Style): string {
  if (!result.ok) return style('red', 'failed');
  const isPending = result.checks.some((check) => check.pending !== undefined);
  return isPending ? style('yellow', 'pending') : style('green', 'ok');
}

function seconds({ simulatedMs }: ScenarioResult): string {
  return `${simulatedMs / 1000} s`;
}
