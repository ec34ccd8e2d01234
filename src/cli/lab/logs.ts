// Keeps what tells why a run of the lab went as it did: the logs of its daemons, guards and guests.

import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export function saveLogs(folder: string, target: string): void {
  mkdirSync(target, { recursive: true });
  for (const name of readdirSync(folder, { recursive: true }) as string[]) {
    if (!name.endsWith('.log')) continue;
    copyFileSync(join(folder, name), join(target, name.replaceAll('/', '_')));
  }
}
