// The short form of `make crash-test`: real daemons are killed in a few rounds, and an outside driver
// finds that nothing is lost. See test/crash/.

import { expect, it } from 'vitest';
import { crashLoop } from '../crash/loop.ts';

it('nothing that was acknowledged is lost by kill -9', async () => {
  const findings = await crashLoop({ rounds: 10, seed: 7, hosts: 3, print: console.log });
  expect(findings.violations).toEqual([]);
  expect(findings.of('rounds')).toBe(10);
  expect(findings.of('writes acknowledged')).toBeGreaterThan(100);
  expect(findings.of('SETs acknowledged')).toBeGreaterThan(10);
  expect(findings.of('disks whose copies were compared in the files')).toBeGreaterThan(0);
});
