// `holdfast lab down`: ends and removes labs that stand, and what killed ones have left behind.

import type { Command } from '@commander-js/extra-typings';
import { isAtWork, type LabRecord, labs, remove } from '../../lab/labs.ts';
import type { OpenSession } from '../command.ts';
import { UsageError } from '../failure.ts';

export function addDown(lab: Command, open: OpenSession): void {
  lab
    .command('down')
    .description('end and remove labs: all that stand or were left behind, or the one named')
    .argument('[lab]', 'as `lab status` names it')
    .action(async (id, _options, command) => {
      const session = open(command);
      const removed = chosen(id);
      for (const one of removed) await remove(one);
      session.print(
        removed.map((one) => one.id),
        () => removed.map((one) => `Lab ${one.id} (${one.scenario}) is removed.\n`).join(''),
      );
    });
}

/** One that is at work is taken down only by its name. */
function chosen(id: string | undefined): LabRecord[] {
  const all = labs();
  if (id === undefined) return all.filter((lab) => !isAtWork(lab));
  const found = all.filter((lab) => lab.id === id);
  if (found.length === 0)
    throw new UsageError(`There is no lab ${id}.`, 'See `holdfast lab status`.');
  return found;
}
