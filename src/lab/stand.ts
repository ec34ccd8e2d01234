// A lab that stands, to play with: it is brought up as for a run, its steps and expectations are left alone, and it
// stays when the command that made it ends. What other commands need to know of it follows from its record.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { HoldfastError } from '../model/errors.ts';
import type { Scenario } from '../scenario/scenario.ts';
import { LabCluster } from './cluster.ts';
import { Diary } from './diary.ts';
import type { LabRecord } from './labs.ts';
import { makeVms, startVms, waitForVms } from './vms.ts';
import { Watch } from './watch.ts';

export interface StandOptions {
  readonly lab: LabRecord;
  readonly scenario: Scenario;
  /** As of `ClusterOptions`. */
  readonly guestIntervalMs: number | null;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

export const contextOf = (lab: Pick<LabRecord, 'folder'>): string =>
  join(lab.folder, 'context.yaml');
export const socketOf = (lab: Pick<LabRecord, 'folder'>, host: string): string =>
  join(lab.folder, host, 'run', 'api.sock');

/** Resolves when all its VMs run and are protected. */
export async function bringUp(options: StandOptions): Promise<void> {
  const { lab, scenario, guestIntervalMs, signal, say } = options;
  const died = new AbortController();
  const ended = AbortSignal.any([signal, died.signal]);
  const cluster = await LabCluster.start({
    lab,
    scenario,
    guestIntervalMs,
    signal: ended,
    say,
    onDaemonExit: (host, why) => {
      died.abort(new HoldfastError('unreachable', `The daemon of ${host} ended: ${why}`));
    },
  });
  const vms = await makeVms(cluster);
  const watch = new Watch({
    hosts: cluster.hosts,
    vms,
    diary: new Diary(cluster.hosts),
    onViolation: ({ text }) => say(text),
    onEntry: () => undefined,
    onChange: () => undefined,
  });
  try {
    await startVms(cluster);
    await waitForVms(cluster, watch, ended);
  } finally {
    watch.abandon();
  }
  const sockets = lab.hosts.map((host) => socketOf(lab, host));
  writeFileSync(contextOf(lab), stringify({ sockets }), { mode: 0o600 });
}
