// `holdfast sim explore`: whole clusters under random faults, seed after seed, on all processors; what
// breaks an invariant is shrunk and written down.

import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Command } from '@commander-js/extra-typings';
import { inOwnTurn, settlePromises } from '../../platform/promises.ts';
import { stepText } from '../../scenario/step-text.ts';
import { planOf } from '../../simulator/explore/plan.ts';
import { strikeText } from '../../simulator/explore/strikes.ts';
import { wholeNumber } from '../arguments.ts';
import type { OpenSession } from '../command.ts';
import { AlreadySaid, UsageError } from '../failure.ts';
import type { Io } from '../io.ts';
import { explorePool, type PoolResult, type Progress } from './explore-pool.ts';
import { type Finding, findingOf, runSeed } from './explore-seed.ts';

const maxSeed = 2 ** 53 - 1;
/** More runs than that make a finding hardly smaller. */
const shrinkRuns = 300;
const progressEachMs = 10_000;

export function addExplore(sim: Command, open: OpenSession): void {
  sim
    .command('explore')
    .description('search random faults for a violated invariant')
    .option('--seeds <number>', 'how many seeds to run', wholeNumber(1, maxSeed), 1000)
    .option('--from <seed>', 'the first of them', wholeNumber(0, maxSeed), 1)
    .option('--seed <seed>', 'replay this one, and tell its story', wholeNumber(0, maxSeed))
    .option('--minutes <number>', 'stop after so long', wholeNumber(1, 60 * 24 * 365))
    .option(
      '--jobs <number>',
      'seeds at the same time (default: one per processor)',
      wholeNumber(1, 1024),
    )
    .option('--stop-after <number>', 'stop when so many were found', wholeNumber(1, 1000), 5)
    .option('--out <dir>', 'where what was found is written as scenarios', 'explored')
    .option('--no-recovery', 'do not look whether all is well again after the faults')
    .option('--no-shrink', 'do not look for fewer faults, and write no scenarios')
    .option('--json', 'the result as one line of JSON, last on standard output')
    .action(async (options, command) => {
      const session = open(command);
      const json = session.json || options.json === true;
      if (options.seed !== undefined) {
        if (!(await replay(session.io, options.seed, json))) throw new AlreadySaid();
        return;
      }
      const { from, seeds } = options;
      if (from + seeds > maxSeed) throw new UsageError('There are not so many seeds.');
      const result = await run(session.io, {
        from,
        seeds,
        json,
        jobs: Math.min(options.jobs ?? availableParallelism(), seeds),
        minutes: options.minutes ?? Number.POSITIVE_INFINITY,
        stopAfter: options.stopAfter,
        isStoryOnly: !options.recovery,
        out: options.shrink ? options.out : null,
      });
      if (result.found > 0) throw new AlreadySaid();
    });
}

async function replay(io: Io, seed: number, json: boolean): Promise<boolean> {
  const plan = planOf(seed);
  const say = (line: string) => io.out(`${line}\n`);
  if (!json) {
    const { cluster, vms } = plan.scenario;
    const places = vms.map((vm) => `${vm.name} on ${vm.components?.join(' ')}`).join(', ');
    say(`seed ${seed}: ${cluster.hosts.length} hosts, ${cluster.networks} networks; ${places}`);
    for (const strike of plan.strikes) say(`planted: ${strikeText(strike)}`);
  }
  const settle = settlePromises();
  const result = await inOwnTurn(() => runSeed(plan, settle, json ? null : say));
  const found = findingOf(result);
  if (json) {
    const faults = result.done.map(({ atMs, step, struckAt }) => ({
      atMs,
      text: stepText(step),
      struckAt,
    }));
    const { events, simulatedMs } = result;
    io.out(`${JSON.stringify({ ok: found === null, seed, events, simulatedMs, faults, found })}\n`);
  } else {
    say('');
    for (const { atMs, invariant, text } of result.violations) {
      say(`${(atMs / 1000).toFixed(3)}s ${io.style('red', invariant)}: ${text}`);
    }
    for (const problem of result.livenessProblems)
      say(`${io.style('red', 'at the end')}: ${problem}`);
    const faults = `${result.done.length} faults, ${result.events} events`;
    say(
      `seed ${seed}: ${found === null ? io.style('green', 'ok') : io.style('red', 'failed')} (${faults})`,
    );
  }
  return found === null;
}

