// `holdfast disk ...`: another policy for one disk of a VM, or (`serve`) the disk of a VM that is switched off,
// for any NBD client, until it is interrupted.

import { resolve } from 'node:path';
import { Command } from '@commander-js/extra-typings';
import { ApiError } from '../api/client.ts';
import { policyText } from '../model/policy.ts';
import type { OpenSession } from './command.ts';
import { UsageError } from './failure.ts';

export function diskCommands(open: OpenSession): Command {
  const disk = new Command('disk').description('single disks of VMs');
  disk
    .command('set-policy')
    .description('give a disk another storage policy, while its guest runs; done in the background')
    .argument('<disk>', 'VM/DISK, such as web/disk0')
    .argument('<policy>', 'name of a policy, see `holdfast policy list`')
    .action(async (name, policy, _options, command) => {
      const session = open(command);
      const { vm, disk: one } = placeOf(name);
      const client = await session.client();
      const object = await client.setDiskPolicy(vm, one, policy);
      session.print(object, () => {
        const state =
          object.problems.length === 0
            ? 'It complies.'
            : `It is being made so: ${object.problems.join('; ')}. \`holdfast object show ${name}\` says how far that is.`;
        return `${name} has the policy ${policy} (${policyText(object.policy)}). ${state}\n`;
      });
    });
  disk
    .command('serve')
    .description('serve a disk by NBD until interrupted; options of `holdfast` come before `disk`')
    .argument('<disk>', 'VM/DISK, such as web/disk0')
    .requiredOption('--socket <path>', 'where clients find it: nbd+unix:///?socket=PATH')
    .option('--read-only', 'refuse writes')
    .action(async (name, { socket, readOnly = false }, command) => {
      const place = placeOf(name);
      // Not this command's: it has a `--socket` of its own.
      const session = open(command.parent as Command);
      const stop = new AbortController();
      const interrupted = (): void => stop.abort();
      process.on('SIGINT', interrupted).on('SIGTERM', interrupted);
      session.io.closed.addEventListener('abort', interrupted, { once: true });
      try {
        const client = await session.client();
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

function placeOf(name: string): { readonly vm: string; readonly disk: string } {
  const slash = name.indexOf('/');
  if (slash < 1) throw new UsageError(`Expected VM/DISK, such as web/disk0, found "${name}".`);
  return { vm: name.slice(0, slash), disk: name.slice(slash + 1) };
}
