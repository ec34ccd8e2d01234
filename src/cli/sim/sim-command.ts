// `holdfast sim ...`: clusters on virtual time, with the production code.

import { Command } from '@commander-js/extra-typings';
import type { OpenSession } from '../command.ts';
import { addCompare } from './compare-command.ts';
import { addExplore } from './explore-command.ts';
import { addRun } from './run-command.ts';

export function simCommands(open: OpenSession): Command {
  const sim = new Command('sim').description(
    'whole clusters on virtual time, with the production code',
  );
  addRun(sim, open);
  addCompare(sim, open);
  addExplore(sim, open);
  return sim;
}
