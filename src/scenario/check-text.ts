// Checks, times and patterns of VMs as text. The text of a check follows from what it says and from
// nothing else, so a scenario that is written to a file and read again has the same.

import type { CheckKind } from './scenario.ts';

/** In seconds where possible, as people write scenarios: `60s` and not `1m`. */
export function timeText(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

/** `pattern` stands for the check's VMs; checks that are not about VMs ignore it. */
export function checkText(check: CheckKind, pattern: string): string {
  switch (check.kind) {
    case 'state': {
      const on = check.on === null ? '' : ` on ${check.on.join(', ')}`;
      const reason = check.for === null ? '' : ` for ${check.for}`;
      return `at ${timeText(check.atMs)} vm ${pattern} state ${check.state}${on}${reason}`;
    }
    case 'never': {
      const span = `from ${timeText(check.fromMs)} to ${timeText(check.toMs)}`;
      return `${span} vm ${pattern} never ${check.state}`;
    }
    case 'masters': {
      const groups = check.groups.map((group) => group.join(' ')).join(' | ');
      return `at ${timeText(check.atMs)} masters ${groups}`;
    }
    case 'protected':
      return `at ${timeText(check.atMs)} protected ${pattern}`;
    case 'restartedWithin':
      return `vm ${pattern} restartedWithin ${timeText(check.withinMs)}`;
    case 'counter': {
      const min = check.min === null ? '' : ` min ${check.min}`;
      const max = check.max === null ? '' : ` max ${check.max}`;
      return `counter ${check.counter}${min}${max}`;
    }
  }
}

/** The names that a pattern stands for, in their order; `*` is any text, also none. */
export function matching(pattern: string, names: readonly string[]): string[] {
  const [first = '', ...others] = pattern.split('*');
  const last = others.pop();
  if (last === undefined) return names.filter((name) => name === pattern);
  return names.filter((name) => {
    if (!name.startsWith(first)) return false;
    let from = first.length;
    // The leftmost match of each part leaves the most for the parts behind it.
    for (const part of others) {
      const found = name.indexOf(part, from);
      if (found < 0) return false;
      from = found + part.length;
    }
    return name.length - last.length >= from && name.endsWith(last);
  });
}
