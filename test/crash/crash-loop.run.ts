// `make crash-test`: the loop at length. ROUNDS, SEED and HOSTS come from the environment.

import { expect, it } from 'vitest';
import { crashLoop } from './loop.ts';

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const rounds = number('ROUNDS', 200);
const seed = number('SEED', Math.floor(Math.random() * 1e6));
const print = (line: string): void => void process.stdout.write(`${line}\n`);

it(`${rounds} rounds of kill -9`, { timeout: 0 }, async () => {
  print(`seed ${seed}`);
  const findings = await crashLoop({ rounds, seed, hosts: number('HOSTS', 4), print });
  print('');
  for (const [what, count] of findings.counts()) print(`${what}: ${count}`);
  for (const [warning, count] of findings.warnings) print(`warning, ${count} times: ${warning}`);
  print(`violations: ${findings.violations.length}`);
  for (const text of findings.violations) print(`  ${text}`);
  expect(findings.violations).toEqual([]);
});
