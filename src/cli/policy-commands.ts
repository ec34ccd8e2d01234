// `holdfast policy ...`: the named storage policies of the cluster.

import { Command, Option } from '@commander-js/extra-typings';
import type { PolicyReply } from '../api/storage-schemas.ts';
import { deviceClasses } from '../model/device.ts';
import { limits } from '../model/limits.ts';
import { vmName, wholeNumber } from './arguments.ts';
import type { OpenSession } from './command.ts';
import type { Io } from './io.ts';
import { columns } from './tables.ts';

export function policyCommands(open: OpenSession): Command {
  const policy = new Command('policy').description(
    'storage policies: what the objects of new VMs survive',
  );

  policy
    .command('create')
    .description('give a policy a name; it counts for objects that are made with it')
    .argument('<name>', 'its name: lower-case letters, digits, hyphens', vmName)
    .requiredOption(
      '--failures-to-tolerate <number>',
      `hosts that may fail, 0 to ${limits.maxFailuresToTolerate}; f failures need 2f+1 hosts`,
      wholeNumber(0, limits.maxFailuresToTolerate),
    )
    .option(
      '--stripes <number>',
      'components that each copy is spread over',
      wholeNumber(1, limits.maxStripes),
      1,
    )
    .option('--thick', 'allocate all space when an object is made')
    .addOption(
      new Option(
        '--class <class>',
        'put it on devices of this class only (default: on large ones, on fast ones where those are full)',
      ).choices(deviceClasses),
    )
    .action(async (name, { failuresToTolerate, stripes, thick, class: deviceClass }, command) => {
      const session = open(command);
      const body = {
        name,
        failuresToTolerate,
        stripes,
        thick: thick === true,
        ...(deviceClass === undefined ? {} : { deviceClass }),
      };
      const made = await (await session.client()).createPolicy(body);
      session.print(made, () => `Policy ${policyText(made)}.\n`);
    });

  policy
    .command('list')
    .description('all policies that this part of the cluster knows')
    .action(async (_options, command) => {
      const session = open(command);
      const policies = await (await session.client()).policies();
      session.print(policies, () => policyTable(session.io, policies));
    });

  policy
    .command('show')
    .description('one policy')
    .argument('<name>', 'its name; `default` for whichever is the default')
    .action(async (name, _options, command) => {
      const session = open(command);
      const found = await (await session.client()).policy(name);
      session.print(found, () => `Policy ${policyText(found)}.\n`);
    });

  policy
    .command('default')
    .description('make a policy the one that VMs get whose maker names none')
    .argument('<name>', 'its name')
    .action(async (name, _options, command) => {
      const session = open(command);
      const found = await (await session.client()).setDefaultPolicy(name);
      session.print(found, () => `Policy ${policyText(found)}.\n`);
    });

  policy
    .command('remove')
    .description('forget a name; objects that were made with it keep what it said')
    .argument('<name>', 'its name')
    .action(async (name, _options, command) => {
      const session = open(command);
      await (await session.client()).removePolicy(name);
      session.print({ removed: name }, () => `Policy ${name} is removed.\n`);
    });
  return policy;
}

function policyTable(io: Io, policies: readonly PolicyReply[]): string {
  return columns(
    io,
    ['NAME', 'TOLERATES', 'STRIPES', 'SPACE', 'DEVICES', 'HOSTS', 'KIND'],
    policies.map((policy) => [
      policy.name,
      failures(policy),
      policy.stripes,
      policy.thick ? 'thick' : 'thin',
      policy.deviceClass ?? 'any',
      policy.hostsNeeded,
      [policy.isBuiltIn ? 'built in' : '', policy.isDefault ? 'default' : '']
        .filter((text) => text !== '')
        .join(', '),
    ]),
  );
}

function policyText(policy: PolicyReply): string {
  const { name, stripes, thick, deviceClass, hostsNeeded, isBuiltIn, isDefault } = policy;
  return [
    `${name}: tolerates ${failures(policy)} on ${hostsNeeded} ${hostsNeeded === 1 ? 'host' : 'hosts'}`,
    `${stripes} ${stripes === 1 ? 'stripe' : 'stripes'}`,
    thick ? 'thick (all space is allocated at once)' : 'thin (space is taken when it is written)',
    ...(deviceClass === null ? [] : [`on ${deviceClass} devices`]),
    ...(isBuiltIn ? ['built in'] : []),
    ...(isDefault ? ['the default'] : []),
  ].join(', ');
}

function failures({ failuresToTolerate }: PolicyReply): string {
  return `${failuresToTolerate} ${failuresToTolerate === 1 ? 'failure' : 'failures'}`;
}
