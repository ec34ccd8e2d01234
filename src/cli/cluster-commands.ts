// `holdfast cluster ...`: making a cluster and looking at it.

import { Command } from '@commander-js/extra-typings';
import { initCluster } from '../daemon/cluster-init.ts';
import { builtInGuestSettings } from './built-in-guest.ts';
import type { OpenSession } from './command.ts';
import { nextSteps, writeHostContext } from './new-host.ts';
import { clusterText } from './tables.ts';

export function clusterCommands(open: OpenSession): Command {
  const cluster = new Command('cluster').description('the cluster as a whole');

  cluster
    .command('init')
    .description('make a new cluster with this machine as its first host')
    .requiredOption('--dir <dir>', 'folder of the host: configuration, keys, store')
    .option('--name <name>', 'name of the cluster', 'holdfast')
    .requiredOption('--host <name>', 'name of this host')
    .requiredOption('--storage-address <address:port>', 'where it listens on the storage network')
    .requiredOption('--ha-address <address:port>', 'where it listens on the HA network')
    .option('--site <name>', 'where it is: copies and voters of an object go to several sites')
    .action(async (options, command) => {
      const session = open(command);
      const { dir, name, host, storageAddress, haAddress, site } = options;
      const made = await initCluster({
        dir,
        cluster: name,
        name: host,
        storageAddress,
        haAddress,
        ...(site === undefined ? {} : { site }),
        settings: builtInGuestSettings(),
      });
      const files = await writeHostContext(made);
      session.print(
        { cluster: made.cluster, host, ...files },
        () =>
          `The cluster ${made.cluster} is made; its first host is ${host}.\n${nextSteps(files)}`,
      );
    });

  cluster
    .command('status')
    .description('hosts, VMs and what is waited for, as one host sees them')
    .action(async (_options, command) => {
      const session = open(command);
      const status = await (await session.client()).cluster();
      session.print(status, () => clusterText(session.io, status));
    });
  return cluster;
}
