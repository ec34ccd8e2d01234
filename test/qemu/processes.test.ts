// A guest is gone when nothing of it can write any more, which its arguments in /proc do not tell.

import { mkdirSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, expect, test } from 'vitest';
import { vmId } from '../../src/model/ids.ts';
import { endProcessesOf } from '../../src/qemu/processes.ts';
import { type RunFiles, runFiles } from '../../src/qemu/run-files.ts';
import { clock } from '../support/guests.ts';
import {
  cleanUp,
  endWithItsGroup,
  isLocked,
  removeFolders,
  run,
  tempFolder,
  until,
} from './support.ts';

afterEach(cleanUp);
afterAll(removeFolders);

/** As it is while the last of a guest dies: no process has its arguments, and its log is still open. */
async function dying(): Promise<{ files: RunFiles; end(): void }> {
  const files = runFiles(tempFolder(), vmId('vm1'));
  mkdirSync(files.dir);
  writeFileSync(files.launch, '{}');
  const last = run('flock', [files.guestLog, 'sleep', '1000'], true);
  const group = last.pid as number;
  endWithItsGroup(group);
  await until(() => isLocked(files.guestLog));
  return { files, end: () => process.kill(-group, 'SIGKILL') };
}

test('a guest that still has its log open is waited for', async () => {
  const { files, end } = await dying();
  let gone = false;
  const ended = endProcessesOf(files, clock).then((all) => {
    gone = all;
  });
  await new Promise((resolve) => clock.after(300, () => resolve(null)));
  expect(gone).toBe(false);
  end();
  await ended;
  expect(gone).toBe(true);
});

test('a guest that never closes its log is told as one that does not end', async () => {
  const { files, end } = await dying();
  let nowMs = 0;
  const hasty = { ...clock, now: () => (nowMs += 4000), after: clock.after.bind(clock) };
  expect(await endProcessesOf(files, hasty)).toBe(false);
  end();
});

test('the log of a guest that was cleared away may be in use by anybody', async () => {
  const { files, end } = await dying();
  const other = runFiles(tempFolder(), vmId('vm2'));
  mkdirSync(other.dir);
  expect(await endProcessesOf({ ...files, launch: other.launch }, clock)).toBe(true);
  end();
});
