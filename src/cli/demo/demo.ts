// The demo: a whole cluster on this machine, real daemons and real guests; one host loses its power;
// what happens is watched from outside. However it ends, nothing of it is left behind, unless it was
// asked to keep the cluster and all went well.

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { waitUntil } from '../../lab/waiting.ts';
import { HoldfastError } from '../../model/errors.ts';
import { describe, Interrupted } from '../failure.ts';
import { type Interruption, interruption } from '../interruption.ts';
import type { Io } from '../io.ts';
import { startReaper } from '../reaper.ts';
import { type DemoCluster, killAtExit, program, socketsOf, startCluster } from './cluster.ts';
import { makeFolder, removeFolder, saveLogs, writeContext } from './folder.ts';
import { observe } from './observer.ts';
import { cutPower } from './power-cut.ts';
import { endDemoProcesses, processesBelow, processesOfDemo } from './processes.ts';
import { followEvents, type VmBefore, watchRecovery } from './recovery.ts';
import { createReporter, type Reporter } from './reporter.ts';
import { type DemoResult, faults, maxInstances, startBoundMs } from './result.ts';
import { leastRateHz, type Observation, rateHz } from './sampler.ts';
import { createVms, reportsOn, startVms, waitForVms } from './workload.ts';

export interface DemoOptions {
  readonly hosts: number;
  readonly vms: number;
  readonly json: boolean;
  readonly keep: boolean;
  readonly dir?: string;
}

/** Resolves with whether all is well, and says everything about that; rejects if the demo did not
 * come to its end. */
export async function runDemo(io: Io, options: DemoOptions): Promise<boolean> {
  const reporter = createReporter(io, options.json);
  const folder = await makeFolder(options.dir);
  const context = await writeContext(folder, socketsOf(folder, options.hosts));
  const reaper = startReaper(program, ['demo', '--stop', '--context', context]);
  const stop = interruption('The demo');
  // The last resort, where even the end of this function is not reached.
  const lastResort = (): void => killAtExit(processesOfDemo(folder));
  process.on('exit', lastResort);

  const story = tell(folder, options, reporter, stop);
  let result: DemoResult | null = null;
  let failure: unknown = null;
  try {
    result = await Promise.race([story, stop.promise]);
  } catch (error) {
    failure = stop.signal.aborted ? stop.signal.reason : error;
  }
  const keep = options.keep && result?.ok === true;
  try {
    if (!keep) {
      stop.abort(new Error('the demo ends'));
      await cleanUp(folder, story, failure !== null && !(failure instanceof Interrupted), reporter);
    }
  } catch (error) {
    failure ??= error;
  } finally {
    process.off('exit', lastResort);
    stop.release();
    await reaper.dismiss();
  }

  if (result !== null && failure === null) {
    if (keep) explain(reporter, context, result, folder);
    if (options.json) io.out(`${JSON.stringify(keep ? { ...result, context } : result)}\n`);
    return result.ok;
  }
  if (options.json) io.out(`${JSON.stringify(failed(options, describe(failure)))}\n`);
  throw failure;
}

/** The contract's line for a demo that did not come to its end. */
function failed(options: DemoOptions, error: ReturnType<typeof describe>): object {
  return {
    ok: false,
    hosts: options.hosts,
    vms: [],
    maxInstancesAtOnce: 0,
    accelerator: null,
    error,
  };
}

