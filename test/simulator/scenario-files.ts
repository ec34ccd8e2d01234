// The scenario files of the project, those of scenarios/compare/ included.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../../scenarios');

/** Name (without ending) and path, in order of name. */
export function scenarioFiles(): [name: string, path: string][] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.yaml'))
    .map((path): [string, string] => [path.replace(/\.yaml$/, ''), join(root, path)])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