interface RunOptions {
  readonly from: number;
  readonly seeds: number;
  readonly jobs: number;
  readonly minutes: number;
  readonly stopAfter: number;
  readonly isStoryOnly: boolean;
  /** Null: what is found is not shrunk. */
  readonly out: string | null;
  readonly json: boolean;
}

async function run(io: Io, options: RunOptions): Promise<PoolResult> {
  const startMs = performance.now();
  const seconds = () => (performance.now() - startMs) / 1000;
  const isLine = io.errIsTerminal && !options.json;
  let saidMs = startMs;
  const onProgress = (progress: Progress): void => {
    const now = performance.now();
    if (now - saidMs < (isLine ? 200 : progressEachMs)) return;
    saidMs = now;
    const text = progressText(progress, options.seeds, seconds());
    io.err(isLine ? `\r${text}\u001b[K` : `${text}\n`);
  };
  const onFound = (finding: Finding): void => {
    io.err(`${isLine ? '\r\u001b[K' : ''}${findingText(finding)}\n`);
  };
  const result = await explorePool({
    seeds: numbers(options.from, options.seeds),
    jobs: options.jobs,
    untilMs: startMs + options.minutes * 60_000,
    stopAfter: options.stopAfter,
    closed: io.closed,
    isStoryOnly: options.isStoryOnly,
    shrinkRuns: options.out === null ? 0 : shrinkRuns,
    onProgress,
    onFound,
  });
  if (isLine) io.err('\r\u001b[K');
  const files = options.out === null ? new Map() : await writeFound(options.out, result);
  report(io, options, result, files, seconds());
  return result;
}

function* numbers(from: number, count: number): Generator<number> {
  for (let index = 0; index < count; index += 1) yield from + index;
}

/** Seed -> the file that it was written to. */
async function writeFound(folder: string, { shrunk }: PoolResult): Promise<Map<number, string>> {
  const files = new Map<number, string>();
  if (shrunk.size > 0) await mkdir(folder, { recursive: true });
  for (const [seed, { text }] of shrunk) {
    const file = join(folder, `seed-${seed}.yaml`);
    await writeFile(file, text);
    files.set(seed, file);
  }
  return files;
}

function report(
  io: Io,
  options: RunOptions,
  result: PoolResult,
  files: ReadonlyMap<number, string>,
  seconds: number,
): void {
  const { seeds, simulatedMs, events, faults, findings, shrunk } = result;
  const found = findings.map((finding) => ({
    ...finding,
    replay: `holdfast sim explore --seed ${finding.seed}`,
    file: files.get(finding.seed) ?? null,
    shrunkFaults: shrunk.get(finding.seed)?.faults ?? null,
    fileReplays: shrunk.get(finding.seed)?.replays ?? null,
  }));
  if (options.json) {
    const sum = { ok: found.length === 0, from: options.from, seeds, events, faults };
    const time = { simulatedHours: simulatedMs / 3_600_000, wallMs: Math.round(seconds * 1000) };
    io.out(`${JSON.stringify({ ...sum, ...time, found })}\n`);
    return;
  }
  for (const one of found) {
    io.out(`${io.style('red', one.invariant)}: seed ${one.seed}\n  ${one.text}\n`);
    io.out(`  replay: ${one.replay}\n`);
    if (one.file === null) continue;
    const needs =
      one.fileReplays === true ? '' : '; not replayed by the file alone, which says why';
    io.out(`  shrunk to ${one.shrunkFaults} faults: ${one.file}${needs}\n`);
  }
  const verdict = found.length === 0 ? io.style('green', 'nothing found') : `${found.length} found`;
  io.out(`${verdict}: ${progressText(result, options.seeds, seconds)}\n`);
}

function findingText({ seed, invariant, text }: Finding): string {
  return `seed ${seed}: ${invariant}: ${text}`;
}

function progressText(progress: Progress, of: number, seconds: number): string {
  const perSecond = progress.seeds / Math.max(seconds, 0.001);
  const hours = progress.simulatedMs / 3_600_000;
  return (
    `${progress.seeds} of ${of} seeds, ${perSecond.toFixed(1)} seeds/s, ` +
    `${hours.toFixed(1)} simulated cluster-hours, ${progress.faults} faults, ${progress.found} found`
  );
}
