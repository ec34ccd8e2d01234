// What `cluster init` and `host join` have in common: beside the new host's configuration stands a
// context file, so that the next command finds the host, and the user is told of both.

import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { stringify } from 'yaml';
import type { MadeHost } from '../daemon/cluster-init.ts';
import { readConfig } from '../daemon/config.ts';
import { builtInGuestSettings } from './built-in-guest.ts';

export interface NewHostFiles {
  readonly config: string;
  readonly context: string;
}

/** Writes the context file of a host that was just made. */
export async function writeHostContext({ configFile }: MadeHost): Promise<NewHostFiles> {
  const { api } = await readConfig(configFile);
  const context = join(dirname(configFile), 'context.yaml');
  await writeFile(context, stringify({ sockets: [api.socket] }), { mode: 0o600 });
  return { config: configFile, context };
}

export function nextSteps({ config, context }: NewHostFiles): string {
  const guest =
    builtInGuestSettings().hypervisor === undefined
      ? 'The built-in guest is not known to it: `make guest` builds it, and must come first.\n'
      : '';
  return (
    `${guest}Start it with:   holdfast host run --config ${config}\n` +
    `Talk to it with: export HOLDFAST_CONTEXT=${context}\n`
  );
}
