// `holdfast lab run FILE`: one scenario on real daemons and guests, its story, and what became of its checks.
// However it ends, nothing of it is left behind.

import type { Command } from '@commander-js/extra-typings';
import { enter, remove } from '../../lab/labs.ts';
import { holdfast } from '../../lab/program.ts';
import { type LabRun, runLab } from '../../lab/run.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { wholeNumber } from '../arguments.ts';
import type { OpenSession } from '../command.ts';
import { AlreadySaid } from '../failure.ts';
import { interruption } from '../interruption.ts';
import type { Io } from '../io.ts';
import { startReaper } from '../reaper.ts';
import { resultLines } from '../sim/run-command.ts';
import { readLabScenario } from './lab-scenario.ts';
import { saveLogs } from './logs.ts';

export function addRun(lab: Command, open: OpenSession): void {
  lab
    .command('run')
    .description('run a scenario on real daemons and guests on this machine')
    .argument('<file>', 'the scenario (docs/scenarios.md)')
    .option('--no-story', 'only the checks, not what happened')
    .option('--json', 'the result as one line of JSON, last on standard output')
    .option(
      '--guest-interval <ms>',
      'between two writes of a guest; 0: no pause',
      wholeNumber(0, 3_600_000),
    )
    .option('--logs <dir>', 'copy the logs of hosts and guests there before all is removed')
    .action(async (file, options, command) => {
      const session = open(command);
      const json = session.json || options.json === true;
      const { io } = session;
      const scenario = await readLabScenario(io, file);
      const run = await runAndRemove(scenario, {
        guestIntervalMs: options.guestInterval ?? null,
        say: (text) => (json ? io.err(`${text}\n`) : io.out(`${text}\n`)),
        tell: (line) => {
          if (options.story && !json) io.out(`${line}\n`);
        },
        logs: options.logs ?? null,
      });
      if (json) io.out(`${JSON.stringify(run.result)}\n`);
      else io.out(report(io, run));
      if (!run.result.ok) throw new AlreadySaid();
    });
}

interface Running {
  readonly guestIntervalMs: number | null;
  readonly say: (text: string) => void;
  readonly tell: (line: string) => void;
  readonly logs: string | null;
}

async function runAndRemove(scenario: Scenario, running: Running): Promise<LabRun> {
  const { logs, ...rest } = running;
  const hosts = scenario.cluster.hosts.map(({ name }) => name);
  const lab = enter({ kind: 'run', scenario: scenario.name, hosts });
  const reaper = startReaper(holdfast, ['lab', 'down', lab.id]);
  const stop = interruption('The lab');
  const story = runLab({ lab, scenario, signal: stop.signal, ...rest });
  try {
    return await Promise.race([story, stop.promise]);
  } finally {
    stop.abort(new Error('the lab ends'));
    await story.catch(() => undefined);
    if (logs !== null) saveLogs(lab.folder, logs);
    await remove(lab);
    stop.release();
    await reaper.dismiss();
  }
}

function report(io: Io, { result, violations, looked }: LabRun): string {
  const lines = ['', ...resultLines(result, (format, text) => io.style(format, text))];
  for (const { text } of violations) lines.push(`broken: ${text}`);
  lines.push(
    `${(result.wallMs / 1000).toFixed(1)} s in all; guests were looked at ${looked.rateHz.toFixed(0)} ` +
      `times a second, at least every ${looked.longestGapMs} ms`,
  );
  return `${lines.join('\n')}\n`;
}
