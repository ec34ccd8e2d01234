// `holdfast demo`: shows the main job on this machine, with real hosts and real guests.

import { Command } from '@commander-js/extra-typings';
import { wholeNumber } from './arguments.ts';
import type { OpenSession } from './command.ts';
import { AlreadySaid, UsageError } from './failure.ts';

export function demoCommand(open: OpenSession): Command {
  const demo = new Command('demo')
    .description('start a cluster on this machine, kill a host, and watch its VMs run elsewhere')
    .option('--hosts <number>', 'hosts to start', wholeNumber(3, 9), 3)
    .option('--vms <number>', 'VMs to start', wholeNumber(1, 20), 2)
    .option('--json', 'the result as one line of JSON, last on standard output')
    .option('--keep', 'leave the cluster running afterwards')
    .option('--dir <dir>', 'folder to work in; absent or empty (default: a new temporary one)')
    .option('--stop', 'end the kept cluster that --context names, and remove its folder')
    .action(async (options, command) => {
      const session = open(command);
      const { io } = session;
      const json = session.json || options.json === true;
      if (options.stop) {
        const file = session.options.context ?? io.env['HOLDFAST_CONTEXT'];
        if (!file) throw new UsageError('--stop needs --context FILE, as the demo printed it.');
        const { stopDemo } = await import('./demo/stop.ts');
        const folder = await stopDemo(file);
        session.print({ stopped: folder }, () => `The demo is ended; ${folder} is removed.\n`);
        return;
      }
      const { runDemo } = await import('./demo/demo.ts');
      const done = await runDemo(io, {
        hosts: options.hosts,
        vms: options.vms,
        json,
        keep: options.keep === true,
        ...(options.dir === undefined ? {} : { dir: options.dir }),
      });
      if (!done) throw new AlreadySaid();
    });
  return demo;
}
