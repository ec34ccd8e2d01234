// `holdfast disk serve`: one disk of a VM that is switched off, for any NBD client, until it is interrupted.

import { resolve } from 'node:path';
import { Command } from '@commander-js/extra-typings';
import { ApiError } from '../api/client.ts';
import type { OpenSession } from './command.ts';
import { UsageError } from './failure.ts';

export function diskCommands(open: OpenSession): Command {
  const disk = new Command('disk').description('disks of VMs that are switched off');
  disk
    .command('serve')
    .description('serve a disk by NBD until interrupted; options of `holdfast` come before `disk`')
    .argument('<disk>', 'VM/DISK, such as web/disk0')
    .requiredOption('--socket <path>', 'where clients find it: nbd+unix:///?socket=PATH')
    .option('--read-only', 'refuse writes')
    .action(async (name, { socket, readOnly = false }, command) => {
      const slash = name.indexOf('/');
      if (slash < 1) throw new UsageError(`Expected VM/DISK, such as web/disk0, found "${name}".`);
      // Not this command's: it has a `--socket` of its own.
      const session = open(command.parent as Command);
      const stop = new AbortController();
      const interrupted = (): void => stop.abort();
      process.on('SIGINT', interrupted).on('SIGTERM', interrupted);
      session.io.closed.addEventListener('abort', interrupted, { once: true });
      try {
        const client = await session.client();
        const place = { vm: name.slice(0, slash), disk: name.slice(slash + 1) };
        const body = { socket: resolve(socket), readOnly };
        const ended = await client.serveDisk(place, body, {
          signal: stop.signal,
          onServing: (reply) => {
            const url = `nbd+unix:///${reply.disk}?socket=${reply.socket}`;
            const mode = reply.readOnly ? ', read-only' : '';
            if (session.json) session.io.out(`${JSON.stringify(reply)}\n`);
            else
              session.io.out(
                `Serving ${reply.vm}/${reply.disk} at ${url}${mode}; Ctrl-C ends it.\n`,
              );
          },
        });
        if (ended !== null) throw new ApiError(ended);
      } finally {
        process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
      }
    });
  return disk;
}
