// docs/source-table.md quotes golden logs: each scenario that it names exists, each line that it quotes
// stands in that scenario's log, and no scenario is left out.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { scenarioFiles } from './scenario-files.ts';

const table = readFileSync(join(import.meta.dirname, '../../docs/source-table.md'), 'utf8');

const logs = new Map(
  scenarioFiles().map(([name, file]) => [
    name,
    readFileSync(file.replace(/\.yaml$/, '.log'), 'utf8'),
  ]),
);

/** What is quoted in the last cell of each row of the table. */
function quotes(): { readonly row: string; readonly quoted: string[] }[] {
  return table
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('|---'))
    .map((row) => {
      const cell = row.split('|').at(-2) ?? '';
      return { row, quoted: [...cell.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text) };
    });
}

test('what it quotes stands in the logs', () => {
  const missing: string[] = [];
  for (const { row, quoted } of quotes()) {
    let log = [...logs.values()].join('');
    for (const text of quoted) {
      const named = logs.get(text);
      if (named !== undefined) log = named;
      else if (!text.includes('.ts') && text !== 'sim compare') {
        for (const part of text.split('...')) {
          if (!log.includes(part.trim())) missing.push(`${part.trim()} in: ${row}`);
        }
      }
    }
  }
  expect(missing).toEqual([]);
});

test('names every scenario', () => {
  for (const name of logs.keys()) expect(table).toContain(`\`${name}\``);
});
