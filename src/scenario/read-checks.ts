// The checks of a scenario: one row per form, with its keys and what becomes of them.

import { checkText } from './check-text.ts';
import {
  distinctList,
  duration,
  each,
  type Field,
  form,
  integer,
  oneForm,
  oneOf,
  orNull,
  required,
} from './fields.ts';
import type { HostNames, VmNames } from './names.ts';
import { type Check, type CheckKind, counterNames } from './scenario.ts';
import type { Place } from './source.ts';

/** In the order of the file, undefined for the bad ones; `time` reads when something is checked. */
export function readChecks(
  place: Place | null,
  time: Field<number>,
  hosts: HostNames,
  vms: VmNames,
): readonly (Check | undefined)[] {
  return place === null ? [] : (each(place, checkField(time, hosts, vms)) ?? []);
}

const state = oneOf('running', 'off', 'waiting', 'paused');
const reason = oneOf('storage', 'capacity', 'lock', 'dependency', 'retry');

function withText(check: CheckKind, pattern = ''): Check {
  return { ...check, text: checkText(check, pattern) };
}

function checkField(
  time: Field<number>,
  { fullHost, groups }: HostNames,
  { pattern }: VmNames,
): Field<Check> {
  const at = required(time);
  const vm = required(pattern);
  const bound = orNull(integer(0));

  return oneForm<Check>('a check', {
    state: form(
      state,
      { at, vm, on: orNull(distinctList(fullHost, 1)), for: orNull(reason) },
      (state, read, place) => {
        const { at: atMs, vm, on, for: reason } = read;
        if (on !== null && state !== 'running' && state !== 'paused') {
          return place.child('on').report(`a VM that is ${state} is on no host`);
        }
        if (reason !== null && state !== 'waiting') {
          return place.child('for').report(`only a VM that is waiting waits for ${reason}`);
        }
        return withText({ kind: 'state', atMs, vms: vm.vms, state, on, for: reason }, vm.pattern);
      },
    ),
    never: form(state, { from: at, to: at, vm }, (state, read, place) => {
      const { from: fromMs, to: toMs, vm } = read;
      if (fromMs >= toMs) return place.child('to').report('must be later than `from`');
      return withText({ kind: 'never', fromMs, toMs, vms: vm.vms, state }, vm.pattern);
    }),
    masters: form(groups, { at }, (groups, { at: atMs }) =>
      withText({ kind: 'masters', atMs, groups }),
    ),
    protected: form(pattern, { at }, ({ pattern, vms }, { at: atMs }) =>
      withText({ kind: 'protected', atMs, vms }, pattern),
    ),
    restartedWithin: form(duration(1), { vm }, (withinMs, { vm }) =>
      withText({ kind: 'restartedWithin', vms: vm.vms, withinMs }, vm.pattern),
    ),
    counter: form(
      oneOf(...counterNames),
      { min: bound, max: bound },
      (counter, { min, max }, place) => {
        if (min === null && max === null) return place.report('a counter needs min or max');
        if (min !== null && max !== null && min > max) {
          return place.child('max').report('must not be less than min');
        }
        return withText({ kind: 'counter', counter, min, max });
      },
    ),
  });
}
