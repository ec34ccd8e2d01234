// Rules of the rooms that neither import lint nor forbidden globals can see.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const source = join(import.meta.dirname, '../src');
const inside = ['model', 'ports', 'peer', 'storage', 'hypervisor', 'ha', 'manager', 'host'];

const files = inside.flatMap((room) =>
  readdirSync(join(source, room), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .map((name) => join(room, name)),
);

describe('the inside rooms', () => {
  it.each(files)('%s does not know whether its world is real', (file) => {
    const lines = readFileSync(join(source, file), 'utf8').split('\n');
    expect(lines.filter((line) => /simulat/i.test(line))).toEqual([]);
  });
});
