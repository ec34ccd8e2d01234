// `holdfast vm metadata ...`: what services keep in the namespace objects of VMs.

import { Command, InvalidArgumentError } from '@commander-js/extra-typings';
import type { MetadataOutcomeReply, MetadataValuesReply } from '../api/storage-schemas.ts';
import { wholeNumber } from './arguments.ts';
import type { OpenSession } from './command.ts';
import { AlreadySaid } from './failure.ts';
import type { Io } from './io.ts';
import { columns } from './tables.ts';

export function metadataCommands(open: OpenSession): Command {
  const metadata = new Command('metadata').description(
    'keys and values that services keep with the VMs, readable wherever a VM can be started',
  );

  metadata
    .command('get')
    .description('the value of a key, of some VMs or of all that are accessible')
    .argument('<service>', 'whose key it is')
    .argument('<key>', 'its name')
    .argument('[vms...]', 'names or ids of VMs (default: all that are accessible)')
    .action(async (service, key, vms, _options, command) => {
      const session = open(command);
      const client = await session.client();
      const found = await client.metadata(service, key, vms.length === 0 ? undefined : vms);
      session.print(found, () => valuesText(session.io, found));
    });

  metadata
    .command('set')
    .description('set a key of one or several VMs; each succeeds or fails for itself')
    .argument('<service>', 'whose key it is')
    .argument('<key>', 'its name')
    .argument('<value>', 'JSON such as 3, \'"text"\' or {"a":1}; null removes the key', json)
    .argument('<vms...>', 'names or ids of VMs')
    .option('--expected <value>', 'only where it has this value now (JSON; null: none)', json)
    .option(
      '--revision <number>',
      "only where the VM's record has this revision",
      wholeNumber(0, Number.MAX_SAFE_INTEGER),
    )
    .action(async (service, key, value, vms, { expected, revision }, command) => {
      const session = open(command);
      const client = await session.client();
      const changes = vms.map((vm) => ({
        vm,
        service,
        key,
        value: value.json,
        ...(expected === undefined ? {} : { expected: expected.json }),
        ...(revision === undefined ? {} : { revision }),
      }));
      const outcomes = await client.setMetadata(changes);
      session.print(outcomes, () => outcomesText(session.io, outcomes));
      // Which were not changed, and why, stands in what was printed.
      if (outcomes.some((one) => !one.done)) throw new AlreadySaid();
    });
  return metadata;
}

/** In an object, because null is a value too. */
function json(text: string): { readonly json: unknown } {
  try {
    return { json: JSON.parse(text) as unknown };
  } catch {
    throw new InvalidArgumentError('Expected JSON, such as 3, \'"text"\' or {"a":1}.');
  }
}

function valuesText(io: Io, { values, without, inaccessible }: MetadataValuesReply): string {
  const rows = [
    ...values.map((one) => [one.name, one.revision, JSON.stringify(one.value)]),
    ...without.map((name) => [name, '', io.style('yellow', 'no such key')]),
    ...inaccessible.map((name) => [name, '', io.style('red', 'not accessible')]),
  ];
  return rows.length === 0
    ? 'No VM has this key.\n'
    : columns(io, ['VM', 'REVISION', 'VALUE'], rows);
}

function outcomesText(io: Io, outcomes: readonly MetadataOutcomeReply[]): string {
  return columns(
    io,
    ['VM', 'RESULT'],
    outcomes.map(({ vm, done, message }) => [vm, done ? 'set' : io.style('red', message ?? '')]),
  );
}
