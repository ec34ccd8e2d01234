// What a scenario expects, held against what was seen: guests as the kernel shows them, and hosts as they answer
// a user. Machines are noisy: how long a restart may take fails only beyond three times its bound.

import type { ClusterReply, VmReply } from '../api/schemas.ts';
import type { CheckResult } from '../scenario/scenario.ts';
import {
  type CheckOf,
  counterVerdict,
  mastersVerdict,
  type ProtectionSaid,
  protectedVerdict,
  restartVerdict,
  type Seen,
  statesVerdict,
  type Verdict,
} from '../scenario/verdicts.ts';
import type { LabHost } from './host.ts';
import { type Instances, stateOf } from './instances.ts';
import type { RunRecord } from './record.ts';

const tolerance = 3;

export interface Answer {
  readonly host: string;
  readonly status: ClusterReply;
  readonly vms: readonly VmReply[];
}

/** What each host answers; those that are dead or stand still do not. */
export async function askAll(hosts: readonly LabHost[]): Promise<Answer[]> {
  const asked = hosts
    .filter((host) => host.daemon !== null && !host.isFrozen)
    .map(async ({ name, client }) => {
      const [status, vms] = await Promise.all([client.cluster(), client.vms()]);
      return { host: name, status, vms };
    });
  const answers = await Promise.allSettled(asked);
  return answers.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
}

export function vmState(vm: string, instances: Instances, answers: readonly Answer[]): Seen {
  const living = instances.living(vm);
  const running = living.filter((one) => stateOf(one) === 'running');
  if (running.length > 0) {
    return { state: 'running', detail: running.map(({ host }) => host).join(' and ') };
  }
  for (const { status } of answers) {
    const waiting = status.waiting.find(({ name }) => name === vm);
    if (waiting !== undefined) return { state: 'waiting', detail: waiting.reason };
  }
  const [paused] = living;
  if (paused !== undefined) return { state: 'paused', detail: paused.host };
  return { state: 'off', detail: '' };
}

/** A check of a moment, in that moment. */
export function checkNow(
  check: CheckOf<'state' | 'masters' | 'protected'>,
  instances: Instances,
  answers: readonly Answer[],
): CheckResult {
  const look = (): Verdict => {
    switch (check.kind) {
      case 'state':
        return statesVerdict(
          check,
          check.vms.map((vm) => vmState(vm, instances, answers)),
        );
      case 'masters':
        return mastersVerdict(
          check,
          answers.flatMap(({ host, status }) => (status.master === host ? [host] : [])),
        );
      case 'protected':
        return protectedVerdict(check, (vm) => protectionSaid(vm, answers));
    }
  };
  return { check: check.text, ...look() };
}

function protectionSaid(vm: string, answers: readonly Answer[]): ProtectionSaid[] {
  return answers.flatMap(({ host, vms }) => {
    const info = vms.find(({ name }) => name === vm);
    return info?.accessible === true ? [{ host, status: info.protection.status }] : [];
  });
}

/** A check of the whole run, at its end. */
export function checkRecord(
  check: CheckOf<'restartedWithin' | 'counter'>,
  record: RunRecord,
): CheckResult {
  const verdict =
    check.kind === 'restartedWithin'
      ? restartVerdict(check, record.recoveries, tolerance)
      : counterVerdict(check, record.counters);
  return { check: check.text, ...verdict };
}
