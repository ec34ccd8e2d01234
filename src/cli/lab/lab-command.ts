// `holdfast lab ...`: clusters of real daemons on this machine.

import { Command } from '@commander-js/extra-typings';
import type { OpenSession } from '../command.ts';
import { addDown } from './down-command.ts';
import { addRun } from './run-command.ts';

export function labCommands(open: OpenSession): Command {
  const lab = new Command('lab').description(
    'whole clusters of real daemons and guests on this machine, in network namespaces (root only)',
  );
  addRun(lab, open);
  addDown(lab, open);
  return lab;
}
