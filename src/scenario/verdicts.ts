// Whether what was seen is what a check expects, and how that is said: in the same words wherever a scenario is run.

import type { Check, CounterName, RecoveryResult, VmStateName } from './scenario.ts';

export type CheckOf<Kind extends Check['kind']> = Extract<Check, { readonly kind: Kind }>;
export type Verdict = { readonly ok: boolean; readonly saw: string };

/** Of one VM. */
export interface Seen {
  readonly state: VmStateName;
  /** Where it runs, or stands still; or what it waits for. */
  readonly detail: string;
}

/** `seen`: each of the check's VMs. */
export function statesVerdict(check: CheckOf<'state'>, seen: readonly Seen[]): Verdict {
  const fits = ({ state, detail }: Seen) =>
    state === check.state &&
    (check.on === null || check.on.includes(detail)) &&
    (check.for === null || detail === check.for);
  return { ok: seen.every(fits), saw: summary(seen) };
}

/** `all`: the hosts that are master. */
export function mastersVerdict(check: CheckOf<'masters'>, all: readonly string[]): Verdict {
  const perGroup = check.groups.map((group) => all.filter((host) => group.includes(host)));
  const saw = all.length === 0 ? 'no master' : `masters ${all.join(', ')}`;
  return { ok: perGroup.every((masters) => masters.length === 1), saw };
}

/** What each host that reaches the VM says of its protection. */
export interface ProtectionSaid {
  readonly host: string;
  readonly status: string;
}

export function protectedVerdict(
  check: CheckOf<'protected'>,
  said: (vm: string) => readonly ProtectionSaid[],
): Verdict {
  const wrong = check.vms.flatMap((vm) => {
    const all = said(vm);
    if (all.length === 0) return [`no host can reach ${vm}`];
    return all.flatMap(({ host, status }) =>
      status === 'protected' ? [] : [`${host} says ${vm} is ${status}`],
    );
  });
  return { ok: wrong.length === 0, saw: wrong.length === 0 ? 'all' : few(wrong) };
}

/** `tolerance`: how often its bound a restart may take before the check fails. */
export function restartVerdict(
  check: CheckOf<'restartedWithin'>,
  all: readonly RecoveryResult[],
  tolerance = 1,
): Verdict {
  const wrong: string[] = [];
  const took: number[] = [];
  for (const vm of check.vms) {
    const recoveries = all.filter((one) => one.vm === vm);
    if (recoveries.length === 0) wrong.push(`${vm} was not restarted`);
    for (const { failedAtMs, startedAtMs } of recoveries) {
      const ms = (startedAtMs ?? Number.POSITIVE_INFINITY) - failedAtMs;
      took.push(ms);
      if (ms > check.withinMs * tolerance) wrong.push(`${vm} after ${(ms / 1000).toFixed(3)}s`);
    }
  }
  if (wrong.length > 0) return { ok: false, saw: few(wrong) };
  const most = Math.max(0, ...took);
  const over =
    most > check.withinMs ? `, beyond the bound, and less than ${tolerance} times as much` : '';
  return { ok: true, saw: `at most ${(most / 1000).toFixed(3)}s${over}` };
}

export function counterVerdict(
  check: CheckOf<'counter'>,
  counters: Readonly<Record<CounterName, number>>,
): Verdict {
  const value = counters[check.counter as CounterName] ?? 0;
  const ok = value >= (check.min ?? 0) && value <= (check.max ?? Number.POSITIVE_INFINITY);
  return { ok, saw: String(value) };
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
