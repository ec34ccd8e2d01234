// `holdfast sim compare FILE...`: the same scenario under the product's strategies and under the
// conventional ones, side by side.

import { crc32 } from 'node:zlib';
import type { Command } from '@commander-js/extra-typings';
import { inOwnTurn, settlePromises } from '../../platform/promises.ts';
import { type ComparisonRow, compare, ways } from '../../simulator/run/compare.ts';
import type { OpenSession } from '../command.ts';
import type { Io } from '../io.ts';
import { columns } from '../tables.ts';
import { readScenarioFile } from './scenario-file.ts';

export function addCompare(sim: Command, open: OpenSession): void {
  sim
    .command('compare')
    .description('run scenarios with the strategies of the product and with conventional ones')
    .argument('<file...>', 'scenarios (docs/scenarios.md); their own `strategies` do not count')
    .option('--json', 'the rows as one line of JSON, last on standard output')
    .action(async (files, options, command) => {
      const session = open(command);
      const json = session.json || options.json === true;
      const scenarios = [];
      for (const file of files) scenarios.push(await readScenarioFile(session.io, file));
      const all: { readonly scenario: string; readonly rows: ComparisonRow[] }[] = [];
      for (const scenario of scenarios) {
        const rows: ComparisonRow[] = [];
        for (const way of ways) {
          const run = () =>
            compare(scenario, way, {
              settle: settlePromises(),
              crc32,
              realTime: () => performance.now(),
              log: null,
            });
          rows.push(await inOwnTurn(run));
        }
        all.push({ scenario: scenario.name, rows });
        if (!json) session.io.out(`${scenario.name}\n${table(session.io, rows)}\n`);
      }
      if (json) session.io.out(`${JSON.stringify(all)}\n`);
    });
}

function table(io: Io, rows: readonly ComparisonRow[]): string {
  const head = [
    'strategy',
    'VMs restarted',
    'median',
    'worst',
    'failed attempts',
    'updates refused',
    'lost or in conflict',
    'new master knows',
    'queries',
    'checks failed',
  ];
  const seconds = (ms: number | null, none: string) =>
    ms === null ? none : `${(ms / 1000).toFixed(1)} s`;
  const cells = rows.map((row) => [
    row.way,
    String(row.vmsRestarted),
    seconds(row.medianMs, '-'),
    seconds(row.worstMs, '-'),
    String(row.attemptsFailed),
    String(row.updatesRefused),
    String(row.updatesLost),
    row.masterKnowsMs === null ? 'never' : `${Math.ceil(row.masterKnowsMs)} ms`,
    String(row.counters.accessibilityQueries),
    String(row.checksFailed),
  ]);
  return columns(io, head, cells);
}
