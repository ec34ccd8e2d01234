// Whom a step befalls: what stops there afterwards failed at its time.

import type { StepKind } from './scenario.ts';

/** `hostsOfGuest`: where a VM's guest is. */
export function befallen(
  step: StepKind,
  hostsOfGuest: (vm: string) => readonly string[],
): readonly string[] {
  switch (step.kind) {
    case 'crash':
    case 'stopDaemon':
    case 'freeze':
    case 'failDisk':
    case 'slowDisk':
    case 'flakyDisk':
    case 'corruptDisk':
    case 'fillDisk':
    case 'pullDisk':
    case 'isolate':
      return [step.host];
    case 'partition':
      return step.groups.flat();
    case 'block':
      return [step.from, step.to];
    case 'killGuest':
    case 'hangGuest':
      return hostsOfGuest(step.vm);
    default:
      return [];
  }
}
