// How a guest ended, as far as it can be told.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { exitEvent } from '../../src/qemu/exit.ts';
import type { RunFiles } from '../../src/qemu/run-files.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'exit-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const filesWith = (guestLog: string) => ({ guestLog }) as RunFiles;

it('is clean where nothing says otherwise', async () => {
  const guestLog = join(folder, 'guest.log');
  writeFileSync(guestLog, '');
  const ended = await exitEvent({ code: 0 }, null, filesWith(guestLog), 0);
  expect(ended).toMatchObject({ clean: true });
});

it('is told of a guest whose log can not be read, as of one that HA is to start again', async () => {
  for (const exit of [{ code: 0 }, { code: 1 }, { signal: 9 }] as const) {
    const ended = await exitEvent(exit, null, filesWith(folder), 0);
    expect(ended.clean).toBe(false);
    expect(ended.detail).toContain('can not be read');
  }
});

it('is clean without a log where QEMU has said so itself', async () => {
  const ended = await exitEvent({ code: 0 }, 'guest-shutdown', filesWith(folder), 0);
  expect(ended).toMatchObject({ clean: true });
});
