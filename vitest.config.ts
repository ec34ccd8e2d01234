// Kinds of tests. `unit`: clock, network and disk are in the test's hand; they run against the
// TypeScript source. `e2e`: real daemons, real guests, real clients, one after the other; they run
// against what `make build guest` made. `crash`, by `make crash-test` only: the same, killed for as long
// as one likes.

import { defineConfig } from 'vitest/config';
import { ClosingLine } from './scripts/closing-line.ts';

export default defineConfig({
  test: {
    teardownTimeout: 60_000,
    reporters: ['default', new ClosingLine()],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{src,test}/**/*.test.ts', '!test/{e2e,node24}/**'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'crash',
          include: ['test/crash/*.run.ts'],
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
