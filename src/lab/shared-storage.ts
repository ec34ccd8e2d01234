// The storage that all hosts of a lab see: a folder of the lab. It is on none of the lab's networks, as it is on none
// of the simulator's: whoever is cut off from the other hosts goes on to reach it, so only that a guest stands
// still keeps its writes from the next one.

import { closeSync, ftruncateSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { ScenarioVm } from '../scenario/scenario.ts';

/** Makes the VM's disks there. */
export function sharedDisks(
  { name, disksBytes }: Pick<ScenarioVm, 'name' | 'disksBytes'>,
  labFolder: string,
): { path: string; format: 'raw' }[] {
  const folder = join(labFolder, '.shared');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return disksBytes.map((sizeBytes, index) => {
    const path = join(folder, `${name}-disk${index}.img`);
    const file = openSync(path, 'wx', 0o600);
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    return { path, format: 'raw' };
  });
}
