// `holdfast events`: what happens, as it happens. Goes on until it is interrupted or its reader leaves.

import { Command } from '@commander-js/extra-typings';
import { createClient } from '../api/client.ts';
import type { OpenSession } from './command.ts';
import { findContext } from './context.ts';
import { eventLine } from './tables.ts';

export function eventCommand(open: OpenSession): Command {
  const events = new Command('events')
    .description('the last events, then each new one; one JSON object a line with --output json')
    .action(async (_options, command) => {
      const session = open(command);
      const { io, json } = session;
      // A question first: following seeks for ever, but a cluster that is not there is a failure.
      await (await session.client()).cluster();
      const { sockets } = await findContext(session.options, io.env);
      const follow = createClient(sockets).events({
        signal: io.closed,
        onLost: (reason) =>
          io.err(`The stream of events broke off (${reason}); seeking it again.\n`),
      });
      for await (const event of follow) {
        io.out(json ? `${JSON.stringify(event)}\n` : eventLine(io, event));
      }
    });
  return events;
}