async function tell(
  folder: string,
  options: DemoOptions,
  reporter: Reporter,
  stop: Interruption,
): Promise<DemoResult> {
  const { signal } = stop;
  const expected = new Set<string>();
  reporter.say(`working in ${folder}`);
  const cluster = await startCluster({
    folder,
    hosts: options.hosts,
    reporter,
    signal,
    onDaemonExit(host, why) {
      if (expected.has(host)) return;
      stop.abort(new HoldfastError('unreachable', `The daemon of ${host} ended: ${why}`));
    },
  });
  const vms = await createVms(cluster.client, options.vms, reporter);
  signal.throwIfAborted();
  const observer = observe(
    folder,
    vms.map((vm) => vm.id),
  );
  await startVms(cluster, vms, reporter);
  await waitForVms(cluster, vms, signal);
  reporter.say('every guest runs, is protected and has written some numbers');

  const hostOf = new Map((await cluster.client.vms()).map((vm) => [vm.id, vm.host]));
  const victim = cluster.hosts.find((host) => host.name === hostOf.get(vms[0]?.id ?? ''));
  if (victim === undefined) throw new Error('nobody knows where vm-1 runs');
  const survivors = cluster.hosts.filter((host) => host !== victim);
  const events = followEvents(survivors, reporter);
  await delay(500, undefined, { signal });

  signal.throwIfAborted();
  expected.add(victim.name);
  const cut = cutPower(victim.folder, victim.daemon);
  reporter.failed(cut.at, `${victim.name} lost its power: ${cut.killed} processes were killed`);
  await waitUntil(
    `the end of ${victim.name}`,
    async () => (processesBelow(victim.folder, null).length === 0 ? null : 'a process is left'),
    { timeoutMs: 5000, signal, everyMs: 10 },
  );
  // Only now are the logs of its guests complete.
  const before: VmBefore[] = [];
  for (const vm of vms) {
    const host = hostOf.get(vm.id) ?? 'no host';
    before.push({ vm, host, reports: await reportsOn(cluster, host, vm) });
  }
  const results = await watchRecovery(
    cluster,
    before,
    victim.name,
    cut.at,
    reporter,
    signal,
    events,
  );
  await events.stop();
  const observation = await observer.finish();
  const found = faults(results, victim.name, observation);
  const result: DemoResult = {
    ok: found.length === 0,
    hosts: options.hosts,
    vms: results,
    maxInstancesAtOnce: maxInstances(observation),
    accelerator: cluster.accelerator,
  };
  summarise(reporter, result, found, observation, cluster);
  return result;
}

function summarise(
  reporter: Reporter,
  result: DemoResult,
  found: readonly string[],
  observation: Observation,
  cluster: DemoCluster,
): void {
  reporter.say('');
  for (const vm of result.vms) {
    if (vm.recovery === null) {
      reporter.say(`${vm.name} ran on, on ${vm.from}.`);
      continue;
    }
    reporter.say(
      `${vm.name} moved from ${vm.from} to ${vm.to}: ${vm.lastAcknowledged} was the last number ` +
        `acknowledged, ${vm.firstReadAfter} the first one read; ${vm.lost} lost.`,
    );
    const started = vm.recovery.startedAtMs;
    if (started !== null) {
      const met = started <= startBoundMs ? 'within' : 'MISSED:';
      reporter.say(
        `  its guest's process was started ${(started / 1000).toFixed(2)} s after the failure ` +
          `(${met} the bound of ${startBoundMs / 1000} s)`,
      );
    }
  }
  reporter.say(
    `Never more than ${result.maxInstancesAtOnce} running instance of a VM, looked at ` +
      `${rateHz(observation).toFixed(0)} times a second (at least ${leastRateHz} needed; longest gap ` +
      `${observation.longestGapMs.toFixed(0)} ms), on ${cluster.hosts.length} hosts.`,
  );
  for (const fault of found) reporter.say(`NOT WELL: ${fault}`);
  reporter.say(result.ok ? 'All is well.' : 'All is not well.');
}

function explain(reporter: Reporter, context: string, result: DemoResult, folder: string): void {
  const victim = result.vms[0]?.from ?? 'host-1';
  reporter.say(`
The cluster goes on. Talk to it with:
  holdfast --context ${context} cluster status
Bring ${victim} back with:
  holdfast host run --config ${join(folder, victim, 'config.yaml')}
End all of it with:
  holdfast demo --stop --context ${context}`);
}

async function cleanUp(
  folder: string,
  story: Promise<unknown>,
  wantLogs: boolean,
  reporter: Reporter,
): Promise<void> {
  await endDemoProcesses(folder);
  // It notices the interruption at its next step; until then it might still start something.
  await Promise.race([story.catch(() => undefined), delay(3000)]);
  await endDemoProcesses(folder);
  const logs = wantLogs ? await saveLogs(folder) : null;
  await removeFolder(folder);
  if (logs !== null) reporter.say(`The logs are in ${logs}`);
}
