// A vitest reporter that prints one line last of all: `N passed, N failed`, and `, N skipped` where
// there are any. A file that cannot even be loaded, a hook that throws and an error outside of every
// test count as failed: nothing that went wrong may hide behind a zero.

import type { Reporter, TestModule } from 'vitest/node';

export class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 };
    for (const module of modules) {
      for (const test of module.children.allTests()) count[test.result().state] += 1;
      // Errors outside of tests: while the file was loaded, or in a hook for all tests of a suite.
      count.failed += module.errors().length;
      for (const suite of module.children.allSuites()) count.failed += suite.errors().length;
    }
    const skipped = count.skipped + count.pending;
    const line = `${count.passed} passed, ${count.failed} failed`;
    process.on('exit', () => {
      console.log(skipped > 0 ? `${line}, ${skipped} skipped` : line);
    });
  }
}
