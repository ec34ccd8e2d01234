import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createLog } from '../../src/platform/log.ts';
import { createRandom } from '../../src/platform/random.ts';
import { temporaryFolder } from './fixture.ts';

it('a log line is JSON with the host, the room and the fields, from its level on', async () => {
  const file = join(await temporaryFolder(), 'logs', 'host.log');
  const log = createLog({ host: 'host-a', level: 'info', file });
  log.debug('not seen');
  log.info('started');
  log.child('storage').child('register').warn('slow', { object: 'o1', ms: 12 });
  createLog({ host: 'host-a', level: 'error', file }).error('again', { room: 'x' });
  const lines = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines).toHaveLength(3);
  expect(lines[0]).toMatchObject({ level: 'info', host: 'host-a', message: 'started' });
  expect(lines[1]).toMatchObject({ level: 'warn', room: 'storage/register', object: 'o1', ms: 12 });
  expect(Date.parse(String(lines[1]?.['time']))).not.toBeNaN();
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

it('random numbers are in [0, 1) and identities differ', () => {
  const random = createRandom();
  for (let round = 0; round < 1000; round += 1) {
    const value = random.stream('x').next();
    expect(value).toBeGreaterThanOrEqual(0);
    expect(value).toBeLessThan(1);
  }
  expect(random.id()).toMatch(/^[0-9a-f]{32}$/);
  expect(random.id()).not.toBe(random.id());
});
