// A scenario file as the lab takes it: what only the simulator can do is wrong usage here.

import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { holdfast } from '../../lab/program.ts';
import { refusals } from '../../lab/refusals.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import { UsageError } from '../failure.ts';
import type { Io } from '../io.ts';
import { parseScenario, readText } from '../sim/scenario-file.ts';

/** Throws UsageError, after it has told on standard error what is wrong. */
export async function readLabScenario(io: Io, file: string): Promise<Scenario> {
  const text = await readText(file);
  const scenario = parseScenario(io, file, text);
  const problems = refusals(text, scenario);
  if (problems.length > 0) {
    for (const problem of problems) io.err(`${file}: ${problem}\n`);
    throw new UsageError(
      `${file} asks for what can not be done with real daemons on this machine.`,
      'Leave it out, or run the scenario with `holdfast sim run`.',
    );
  }
  needMachine(io.env['PATH'] ?? '', scenario);
  return scenario;
}

/** What the lab is built with; told before anything is made. */
function needMachine(path: string, scenario: Scenario): void {
  if (process.getuid?.() !== 0) {
    throw new UsageError('The lab needs root: it makes network namespaces.', 'Run it as root.');
  }
  const programs = ['ip', 'nft', 'nsenter'];
  if (scenario.cluster.guest === 'qemu') programs.push('qemu-system-x86_64');
  const folders = [...path.split(delimiter), '/usr/sbin', '/sbin'];
  const missing = programs.filter((name) => !folders.some((dir) => existsSync(join(dir, name))));
  if (missing.length > 0) {
    throw new UsageError(
      `The lab needs ${missing.join(', ')}, which this machine does not have.`,
      'Install the packages iproute2, nftables, util-linux and qemu-system-x86.',
    );
  }
  if (!existsSync(holdfast)) {
    throw new UsageError('The daemons of the lab are not built yet.', 'Run `make build guest`.');
  }
}
