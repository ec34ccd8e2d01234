// `holdfast lab ...`: clusters of real daemons on this machine.

import { Command } from '@commander-js/extra-typings';
import type { OpenSession } from '../command.ts';
import { addDown } from './down-command.ts';
import { addRun } from './run-command.ts';
import { addExec, addStatus, addUp } from './stand-commands.ts';

export function labCommands(open: OpenSession): Command {
  const lab = new Command('lab').description(
    'whole clusters of real daemons and guests on this machine, in network namespaces (root only)',
  );
  addRun(lab, open);
  addUp(lab, open);
  addStatus(lab, open);
  addExec(lab);
  addDown(lab, open);
  return lab;
}
