// Ends a demo that was kept, or one whose own process was killed: its processes, then its folder.

import { realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { readContext } from '../context.ts';
import { UsageError } from '../failure.ts';
import { removeFolder } from './folder.ts';
import { endDemoProcesses } from './processes.ts';

/** Resolves with the folder that is gone now. */
export async function stopDemo(contextFile: string): Promise<string> {
  const { demo } = await readContext(contextFile);
  if (demo === undefined) {
    throw new UsageError(`${contextFile} is not the context of a demo.`);
  }
  if ((await realpath(dirname(contextFile))) !== demo) {
    throw new UsageError(`${contextFile} is not in the demo's folder ${demo}.`);
  }
  await endDemoProcesses(demo);
  await removeFolder(demo);
  return demo;
}
