// `holdfast host ...`: running this machine's daemon, and hosts joining the cluster.

import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { Command, Option } from '@commander-js/extra-typings';
import { addDevice } from '../daemon/add-device.ts';
import { joinCluster } from '../daemon/cluster-init.ts';
import { deviceClasses } from '../model/device.ts';
import { HoldfastError } from '../model/errors.ts';
import { builtInGuestSettings } from './built-in-guest.ts';
import type { OpenSession } from './command.ts';
import { UsageError } from './failure.ts';
import { nextSteps, writeHostContext } from './new-host.ts';
import { hostTable, hostText } from './tables.ts';

export function hostCommands(open: OpenSession): Command {
  const host = new Command('host').description('hosts');

  host
    .command('run')
    .description("run this machine's host daemon until it is told to stop; guests go on then")
    .requiredOption('--config <file>', "the host's configuration")
    .action(async ({ config }) => {
      // Only here: no other command needs the daemon's code, and loading it takes time.
      const { runDaemon } = await import('../daemon/main.ts');
      await runDaemon(config);
    });

  host
    .command('token')
    .description('a token with which one more machine can join; ask a host that has the CA key')
    .action(async (_options, command) => {
      const session = open(command);
      const token = await (await session.client()).createToken();
      session.print({ token }, () => `${token}\n`);
    });

  host
    .command('join')
    .description('make this machine a host of an existing cluster')
    .option('--token <token>', 'from `holdfast host token`; other users see it in the process list')
    .option('--token-file <file>', 'file with the token (`-`: standard input)')
    .requiredOption('--name <name>', 'name of this host')
    .requiredOption('--dir <dir>', 'folder of the host: configuration, keys, store')
    .requiredOption('--storage-address <address:port>', 'where it listens on the storage network')
    .requiredOption('--ha-address <address:port>', 'where it listens on the HA network')
    .option('--site <name>', 'where it is: copies and voters of an object go to several sites')
    .addOption(
      new Option('--kind <kind>', 'a witness votes, and has neither data nor VMs')
        .choices(['full', 'witness'] as const)
        .default('full' as const),
    )
    .action(async (options, command) => {
      const session = open(command);
      const { name, dir, storageAddress, haAddress, site, kind } = options;
      const token = await readToken(options.token, options.tokenFile);
      const work = joinCluster({
        dir,
        name,
        kind,
        storageAddress,
        haAddress,
        ...(site === undefined ? {} : { site }),
        token,
        settings: builtInGuestSettings(),
      });
      const made = await session.during('joining the cluster', work);
      const files = await writeHostContext(made);
      session.print(
        { cluster: made.cluster, host: name, ...files },
        () => `${name} has joined the cluster ${made.cluster}.\n${nextSteps(files)}`,
      );
    });

  host
    .command('list')
    .description('all hosts and their states')
    .action(async (_options, command) => {
      const session = open(command);
      const hosts = await (await session.client()).hosts();
      session.print(hosts, () => hostTable(session.io, hosts));
    });

  host
    .command('add-device')
    .description("make a mounted, empty file system a device of this machine's host")
    .argument('<path>', 'where it is mounted')
    .requiredOption('--config <file>', "the host's configuration, which is to name it")
    .addOption(
      new Option('--class <class>', 'what it was bought for: speed or room')
        .choices(deviceClasses)
        .makeOptionMandatory(),
    )
    .option('--capacity <size>', 'how much of it may be used, such as 400GiB (default: all)')
    .option('--shared', 'nothing of its own is mounted there, and that is meant')
    .action(async (path, options, command) => {
      const session = open(command);
      const { config: configFile, class: deviceClass, capacity, shared } = options;
      const added = await addDevice({
        configFile,
        path,
        class: deviceClass,
        ...(capacity === undefined ? {} : { capacity }),
        sharesFileSystem: shared === true,
      });
      const next = added.wasConfigured
        ? 'A running daemon takes it within some seconds.'
        : `It is in ${configFile}; restart the daemon, guests go on meanwhile.`;
      session.print(added, () => `${added.path} is device ${added.device}.\n${next}\n`);
    });

  host
    .command('show')
    .description(
      'one host, with its devices: class, room, health, and how long a small write takes',
    )
    .argument('<host>', 'its name')
    .action(async (name, _options, command) => {
      const session = open(command);
      const hosts = await (await session.client()).hosts();
      const found = hosts.find((one) => one.name === name);
      if (found === undefined) {
        throw new HoldfastError('unknown-host', `The cluster has no host ${name}`);
      }
      session.print(found, () => hostText(session.io, found));
    });

  host
    .command('remove')
    .description('take a host that does not come back out of the cluster, for good')
    .argument('<host>', 'it must not answer any more; its votes and copies go to other hosts')
    .action(async (name, _options, command) => {
      const session = open(command);
      await (await session.client()).removeHost(name);
      session.print({ removed: name }, () => `${name} was removed from the cluster.\n`);
    });
  return host;
}

async function readToken(token: string | undefined, file: string | undefined): Promise<string> {
  if ((token === undefined) === (file === undefined)) {
    throw new UsageError('Either --token or --token-file is needed.');
  }
  if (token !== undefined) return token.trim();
  try {
    // Not by the path /dev/stdin, which can not be opened where it is a socket.
    return (
      file === '-' ? await text(process.stdin) : await readFile(file as string, 'utf8')
    ).trim();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UsageError(`The token file can not be read: ${why}.`);
  }
}
