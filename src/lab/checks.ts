// What a scenario expects, held against what was seen: guests as the kernel shows them, and hosts as they answer
// a user. Machines are noisy: how long a restart may take fails only beyond three times its bound.

import type { ClusterReply, VmReply } from '../api/schemas.ts';
import type { Check, CheckResult, VmStateName } from '../scenario/scenario.ts';
import type { LabHost } from './host.ts';
import { type Instances, stateOf } from './instances.ts';
import type { RunRecord } from './record.ts';

const tolerance = 3;

type Of<Kind extends Check['kind']> = Extract<Check, { readonly kind: Kind }>;
type Looked = { readonly ok: boolean; readonly saw: string };

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

interface Seen {
  readonly state: VmStateName;
  /** Where it runs, or stands still; or what it waits for. */
  readonly detail: string;
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
  check: Of<'state' | 'masters' | 'protected'>,
  instances: Instances,
  answers: readonly Answer[],
): CheckResult {
  const look = (): Looked => {
    if (check.kind === 'state') return states(check, instances, answers);
    return check.kind === 'masters' ? masters(check, answers) : allProtected(check, answers);
  };
  return { check: check.text, ...look() };
}

/** A check of the whole run, at its end. */
export function checkRecord(
  check: Of<'restartedWithin' | 'counter'>,
  record: RunRecord,
): CheckResult {
  if (check.kind === 'restartedWithin') return { check: check.text, ...restarted(check, record) };
  const value = record.counters[check.counter as keyof RunRecord['counters']] ?? 0;
  const ok = value >= (check.min ?? 0) && value <= (check.max ?? Number.POSITIVE_INFINITY);
  return { check: check.text, ok, saw: String(value) };
}

function states(check: Of<'state'>, instances: Instances, answers: readonly Answer[]): Looked {
  const seen = check.vms.map((vm) => vmState(vm, instances, answers));
  const fits = ({ state, detail }: Seen) =>
    state === check.state &&
    (check.on === null || check.on.includes(detail)) &&
    (check.for === null || detail === check.for);
  return { ok: seen.every(fits), saw: summary(seen) };
}

function masters(check: Of<'masters'>, answers: readonly Answer[]): Looked {
  const all = answers.flatMap(({ host, status }) => (status.master === host ? [host] : []));
  const perGroup = check.groups.map((group) => all.filter((host) => group.includes(host)));
  const saw = all.length === 0 ? 'no master' : `masters ${all.join(', ')}`;
  return { ok: perGroup.every((found) => found.length === 1), saw };
}

function allProtected(check: Of<'protected'>, answers: readonly Answer[]): Looked {
  const wrong: string[] = [];
  for (const vm of check.vms) {
    let hosts = 0;
    for (const { host, vms } of answers) {
      const info = vms.find(({ name }) => name === vm);
      if (info === undefined || !info.accessible) continue;
      hosts += 1;
      const { status } = info.protection;
      if (status !== 'protected') wrong.push(`${host} says ${vm} is ${status}`);
    }
    if (hosts === 0) wrong.push(`no host can reach ${vm}`);
  }
  return { ok: wrong.length === 0, saw: wrong.length === 0 ? 'all' : few(wrong) };
}

function restarted(check: Of<'restartedWithin'>, record: RunRecord): Looked {
  const wrong: string[] = [];
  const took: number[] = [];
  for (const vm of check.vms) {
    const recoveries = record.recoveries.filter((one) => one.vm === vm);
    if (recoveries.length === 0) wrong.push(`${vm} was not restarted`);
    for (const { failedAtMs, startedAtMs } of recoveries) {
      const ms = (startedAtMs ?? Number.POSITIVE_INFINITY) - failedAtMs;
      took.push(ms);
      if (ms > check.withinMs * tolerance) wrong.push(`${vm} after ${(ms / 1000).toFixed(3)}s`);
    }
  }
  if (wrong.length > 0) return { ok: false, saw: few(wrong) };
  const most = Math.max(0, ...took);
  const over = most > check.withinMs ? ', beyond the bound, and less than three times as much' : '';
  return { ok: true, saw: `at most ${(most / 1000).toFixed(3)}s${over}` };
}

function summary(seen: readonly Seen[]): string {
  const groups = new Map<VmStateName, { count: number; details: Set<string> }>();
  for (const { state, detail } of seen) {
    const group = groups.get(state) ?? { count: 0, details: new Set() };
    groups.set(state, group);
    group.count += 1;
    if (detail !== '') group.details.add(detail);
  }
  return [...groups]
    .map(([state, { count, details }]) => {
      const names = [...details].sort().join(', ');
      const link = state === 'waiting' ? 'for' : 'on';
      return `${count} ${state}${names === '' ? '' : ` ${link} ${names}`}`;
    })
    .join('; ');
}

function few(texts: readonly string[]): string {
  const shown = texts.slice(0, 3).join('; ');
  return texts.length > 3 ? `${shown}; and ${texts.length - 3} more` : shown;
}
