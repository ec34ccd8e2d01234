// `holdfast object ...`: what VMs are made of, where each piece lies and how it is.

import { Command } from '@commander-js/extra-typings';
import type { ObjectReply } from '../api/storage-schemas.ts';
import type { OpenSession } from './command.ts';
import type { Io } from './io.ts';
import { columns, pairs, roundSize } from './tables.ts';

export function objectCommands(open: OpenSession): Command {
  const object = new Command('object').description('the storage objects of the VMs');

  object
    .command('list')
    .description('all objects that this part of the cluster knows')
    .option('--vm <name>', 'only those of this VM')
    .option('--problems', 'only those that do not survive what their policy says')
    .action(async ({ vm, problems }, command) => {
      const session = open(command);
      const client = await session.client();
      const objects = await client.objects({
        ...(vm === undefined ? {} : { vm }),
        problems: problems === true,
      });
      session.print(objects, () => objectTable(session.io, objects, problems === true));
    });

  object
    .command('show')
    .description('one object: its tree of mirrors, stripes and components, and its voters')
    .argument('<object>', 'its id, or VM/DISK such as web/disk0 or web/namespace')
    .action(async (name, _options, command) => {
      const session = open(command);
      const found = await (await session.client()).object(name);
      session.print(found, () => objectText(session.io, found));
    });
  return object;
}

function objectTable(io: Io, objects: readonly ObjectReply[], problems: boolean): string {
  if (objects.length === 0) {
    return problems ? 'All objects comply with their policies.\n' : 'There are no objects.\n';
  }
  return columns(
    io,
    ['OBJECT', 'SIZE', 'TOLERATES', 'COPIES', 'VOTERS', 'STATE', 'PROBLEM'],
    objects.map((object) => [
      `${object.vmName}/${object.label}`,
      object.kind === 'namespace' ? '-' : roundSize(object.sizeBytes),
      failures(object),
      copies(object),
      `${object.votes.filter((vote) => vote.state === 'reachable').length} of ${object.votes.length}`,
      stateText(io, object),
      object.problems.join('; '),
    ]),
  );
}

function objectText(io: Io, object: ObjectReply): string {
  const { policy, votes, accessible, problems } = object;
  const overview = pairs(io, [
    ['Object', `${object.vmName}/${object.label}`],
    ['Id', object.object],
    ['Kind', object.kind],
    ...(object.kind === 'disk' ? [['Size', roundSize(object.sizeBytes)] as const] : []),
    [
      'Policy',
      `tolerates ${failures(object)}, ${policy.stripes} ${policy.stripes === 1 ? 'stripe' : 'stripes'}, ${policy.thick === true ? 'thick' : 'thin'}${policy.deviceClass === undefined ? '' : `, on ${policy.deviceClass} devices`}`,
    ],
    ['Accessible', accessible.accessible ? 'yes' : io.style('red', `no: ${accessible.text}`)],
    ['In sync', object.inSync.join(' ') || '-'],
    ...(object.resync === null ? [] : [['Resync', resyncText(object.resync)] as const]),
    ['Complies', problems.length === 0 ? 'yes' : io.style('yellow', `no: ${problems.join('; ')}`)],
  ]);
  const mirrors = mirrorBranches(io, object.components);
  const next: Branch = {
    text: 'in the making, to take their place',
    branches: mirrorBranches(io, object.next),
  };
  const needed = Math.floor(object.voters.length / 2) + 1;
  const voters: Branch = {
    text: `voters, ${needed} of ${object.voters.length} needed`,
    branches: votes.map((vote) => ({
      text: `${vote.host} (${vote.role}): ${colored(io, vote.state)}`,
      branches: [],
    })),
  };
  const root: Branch = {
    text: `${object.vmName}/${object.label}`,
    branches: [...mirrors, ...(object.next.length === 0 ? [] : [next]), voters],
  };
  return `${overview}\n${drawn(root)}`;
}

function mirrorBranches(io: Io, components: readonly Part[]): Branch[] {
  return mirrorsOf(components).map(
    ([mirror, parts]): Branch => ({
      text: `mirror ${mirror}`,
      branches: parts.map((part) => ({
        text: `stripe ${part.stripe}`,
        branches: [
          {
            text: `${part.component} on ${part.host}${deviceText(part)}: ${colored(io, part.state)}`,
            branches: [],
          },
        ],
      })),
    }),
  );
}

function resyncText(resync: NonNullable<ObjectReply['resync']>): string {
  const { bytesDone, bytesLeft, bytesPerSecond, secondsLeft } = resync;
  const left = `${roundSize(bytesLeft)} of ${roundSize(bytesDone + bytesLeft)} left`;
  if (secondsLeft === null) return left;
  const time = secondsLeft < 120 ? `${secondsLeft} s` : `${Math.ceil(secondsLeft / 60)} min`;
  return `${left}, ${roundSize(bytesPerSecond)}/s, about ${time}`;
}

interface Branch {
  readonly text: string;
  readonly branches: readonly Branch[];
}

function drawn(branch: Branch, indent = ''): string {
  const below = branch.branches.map((one, index) => {
    const isLast = index === branch.branches.length - 1;
    const rest = drawn(one, `${indent}${isLast ? '   ' : '│  '}`);
    return `${indent}${isLast ? '└─ ' : '├─ '}${rest}`;
  });
  return `${branch.text}\n${below.join('')}`;
}

type Part = ObjectReply['components'][number];

function mirrorsOf(components: readonly Part[]): [number, Part[]][] {
  const mirrors = new Map<number, Part[]>();
  for (const part of components) {
    mirrors.set(part.mirror, [...(mirrors.get(part.mirror) ?? []), part]);
  }
  return [...mirrors];
}

function copies(object: ObjectReply): string {
  if (object.kind === 'namespace') return '-';
  const whole = mirrorsOf(object.components).filter(([, parts]) =>
    parts.every((part) => part.state === 'active'),
  );
  return `${whole.length} of ${object.policy.failuresToTolerate + 1}`;
}

function stateText(io: Io, { accessible, problems }: ObjectReply): string {
  if (!accessible.accessible) return io.style('red', 'inaccessible');
  return problems.length === 0 ? 'ok' : io.style('yellow', 'reduced');
}

/** Only where its host has several. */
function deviceText({ device }: Part): string {
  return device === null ? '' : `, device ${device}`;
}

function colored(io: Io, state: string): string {
  if (state === 'active' || state === 'reachable') return io.style('green', state);
  return io.style(state === 'degraded' ? 'red' : 'yellow', state);
}

function failures({ policy: { failuresToTolerate } }: ObjectReply): string {
  return `${failuresToTolerate} ${failuresToTolerate === 1 ? 'failure' : 'failures'}`;
}
